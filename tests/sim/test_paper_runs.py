"""`concur paper` end to end, on settings small enough to run in a second."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from concur.cli import main
from concur.sim.cli import paper as cli
from concur.sim.paper import fig1, fig6, sensitivity, table1
from concur.sim.paper.figures import FIGURES
from concur.sim.paper.numbers import printed
from concur.sim.paper.page import write_results
from concur.sim.paper.parts import why_gain
from concur.sim.paper.runs import CONCUR, NONE, Book, Job, agent_cap, concur
from concur.sim.paper.settings import QWEN_AGENTS, READINGS, Setting, deepseek, qwen
from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import run_seeds
from concur.sim.scenario.build import build_workload
from concur.sim.show.figures import style


def small(num_blocks_frac: float) -> Setting:
    agents = replace(QWEN_AGENTS, mean_steps=5.0)
    return replace(qwen(2, "as printed"), num_agents=12, agents=agents, pool_frac=num_blocks_frac)


@pytest.fixture(scope="module")
def thrashing() -> tuple[Book, Setting]:
    book, setting = Book([0, 1]), small(0.04)
    book.run([Job(setting, (NONE, CONCUR, agent_cap(4)))])
    return book, setting


def run(*arguments: str) -> int:
    """Run the command in this process; return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["concur", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_a_law_with_its_defaults_written_out_is_run_once() -> None:
    book, setting = Book([0, 1]), small(1.0)
    jobs = [Job(setting, (CONCUR, concur(u_low_frac=0.2))), Job(setting, (CONCUR, NONE), num_seeds=1)]
    assert sum(batch.num_runs for batch in book.missing(jobs)) == 3
    book.run(jobs)
    assert book.missing(jobs) == []
    assert book.runs(setting, CONCUR)[1] is book.runs(setting, concur(u_low_frac=0.2))[1]
    assert set(book.runs(setting, CONCUR)) == {0, 1}
    assert set(book.runs(setting, NONE)) == {0}


def test_runs_are_in_the_order_of_seeds_whichever_ended_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(*asked: object, **options: object) -> list[RunRecord]:
        return list(run_seeds(*asked, **options))[::-1]  # type: ignore[arg-type]

    monkeypatch.setattr("concur.sim.paper.runs.run_seeds", backwards)
    book, setting = Book([0, 1]), small(1.0)
    book.run([Job(setting, (NONE,))])
    assert list(book.runs(setting, NONE)) == [0, 1]


def test_the_peak_demand_is_a_share_of_the_pool(thrashing: tuple[Book, Setting]) -> None:
    book, setting = thrashing
    whole = sum(agent.peak_context_tokens for agent in build_workload(setting.scenario()).agents)
    assert 1 < book.mean(setting, NONE, "peak_demand_frac").mean < 1.2 * whole / setting.pool_tokens
    assert book.mean(setting, NONE, "recompute_time_fraction").mean > 0.02


def test_where_demand_exceeds_the_pool_the_reason_names_the_best_cap(thrashing: tuple[Book, Setting]) -> None:
    book, setting = thrashing
    why = why_gain(book, setting, printed("fig6.concur"), [agent_cap(4)])
    assert "best cap (4)" in why
    assert "no window that stays put reaches the print" in why


def test_where_it_fits_the_reason_is_that_nothing_thrashes() -> None:
    book, setting = Book([0]), small(1.0)
    book.run([Job(setting, (NONE,))])
    assert "nothing thrashes" in why_gain(book, setting, printed("fig6.concur"), [])


def test_the_lengthening_is_the_smallest_power_of_two_that_overflows_the_pool() -> None:
    for setting in (qwen(8, "lengthened"), deepseek(16, 40, "lengthened")):
        book = Book([0])
        half = replace(setting, agents=replace(setting.agents, mean_steps=setting.agents.mean_steps / 2))
        book.run([Job(setting, (NONE,)), Job(half, (NONE,))])
        assert book.mean(setting, NONE, "peak_demand_frac").mean > 1
        assert book.mean(half, NONE, "peak_demand_frac").mean < 1


def test_contexts_of_the_agents_reach_what_fig_1_prints() -> None:
    part = fig1.part(Book([0]))
    ends = {model: tokens[-1] for model, tokens in part.series["contexts"].items()}
    assert ends["Qwen3-32B"] == pytest.approx(1.5e9 / 262_144, rel=0.05)
    assert ends["DeepSeek-V3"] == pytest.approx(17 * 2**30 / fig1.kv_bytes_per_token("DeepSeek-V3"), rel=0.05)


def test_fig1_is_written_whole_and_twice_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        assert run("paper", "--only", "fig1", "--seeds", "3", "--out", str(tmp_path / name)) == 0
    assert "recompute, 8 requests" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert files == {"README.md", "index.html", "paper.json", "fig1.pdf", "fig1.png"}
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    content = json.loads((tmp_path / "one" / "paper.json").read_text())
    verdicts = {(finding["key"], finding["what"]): finding["verdict"] for finding in content["findings"]}
    assert verdicts["fig1.request_bytes", "KV of 4,096 tokens (GiB)"] == "reproduced"
    assert content["seeds"] == [3]
    assert len(content["assumptions"]) > 10


def test_the_figures_width_is_the_pages_and_fonts_are_embedded(tmp_path: Path) -> None:
    write_results([fig1.part(Book([0]))], tmp_path, seeds=[0])
    data = (tmp_path / "fig1.pdf").read_bytes()
    assert b"/MediaBox [ 0 0 496.8 " in data  # 6.9 inches of 72 points
    assert b"/CreationDate" not in data
    assert b"/Type3" not in data


def test_axes_are_labelled_with_units() -> None:
    with style():
        axes = FIGURES["fig1"](fig1.part(Book([0]))).axes
    assert [ax.get_ylabel() for ax in axes[:2]] == ["context (1,000 tokens)", "KV per agent (GB)"]
    assert [ax.get_xlabel() for ax in axes] == ["step", "step", "time (s)"]


def test_a_part_of_a_small_setting_from_runs_to_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fig6, "qwen", lambda num_gpus, reading: small(0.04))
    monkeypatch.setattr(fig6, "fine_caps", lambda setting: tuple(agent_cap(cap) for cap in (2, 4, 64)))
    monkeypatch.setattr(fig6, "LEVELS", (4, 64))
    monkeypatch.setitem(cli.PARTS, "fig6", (fig6.jobs, fig6.part))
    assert run("paper", "--only", "fig6", "--seeds", "0", "--out", str(tmp_path)) == 0
    page, text = (tmp_path / "index.html").read_text(), (tmp_path / "README.md").read_text()
    assert "best of the fine sweep" in page
    assert page.index('<dl class="facts">') < page.index('<p class="verdict">Of ') < page.index("<table>")
    assert "<dt>seeds</dt><dd>0</dd>" in page
    assert "2.99x (C)" in text
    assert (tmp_path / "fig6.png").stat().st_size > 10_000


def test_every_part_has_a_figure() -> None:
    assert set(FIGURES) == set(cli.PARTS)


def test_each_variation_but_the_first_changes_something() -> None:
    bases = [setting for setting, _ in sensitivity.HEADLINES]
    assert [sensitivity.VARIATIONS[0].change(setting) for setting in bases] == bases
    for variation in sensitivity.VARIATIONS[1:]:
        laws = {variation.policy(setting).fingerprint for setting in bases}
        assert [variation.change(setting) for setting in bases] != bases or laws != {CONCUR.fingerprint}


def test_the_fine_sweep_ends_with_all_agents() -> None:
    for reading in READINGS:
        for setting in table1.settings(reading):
            caps = [dict(policy.parameters)["cap"] for policy in table1.fine_caps(setting)]
            assert caps[-1] == setting.num_agents
            assert np.all(np.diff(np.array(caps, float)) > 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--only", "fig2"), "no such part"), (("--seeds", "a"), "whole numbers"), (("--seeds", "1,1"), "once")],
)
def test_what_is_no_part_or_seed_is_refused_before_anything_is_run(
    arguments: tuple[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("paper", *arguments, "--out", str(tmp_path / "out")) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
