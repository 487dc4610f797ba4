"""A search of parameters: it starts from the defaults, repeats to the byte, and tells a gain from luck."""

import html
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from concur.sim.errors import RecordError
from concur.sim.lab.held_out import check, verdict
from concur.sim.record.record import RunRecord
from concur.sim.runs.intervals import Interval
from concur.sim.runs.parallel import Workers
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario, load_scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate

pytest.importorskip("optuna")

from concur.sim.lab import tune as tuning
from concur.sim.lab import tune_report
from concur.sim.lab.tune import Trial, ask, front, importances, search, trials_in
from tests.helpers import concur

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
        self,
        scenario: Scenario,
        configs: Sequence[ControllerConfig],
        workloads: Mapping[int, Workload],
        *,
        workers: Workers,
    ) -> Iterator[RunRecord]:
        self.num_trials += 1
        if self.num_trials == self.stop_at:
            raise KeyboardInterrupt
        yield from in_this_process(
            scenario, [(config, seed) for seed in workloads for config in configs], workloads, workers
        )


def in_this_process(
    scenario: Scenario,
    pairs: Iterable[tuple[ControllerConfig, int]],
    workloads: Mapping[int, Workload],
    _: Workers | None,
) -> Iterator[RunRecord]:
    for config, seed in pairs:
        yield simulate(scenario.with_seed(seed).with_controller(config), workloads[seed])


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    counter = Count()
    monkeypatch.setattr(tuning, "run_seeds", counter)
    monkeypatch.setattr("concur.sim.runs.compare.run_pairs", in_this_process)  # the check on held-out seeds
    return counter


