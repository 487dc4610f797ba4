"""A search of parameters: it starts from the defaults, repeats to the byte, and tells a gain from luck."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from concur.cli import main
from sim.driver import simulate
from sim.errors import RecordError
from sim.intervals import Interval
from sim.lab.held_out import check, verdict
from sim.record import RunRecord
from sim.scenario import ControllerConfig, Scenario, load_scenario
from sim.workload.build import build_workload
from sim.workload.spec import Workload

pytest.importorskip("optuna")

from sim.lab import tune as tuning
from sim.lab.tune import Trial, ask, front, search

SCENARIO = """
[workload]
generator = "react"
num_agents = 8
mean_steps = 4
[engine]
num_gpu_blocks = 401
max_model_len = 8192
"""
OBJECTIVES = "makespan_s,hit_rate"
_ALPHA = ["--set", "controller.kind=concur", "--set", "controller.alpha=99"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(SCENARIO)
    return tmp_path


class Count:
    """Run seeds in this process, count the trials, and interrupt a chosen one."""

    def __init__(self, stop_at: int = 0) -> None:
        self.num_trials = 0
        self.stop_at = stop_at

    def __call__(
        self, scenario: Scenario, configs: Sequence[ControllerConfig], workloads: Mapping[int, Workload]
    ) -> Iterator[RunRecord]:
        self.num_trials += 1
        if self.num_trials == self.stop_at:
            raise KeyboardInterrupt
        for seed, workload in workloads.items():
            for config in configs:
                yield simulate(scenario.with_seed(seed).with_controller(config), workload)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    counter = Count()
    monkeypatch.setattr(tuning, "run_seeds", counter)
    monkeypatch.setattr("sim.compare.run_seeds", Count())  # the check on held-out seeds
    return counter


def tune(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `concur tune s.toml` in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["concur", "tune", "s.toml", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def question(folder: Path, policy: str = "concur", objectives: str = OBJECTIVES) -> tuning.Question:
    scenario = load_scenario(folder / "s.toml")
    return ask(scenario, policy, objectives.split(","), {0: build_workload(scenario)})


def test_the_best_is_never_worse_than_the_defaults_and_can_be_pasted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    arguments = ["--controller", "concur", "--trials", "11", "--seeds", "0,1", "--held-out-seeds", "5..6"]
    assert tune(monkeypatch, *arguments, "--out", "t") == 0
    printed = capsys.readouterr().out
    assert "on held-out seeds 5, 6" in printed
    assert "Against the start" in printed
    assert "the best cap in hindsight (agent_cap=" in printed
    trials = pd.read_parquet(folder / "t" / "trials.parquet")
    assert len(trials) == count.num_trials == 11
    defaults = ControllerConfig(kind="concur").parameters
    assert all(trials[name].iloc[0] == defaults[name] for name in trials.columns[1:-1])
    (folder / "pasted.toml").write_text(SCENARIO + (folder / "t" / "best.toml").read_text())
    pasted = load_scenario(folder / "pasted.toml")
    makespans_s = [simulate(pasted.with_seed(seed)).metrics["makespan_s"] for seed in (0, 1)]
    assert sum(makespans_s) / 2 == trials["makespan_s"].min() <= trials["makespan_s"].iloc[0]
    assert (folder / "t" / "sensitivity.png").stat().st_size > 10_000


def test_the_same_command_makes_the_same_trials_in_one_go_or_interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    arguments = ["--controller", "hybrid", "--objectives", OBJECTIVES, "--trials", "13", "--seeds", "0"]
    assert tune(monkeypatch, *arguments, "--out", "one") == 0
    count.stop_at = count.num_trials + 12
    assert tune(monkeypatch, *arguments, "--out", "two") == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not (folder / "two" / "trials.parquet").exists()
    assert tune(monkeypatch, *arguments, "--out", "two") == 0
    assert count.num_trials == 13 + 12 + 2, "eleven of the trials were kept"
    one, two = ((folder / name / "trials.parquet").read_bytes() for name in ("one", "two"))
    assert one == two
    assert pd.read_parquet(folder / "one" / "trials.parquet")["window_s"].nunique() > 10


def test_a_folder_with_trials_of_another_question_is_refused(folder: Path, count: Count) -> None:
    search(question(folder), folder / "t", num_trials=1)
    for other in (question(folder, "hybrid"), question(folder, objectives="hit_rate")):
        with pytest.raises(RecordError, match="another scenario, law, objective or version"):
            search(other, folder / "t", num_trials=1)


def test_the_front_is_what_no_other_trial_beats(folder: Path) -> None:
    values = [(5.0, 0.5), (4.0, 0.4), (6.0, 0.6), (4.0, 0.3), (5.0, 0.5), (7.0, 0.6)]
    trials = [Trial(number, {}, value) for number, value in enumerate(values)]
    assert [trial.number for trial in front(question(folder), trials)] == [1, 0, 2]


def test_a_gain_whose_interval_includes_one_is_not_called_a_gain() -> None:
    assert "the gain holds: 1.100" in verdict(Interval(1.1, 0.05), "x")
    assert "the tuned law is worse" in verdict(Interval(0.9, 0.05), "x")
    assert "no gain is shown" in verdict(Interval(1.1, 0.2), "x")
    assert "includes 1" in verdict(Interval(0.99, 0.02), "x")
    assert "proves nothing" in verdict(Interval(1.5, None), "x")
    assert "no ratio" in verdict(None, "x")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--controller", "concur", "--seeds", "0..3", "--held-out-seeds", "3,4"],
            "seed 3 is to tune on and",
        ),
        (["--controller", "concur", "--seeds", "0,0"], "each named once"),
        (["--controller", "concur", "--seeds", "few"], "must be whole numbers"),
        (["--controller", "concur", "--objective", "speed"], "objective 'speed': must be one of makespan_s"),
        (["--controller", "none"], "nothing to tune"),
        (["--controller", "magic"], "not a law"),
        (
            ["--controller", "concur", "--set", "controller.kind=concur", "--set", "controller.alpha=99"],
            "alpha = 99",
        ),
    ],
)
def test_a_search_that_would_show_nothing_is_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: Count,
    arguments: list[str],
    said: str,
) -> None:
    assert tune(monkeypatch, *arguments, "--out", "t") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert count.num_trials == 0
    assert not (folder / "t").exists()


def test_a_trace_has_no_seeds_to_hold_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    line = (
        '{"agent_id": "a", "source": "t", "prefix_group": null, "shared_prefix_tokens": 0, '
        '"steps": [{"new_prompt_tokens": 500, "output_tokens": 20, "tool_latency_s": 1.0}]}\n'
    )
    (folder / "t.jsonl").write_text(line + line.replace('"a"', '"b"'))
    text = SCENARIO.replace('generator = "react"\nnum_agents = 8\nmean_steps = 4', 'trace = "t.jsonl"')
    (folder / "s.toml").write_text(text)
    arguments = ["--controller", "agent_cap", "--trials", "2", "--out", "t"]
    assert tune(monkeypatch, *arguments, "--held-out-seeds", "5") == 2
    assert "nothing can be held out" in capsys.readouterr().err
    assert tune(monkeypatch, *arguments) == 0
    assert "a trace has no other draw" in capsys.readouterr().out


def test_without_the_optimiser_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("sim.lab.tune")
    monkeypatch.delitem(sys.modules, "sim.lab.tune")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune(monkeypatch, "--controller", "concur", "--out", "t") == 2
    assert "pip install 'concur-admission[tune]'" in capsys.readouterr().err


def test_gains_are_paired_by_seed_and_above_one_is_better(folder: Path) -> None:
    scenario = load_scenario(folder / "s.toml")
    good, bad = (ControllerConfig(kind="agent_cap", parameters={"cap": cap}) for cap in (8, 1))
    checked = check(scenario, start=bad, tuned=good, tuning_seeds=[0], seeds=[1, 2])
    for objective, is_higher_better in (("makespan_s", False), ("throughput_tokens_per_s", True)):
        gain = checked.gain("tuned", "start", objective, is_higher_better=is_higher_better)
        ratios = [
            checked.runs["start"][seed].metrics["makespan_s"]
            / checked.runs["tuned"][seed].metrics["makespan_s"]
            for seed in (1, 2)
        ]
        assert gain is not None
        assert gain.mean == pytest.approx(sum(ratios) / 2)
        assert gain.mean > 1
    assert checked.gain("start", "tuned", "num_preemptions", is_higher_better=False) is None, "cap 1 has 0"
    hindsight = checked.gain("tuned", checked.hindsight_cap, "makespan_s", is_higher_better=False)
    assert hindsight is not None
    assert hindsight.mean <= 1
