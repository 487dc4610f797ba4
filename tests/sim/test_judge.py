"""Judging laws: every case against its best cap, each run once, and the arithmetic of ratios by hand."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from concur.sim.errors import ScenarioError
from concur.sim.lab import sweep as sweep_module
from concur.sim.lab.judge import Verdict, judge, load_cases, summarise
from concur.sim.lab.sweep import Store
from concur.sim.record.record import RunRecord
from concur.sim.runs.parallel import LocalWorkers
from concur.sim.world.simulate import simulate
from tests.helpers import concur, working_folder

SCENARIO = """
[workload]
generator = "react"
num_agents = 5
mean_steps = 4
[engine]
num_gpu_blocks = 601
max_model_len = 8192
[compare]
seeds = [0, 1]
controllers = ["none", "agent_cap=1..3", "concur"]
"""
GRID = """
scenario = "s.toml"
policies = ["none", "hybrid"]
seeds = [0, 1]
[grid]
"engine.num_gpu_blocks" = [601, 1201]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return working_folder(tmp_path, monkeypatch, {"s.toml": SCENARIO, "g.toml": GRID})


def verdict(name: str, best: dict[int, float], **makespans_s: dict[int, float]) -> Verdict:
    return Verdict(name, 3, best, makespans_s, frozenset())


def test_a_case_counts_by_its_geometric_mean_over_seeds_and_all_cases_by_theirs() -> None:
    one = verdict("one", {0: 10.0, 1: 20.0}, none={0: 20.0, 1: 40.0}, law={0: 10.0, 1: 40.0})
    two = verdict("two", {0: 10.0, 1: 10.0}, none={0: 10.0, 1: 10.0}, law={0: 5.0, 1: 20.0})
    assert one.ratio("law") == pytest.approx(math.sqrt(1.0 * 2.0))
    none, law = summarise([one, two])
    assert (none.geometric_mean, none.worst, none.worst_case) == pytest.approx((math.sqrt(2.0), 2.0, "one"))
    assert law.geometric_mean == pytest.approx(2.0**0.25)
    assert (law.num_close, law.num_cases) == (1, 2)
    assert law.worst_left_alone == pytest.approx(1.0), "of the case in which no control is best"


def test_the_interval_is_over_seeds_each_being_one_sample_of_all_cases() -> None:
    """Logarithms of the seeds' means are 0 and 1: mean 1/2, s / sqrt(2) = 1/2, t(1) = 12.706."""
    e = math.e
    cases = [verdict(name, {0: 1.0, 1: 1.0}, law={0: 1.0, 1: e}) for name in "ab"]
    (law,) = summarise(cases)
    assert law.interval is not None
    assert math.log(law.interval[1]) == pytest.approx(0.5 + 12.706 / 2, rel=1e-3)


def test_the_best_cap_of_every_grid_point_is_by_its_mean_over_the_seeds(folder: Path) -> None:
    cases = load_cases(folder / "g.toml")
    assert [case.name for case in cases] == ["g, num_gpu_blocks 601", "g, num_gpu_blocks 1201"]
    for case, found in zip(cases, judge(cases, Store(folder), workers=LocalWorkers(1)), strict=True):
        means_s = {
            cap: sum(
                simulate(case.cell.point(config, seed).scenario).metrics["makespan_s"] for seed in (0, 1)
            )
            for cap in range(1, 6)
            for config in case.cell.scenario.policies(f"agent_cap={cap}")
        }
        assert found.best_cap == min(means_s, key=lambda cap: (means_s[cap], cap))
        assert set(found.makespans_s) == {"none", "hybrid"}


def test_cases_are_named_by_what_tells_them_apart(folder: Path) -> None:
    tables = """
"workload.arrival" = [{ process = "poisson", rate_per_s = 1.0 }, { process = "poisson", rate_per_s = 2.5 }]
"step_time" = [{ kind = "linear" }, { profile = "h100-sxm_qwen3-32b_tp2" }]
"""
    Path("t.toml").write_text(GRID.partition('"engine')[0] + tables)
    names = [case.name for case in load_cases(Path("t.toml"))]
    assert names[0] == "t, arrival rate_per_s 1.0, step_time linear"
    assert names[3] == "t, arrival rate_per_s 2.5, step_time h100-sxm_qwen3-32b_tp2"
    assert len(set(names)) == 4


def test_two_cases_of_one_name_are_refused(folder: Path) -> None:
    cases = [*load_cases(Path("g.toml")), *load_cases(Path("g.toml"))]
    with pytest.raises(ScenarioError, match="2 cases are called 'g, num_gpu_blocks 601'"):
        next(judge(cases, Store(Path("out")), workers=LocalWorkers(1)))


def test_a_scenario_is_a_grid_of_one_point_and_its_caps_are_no_laws(folder: Path) -> None:
    (case,) = load_cases(folder / "s.toml")
    assert [config.label for config in case.policies] == ["none", "concur"]
    assert (case.name, case.seeds) == ("s", (0, 1))
    (other,) = load_cases(folder / "s.toml", policies=["hybrid"], seeds=[3, 4])
    assert ([config.label for config in other.policies], other.seeds) == (["hybrid"], (3, 4))


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"seeds": [0]}, "at least 2"), ({"policies": ["agent_cap=2"]}, "no law to judge")],
)
def test_what_cannot_be_judged_is_refused(folder: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ScenarioError, match=problem):
        load_cases(folder / "s.toml", **options)


def test_stopped_it_goes_on_and_runs_nothing_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    stopped: list[str] = []

    def count(*args: Any) -> RunRecord:
        record = simulate(*args)
        made.append(
            f"{record.label}/{record.run['seed']}/{record.run['scenario']['engine']['num_gpu_blocks']}"
        )
        if len(made) == 7 and not stopped:
            stopped.append(made.pop())  # not kept
            raise KeyboardInterrupt
        return record

    monkeypatch.setattr(sweep_module, "simulate", count)
    arguments = ("judge", "g.toml", "--out", "o", "--jobs", "1")
    assert concur(monkeypatch, *arguments) == 130
    assert concur(monkeypatch, *arguments, "--json") == 0
    assert len(made) == len(set(made))
    assert stopped[0] in made
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((folder / "o" / "judge.json").read_text())
    assert printed["summary"]["hybrid"]["num_cases"] == 2


def test_policies_follow_controllers_and_a_stray_word_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "judge", "s.toml", "none", "--out", "o") == 2
    assert "--controllers" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [])
    assert (
        concur(monkeypatch, "judge", "s.toml", "--out", "o", "--jobs", "1", "--controllers", "none", "hybrid")
        == 0
    )
    assert "geometric mean" in capsys.readouterr().out