def tune(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `concur tune s.toml` in this process; return its exit status."""
    return concur(monkeypatch, "tune", "s.toml", *arguments)


def question(folder: Path, policy: str = "concur", objectives: str = OBJECTIVES) -> tuning.Question:
    scenario = load_scenario(folder / "s.toml")
    return ask(scenario, policy, objectives.split(","), {0: build_workload(scenario)})


def test_the_best_is_never_worse_than_the_defaults_and_can_be_pasted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    arguments = ["--controllers", "concur", "--trials", "11", "--seeds", "0,1", "--held-out-seeds", "5..6"]
    assert tune(monkeypatch, *arguments, "--out", "t") == 0
    printed = capsys.readouterr().out
    assert "on held-out seeds 5, 6" in printed
    assert "Against the start" in printed
    assert "the best cap in hindsight (agent_cap=" in printed
    trials = pd.read_parquet(folder / "t" / "trials.parquet")
    assert len(trials) == count.num_trials == 11
    defaults = ControllerConfig(kind="concur").parameters
    assert all(trials[name].iloc[0] == defaults[name] for name in trials.columns[1:-2])
    (folder / "pasted.toml").write_text(SCENARIO + (folder / "t" / "best.toml").read_text())
    pasted = load_scenario(folder / "pasted.toml")
    makespans_s = [simulate(pasted.with_seed(seed)).metrics["makespan_s"] for seed in (0, 1)]
    assert sum(makespans_s) / 2 == trials["makespan_s"].min() <= trials["makespan_s"].iloc[0]
    assert (folder / "t" / "sensitivity.png").stat().st_size > 10_000
    page = html.unescape((folder / "t" / "index.html").read_text())
    verdict_of_start = next(line for line in printed.splitlines() if line.startswith("Against the start"))
    assert f'<p class="verdict">{verdict_of_start}</p>' in page
    assert "<dd>8 of react</dd>" in page
    assert "<dd>0, 1</dd>" in page
    assert (folder / "t" / "best.toml").read_text() in page


def test_the_same_command_makes_the_same_trials_in_one_go_or_interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    arguments = ["--controllers", "hybrid", "--objectives", OBJECTIVES, "--trials", "13", "--seeds", "0"]
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
            ["--controllers", "concur", "--seeds", "0..3", "--held-out-seeds", "3,4"],
            "seed 3 is to tune on and",
        ),
        (["--controllers", "concur", "--seeds", "0,0"], "each named once"),
        (["--controllers", "concur", "--seeds", "few"], "must be whole numbers"),
        (["--controllers", "concur", "--seeds", ""], "--seeds "),
        (["--controllers", "concur", "--held-out-seeds", ""], "--held-out-seeds "),
        (["--controllers", "concur", "--objective", "speed"], "objective 'speed': must be one of makespan_s"),
        (["--controllers", "none"], "nothing to tune"),
        (["--controllers", "magic"], "not a law"),
        (
            ["--controllers", "concur", "--set", "controller.kind=concur", "--set", "controller.alpha=99"],
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
    arguments = ["--controllers", "agent_cap", "--trials", "2", "--out", "t"]
    assert tune(monkeypatch, *arguments, "--held-out-seeds", "5") == 2
    assert "nothing can be held out" in capsys.readouterr().err
    assert tune(monkeypatch, *arguments) == 0
    assert "a trace has no other draw" in capsys.readouterr().out


def test_without_the_optimiser_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("concur.sim.lab.tune")
    monkeypatch.delitem(sys.modules, "concur.sim.lab.tune")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune(monkeypatch, "--controllers", "concur", "--out", "t") == 2
    assert "in a checkout: pip install -e '.[tune]'; from an index" in capsys.readouterr().err


def test_gains_are_paired_by_seed_and_above_one_is_better(folder: Path) -> None:
    scenario = load_scenario(folder / "s.toml")
    good, bad = (ControllerConfig(kind="agent_cap", parameters={"cap": cap}) for cap in (8, 1))
    checked = check(
        scenario,
        start=bad,
        tuned=good,
        tuning_seeds=[0],
        seeds=[1, 2],
        objective="makespan_s",
        is_higher_better=False,
    )
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


def test_the_best_caps_are_best_by_the_objective_judged(folder: Path) -> None:
    scenario = load_scenario(folder / "s.toml")
    law = ControllerConfig(kind="agent_cap", parameters={"cap": 8})
    caps = {
        objective: check(
            scenario,
            start=law,
            tuned=law,
            tuning_seeds=[0],
            seeds=[1],
            objective=objective,
            is_higher_better=is_higher_better,
        ).hindsight_cap
        for objective, is_higher_better in (("makespan_s", False), ("mean_active_agents", False))
    }
    assert caps["mean_active_agents"] == "agent_cap=1" != caps["makespan_s"]


PROFILES = Path(__file__).resolve().parents[2] / "calib" / "profiles"


def test_a_profile_fitted_anew_is_another_question_and_one_that_moved_is_not(folder: Path) -> None:
    first, second = (PROFILES / f"h{kind}-sxm_qwen3-32b_tp{size}.json" for kind, size in ((100, 2), (200, 1)))

    def asked(profile: str) -> tuning.Question:
        (folder / "s.toml").write_text(f'{SCENARIO}[step_time]\nkind = "profile"\nprofile = "{profile}"\n')
        return question(folder)

    shutil.copy(first, folder / "p.json")
    shutil.copy(first, folder / "moved.json")
    before = asked("p.json").digest
    assert asked("moved.json").digest == before
    shutil.copy(second, folder / "p.json")  # fitted anew
    assert asked("p.json").digest != before


def test_each_trial_names_the_commit_that_made_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    arguments = ["--controllers", "agent_cap", "--seeds", "0", "--held-out-seeds", "1", "--out", "t"]

    def tuned_at(commit: str, num_trials: int) -> str:
        for module in ("concur.sim.lab.tune", "concur.sim.cli.tune"):
            monkeypatch.setattr(f"{module}.git_commit", lambda: commit)
        assert tune(monkeypatch, *arguments, "--trials", str(num_trials)) == 0
        return capsys.readouterr().err

    assert "choose another --out" not in tuned_at("a" * 40 + "+12345678", 1)
    assert "choose another --out" not in tuned_at("a" * 40 + "+12345678", 2)
    assert "several commits (aaaaaaaaa+1234, bbbbbbbbb)" in tuned_at("b" * 40, 3)
    commits = pd.read_parquet(folder / "t" / "trials.parquet")["git_commit"]
    assert [commit[0] for commit in commits] == ["a", "a", "b"]
    best = Trial(1, {"cap": 3}, (1.0,), "cafe")
    assert (
        "commit cafe" in tune_report.provenance(question(folder, "agent_cap", "hit_rate"), [best], best)[-1]
    )


def test_a_tuned_cap_has_its_own_label_and_its_command_is_accepted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    arguments = ["--controllers", "agent_cap+fresh", "--objective", "num_preemptions", "--trials", "5"]
    assert tune(monkeypatch, *arguments, "--seeds", "0", "--held-out-seeds", "1", "--out", "t") == 0
    printed = capsys.readouterr().out
    best = (folder / "t" / "best.toml").read_text()
    cap = best.partition("cap = ")[2].split()[0]
    assert int(cap) < 8
    assert f"agent_cap={cap}+fresh, tuned" in printed
    assert "agent_cap=8+fresh, tuned" not in printed
    assert "concur tune --controllers agent_cap+fresh: trial" in best


def test_a_cap_given_in_the_scenario_is_the_start(folder: Path) -> None:
    for given, start in (("cap = 3", 3), ("cap = 99", 8)):
        (folder / "s.toml").write_text(f'{SCENARIO}[controller]\nkind = "agent_cap"\n{given}\n')
        assert question(folder, "agent_cap").start.parameters["cap"] == start
        assert question(folder, "request_cap").start.parameters["cap"] == 8


@pytest.mark.parametrize("broken", [None, "no journal\n\n", "[1]\n", '{"a": 1}\n'])
def test_a_journal_that_cannot_be_used_is_refused_in_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: Count,
    broken: str | None,
) -> None:
    log = folder / "t" / "study.log"
    (log if broken is None else log.parent).mkdir(parents=True)
    if broken is not None:
        log.write_text(broken)
    assert tune(monkeypatch, "--controllers", "gradient", "--out", "t") == 2
    error = capsys.readouterr().err
    assert "cannot be read and written as a journal of trials" in error
    assert error.count("\n") == 1
    assert count.num_trials == 0


def test_a_folder_that_cannot_be_made_is_refused(folder: Path, count: Count) -> None:
    with pytest.raises(RecordError, match="choose another --out"):
        search(question(folder), folder / ("x" * 300), num_trials=1)


@pytest.mark.parametrize("stop_in", ["optuna.Study.ask", "concur.sim.lab.tune._measure"])
def test_the_start_is_made_once_wherever_the_first_trial_is_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: Count, stop_in: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stop_in, stop)
        with pytest.raises(KeyboardInterrupt):
            search(question(folder), folder / "t", num_trials=2)
    first, second = search(question(folder), folder / "t", num_trials=2)
    assert first.parameters == {
        name: ControllerConfig(kind="concur").parameters[name] for name in first.parameters
    }
    assert second.parameters != first.parameters


def test_importances_are_of_the_trials_given_with_thresholds_in_order(folder: Path, count: Count) -> None:
    asked = question(folder, objectives="makespan_s")
    search(asked, folder / "t", num_trials=14)
    kept = trials_in(asked, folder / "t")
    assert importances(asked, kept[:9]) == {}
    shares = importances(asked, kept[:12])
    assert set(shares) == set(asked.space)
    assert math.fsum(shares.values()) == pytest.approx(1)
    assert shares != importances(asked, kept)
    by_alpha = [
        Trial(number, {**kept[0].parameters, "alpha": 1 + number}, (float(number),)) for number in range(20)
    ]
    assert max(importances(asked, by_alpha).items(), key=lambda item: item[1])[0] == "alpha"


@pytest.mark.parametrize(
    ("stop_in", "said"),
    [
        ("concur.sim.cli.tune.build_workloads", "stopped before the first trial; nothing is kept"),
        ("concur.sim.cli.tune.check", "finished trials are kept in t; the same command continues"),
    ],
)
def test_every_interrupt_says_what_is_kept(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: Count,
    stop_in: str,
    said: str,
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stop_in, stop)
    assert tune(monkeypatch, "--controllers", "agent_cap", "--trials", "1", "--out", "t") == 130
    assert said in capsys.readouterr().err
