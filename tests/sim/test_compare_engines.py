"""The same agents on several engines: how each is derived, one table, a page over all of them."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.errors import ScenarioError
from concur.sim.scenario.engine_texts import engine_variants
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.world.simulate import simulate
from tests.helpers import concur, leave_figures_empty, make_scenario

FILE = """
[workload]
generator = "react"
num_agents = 6
mean_steps = 3
[engine]
num_gpu_blocks = 401
max_model_len = 6000
[compare]
controllers = ["none", "agent_cap=2,4"]
"""
ENGINES = "vllm,sglang,sglang+schedule_policy=lpm"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    leave_figures_empty(monkeypatch)
    path = tmp_path / "s.toml"
    path.write_text(FILE)
    return path


def of_sglang(**engine: Any) -> Scenario:
    section = {"kind": "sglang", "max_total_num_tokens": 8000, "context_length": 6000}
    return parse_scenario({"workload": {"generator": "react", "num_agents": 4}, "engine": section | engine})


def test_an_sglang_beside_a_vllm_has_its_pool_seats_and_budget() -> None:
    scenario = make_scenario(
        engine={"max_num_seqs": 7, "max_num_batched_tokens": 512, "async_scheduling": True}
    )
    variants = engine_variants(scenario, ["vllm", "sglang", "sglang+page_size=16+schedule_policy=lpm"])
    assert list(variants) == ["vllm", "sglang", "sglang+page_size=16+schedule_policy=lpm"]
    assert variants["vllm"] == scenario
    plain, paged = variants["sglang"].engine, variants["sglang+page_size=16+schedule_policy=lpm"].engine
    assert isinstance(plain, SglangConfig)
    assert isinstance(paged, SglangConfig)
    assert plain.pool_tokens == paged.pool_tokens == scenario.engine.pool_tokens == 32_000
    assert plain.max_running_requests == 7
    assert plain.chunked_prefill_size == 512
    assert plain.max_context_tokens == scenario.engine.max_context_tokens
    assert plain.is_one_step_ahead
    assert (paged.page_size, paged.schedule_policy) == (16, "lpm")
    assert variants["sglang"].workload == scenario.workload


def test_a_vllm_beside_an_sglang_has_its_pool_seats_and_budget() -> None:
    scenario = of_sglang(max_running_requests=9, disable_overlap_schedule=True)
    engine = engine_variants(scenario, ["vllm"])["vllm"].engine
    assert isinstance(engine, EngineConfig)
    assert engine.pool_tokens == 8000
    assert engine.max_num_seqs == 9
    assert engine.max_num_batched_tokens == 8192
    assert engine.max_context_tokens == scenario.engine.max_context_tokens
    assert not engine.async_scheduling
    paged = engine_variants(of_sglang(page_size=32, chunked_prefill_size=-1), ["vllm"])["vllm"].engine
    assert (paged.unit_tokens, paged.pool_tokens) == (32, 8000)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["vllm", "vllm"], "vllm is named twice"),
        (["tgi"], "'tgi' is no engine that is simulated but must be one of vllm, sglang"),
        (["sglang+page_size"], "not of the form KEY=VALUE"),
        (["sglang+block_size=16"], "unknown key engine.block_size"),
        (["sglang+page_size=0"], "engine.page_size = 0"),
    ],
)
def test_what_is_no_engine_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ScenarioError, match="--engines") as refused:
        engine_variants(make_scenario(), texts)
    assert said in str(refused.value)


def test_an_engine_without_a_second_tier_is_not_put_beside_one_that_has_it() -> None:
    scenario = make_scenario(engine={"host_cache": {"capacity_tokens": 4000}})
    with pytest.raises(ScenarioError, match="host_cache is vLLM's own"):
        engine_variants(scenario, ["vllm", "sglang"])
    assert engine_variants(scenario, ["vllm"])["vllm"] == scenario


def test_each_row_is_the_run_of_that_engine_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--controllers", "none", "agent_cap=2", "--json", "--jobs", "1"]
    assert concur(monkeypatch, "compare", str(file), "--engines", ENGINES, *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ENGINES.split(",")
    scenario = parse_scenario(tomllib.loads(FILE))
    for name, variant in engine_variants(scenario, ENGINES.split(",")).items():
        assert list(found[name]) == ["none", "agent_cap=2"]
        alone = simulate(variant.with_controller(variant.policies("agent_cap=2")[0])).metrics
        assert found[name]["agent_cap=2"]["makespan_s"] == alone["makespan_s"]
    assert found["vllm"]["none"]["makespan_s"] != found["sglang"]["none"]["makespan_s"]


def test_one_table_and_a_page_over_all_and_one_for_each(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    file.write_text(FILE + f"engines = {json.dumps(ENGINES.split(','))}\n")
    out = tmp_path / "out"
    assert concur(monkeypatch, "compare", str(file), "--out", str(out), "--jobs", "1") == 0
    text = capsys.readouterr().out
    assert text.count("of first") == 2
    assert text.count("│ none") == 3
    page = (out / "report" / "index.html").read_text()
    for name in ENGINES.split(","):
        assert f'"name":"{name}"' in page
        assert f'href="../{name}/report/index.html"' in page
        assert (out / name / "report" / "index.html").exists()
    assert "vLLM 0.32, SGLang 0.5.23" in page
    assert 'engine<select id="group">' in page

    (out / "report" / "index.html").unlink()
    assert concur(monkeypatch, "report", str(out)) == 0
    assert (out / "report" / "index.html").read_text() == page


def test_seeds_and_engines_together(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--engines", "vllm,sglang", "--seeds", "0,1", "--jobs", "1"]
    assert concur(monkeypatch, "compare", str(file), *arguments) == 0
    text = capsys.readouterr().out
    assert "seed 0, 1" in text
    assert " ±" in text


@pytest.mark.parametrize("extra", [["--draws", "2"], ["--engines", "vllm,vllm"]])
def test_what_does_not_go_together_is_refused_before_anything_runs(
    extra: list[str], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ["--engines", "vllm,sglang", *extra, "--out", str(out)]
    assert concur(monkeypatch, "compare", str(file), *arguments) == 2
    assert not out.exists()


def test_a_folder_with_something_else_is_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "none").mkdir(parents=True)
    arguments = ["--engines", "vllm,sglang", "--out", str(tmp_path / "out")]
    assert concur(monkeypatch, "compare", str(file), *arguments) == 2
    assert "holds 'none', which no comparison of engines has written" in capsys.readouterr().err
