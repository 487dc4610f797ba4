"""The paper's runs on SGLang beside vLLM, on settings small enough for a few seconds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.paper import engines
from concur.sim.paper.engines import ENGINES, TIERS, hicache_rows, jobs, part, rows
from concur.sim.paper.page import write_results
from concur.sim.paper.runs import NONE, Book
from concur.sim.paper.settings import READINGS, Reading, Setting, deepseek, on_sglang, qwen
from concur.sim.show.tables import print_tables
from concur.sim.world.simulate import simulate


def small(setting: Setting) -> Setting:
    agents = replace(setting.agents, mean_steps=4.0)
    return replace(setting, num_agents=max(2, setting.num_agents // 20), agents=agents, pool_frac=0.02)


@pytest.fixture(scope="module")
def book() -> Iterator[Book]:
    def small_qwen(num_gpus: int, reading: Reading) -> Setting:
        return small(qwen(num_gpus, reading))

    def small_deepseek(num_gpus: int, num_agents: int, reading: Reading) -> Setting:
        return replace(small(deepseek(num_gpus, num_agents, reading)), pool_frac=0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "qwen", small_qwen)
        patch.setattr(engines, "deepseek", small_deepseek)
        own = Book([0])
        own.run([job for reading in READINGS for job in jobs(reading)])
        yield own


def test_a_setting_keeps_its_pool_on_sglang() -> None:
    setting = on_sglang(qwen(2, "as printed"), "0.5.8")
    engine = setting.scenario().engine
    assert isinstance(engine, SglangConfig)
    assert engine.release == "0.5.8"
    assert engine.pool_tokens == setting.pool_tokens == qwen(2, "as printed").pool_tokens


def test_every_number_is_there_for_every_engine_or_for_none(book: Book) -> None:
    for reading in READINGS:
        found = rows(book, reading)
        keys = [row.printed.key for row in found]
        assert len(keys) == len(set(keys)) >= 20
        assert not any("hicache" in key or key.startswith("fig1.") for key in keys)
        for row in found:
            assert list(row.ours) == list(ENGINES)


def test_release_058_finds_less_than_0523_where_answers_come_back(book: Book) -> None:
    setting = small(qwen(8, "as printed"))
    hits = {name: book.mean(put(setting), NONE, "hit_rate").mean for name, put in ENGINES.items()}
    assert hits["SGLang 0.5.8"] < hits["SGLang 0.5.23"]


def test_hicache_has_its_own_numbers_on_its_own_engine(book: Book) -> None:
    for reading in READINGS:
        found = hicache_rows(book, reading)
        assert [row.printed.key for row in found] == ["table1.deepseek_tp16_40.hicache", "table2.hicache.40"]
        assert all(list(row.ours) == list(TIERS) for row in found)


def test_a_host_tier_finds_more_than_none_on_either_engine() -> None:
    bare = replace(small(deepseek(8, 40, "lengthened")), num_agents=6, pool_frac=0.05)

    def hits(setting: Setting) -> float:
        return float(simulate(setting.scenario()).metrics["hit_rate"])

    without = {None: hits(bare), "0.5.23": hits(on_sglang(bare, "0.5.23"))}
    for put in TIERS.values():
        assert hits(put(bare)) > without[put(bare).sglang_release]


def test_the_part_is_written_with_its_figure_and_tables(
    book: Book, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = part(book, "lengthened")
    write_results([made], tmp_path, seeds=[0])
    print_tables(*made.tables, width=200)
    assert "how many numbers each engine reproduces" in capsys.readouterr().out
    text = (tmp_path / "README.md").read_text()
    assert (tmp_path / "engines_lengthened.png").stat().st_size > 10_000
    counted = next(row for row in text.splitlines() if row.startswith("| SGLang 0.5.8 | "))
    assert sum(int(cell) for cell in counted.split("|")[2:5]) == len(rows(book, "lengthened"))
