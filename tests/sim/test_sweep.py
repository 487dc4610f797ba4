"""A sweep: every run once, none lost, every point checked before the first of them runs."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from concur.sim.lab import sweep as sweep_module
from concur.sim.lab.grid import load_grid
from concur.sim.lab.sweep_report import write_sweep_report
from concur.sim.lab.sweep_table import sweep_table
from concur.sim.record.record import RunRecord
from concur.sim.scenario.scenario import Scenario, load_scenario
from concur.sim.world.simulate import simulate
from tests.helpers import concur, working_folder

SCENARIO = """
[workload]
generator = "react"
num_agents = 4
mean_steps = 3
[engine]
num_gpu_blocks = 601
max_model_len = 8192
"""
AGENT = {"agent_id": "a", "source": "test", "prefix_group": None, "shared_prefix_tokens": 0}
GRID = """
scenario = "s.toml"
policies = ["none", "agent_cap=1,2", "concur"]
seeds = [0, 1]
[grid]
"workload.num_agents" = [2, 3]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return working_folder(tmp_path, monkeypatch, {"s.toml": SCENARIO, "g.toml": GRID})


class Count:
    """Count the runs that are made; raise at a chosen one."""

    def __init__(self, stop_at: int = 0) -> None:
        self.num_runs = 0
        self.stop_at = stop_at

    def __call__(self, *args: Any) -> RunRecord:
        self.num_runs += 1
        if self.num_runs == self.stop_at:
            raise KeyboardInterrupt
        return simulate(*args)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    counter = Count()
    monkeypatch.setattr(sweep_module, "simulate", counter)
    return counter


def sweep(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `concur sweep g.toml --out o` in this process; return its exit status."""
    return concur(monkeypatch, "sweep", "g.toml", "--out", "o", "--jobs", "1", *arguments)


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "o" / "runs.parquet")


def test_every_combination_is_one_row_with_the_metrics_of_that_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(monkeypatch) == 0
    printed = capsys.readouterr()
    assert "16 runs, 0 of them done before" in printed.err
    assert "best static cap" in printed.out
    rows = table(folder)
    assert len(rows) == len(rows["key"].unique()) == 2 * 4 * 2
    assert list(rows.columns[:3]) == ["workload.num_agents", "policy", "seed"]
    row = rows.query("`workload.num_agents` == 3 and policy == 'agent_cap=2' and seed == 1").iloc[0]
    overrides = ["workload.num_agents=3", "controller.kind=agent_cap", "controller.cap=2", "seed=1"]
    metrics = simulate(load_scenario(folder / "s.toml", overrides)).metrics
    assert row["makespan_s"] == metrics["makespan_s"]
    assert row["agent_latency_s.p99"] == metrics["agent_latency_s"]["p99"]
    plan = json.loads((folder / "o" / "sweep.json").read_text())
    assert {point["key"] for point in plan["points"]} == set(rows["key"])


def test_the_same_command_repeats_nothing_and_a_changed_grid_what_is_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    assert sweep(monkeypatch) == 0
    before = (folder / "o" / "runs.parquet").read_bytes()
    assert sweep(monkeypatch) == 0
    assert count.num_runs == 16
    assert (folder / "o" / "runs.parquet").read_bytes() == before
    (folder / "g.toml").write_text(GRID.replace("[2, 3]", "[3, 4]").replace(', "concur"', ""))
    assert sweep(monkeypatch) == 0
    assert count.num_runs == 16 + 6
    assert len(table(folder)) == 12


def test_a_sweep_can_be_reported_once_it_has_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    count.stop_at = 6
    assert sweep(monkeypatch) == 130
    assert concur(monkeypatch, "report", "o") == 2
    assert "o: has no runs.parquet: it has not come to its end; run it again" in capsys.readouterr().err
    assert sweep(monkeypatch, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 16
    assert concur(monkeypatch, "report", "o") == 0
    assert "report: o/report/index.html" in capsys.readouterr().out
    page = (folder / "o" / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "best static cap" in page
    for fact in ("<dd>2, 3 of react</dd>", "<dd>0, 1</dd>", "<dd>9,600 tokens (601 blocks of 16)</dd>"):
        assert fact in page
    points = json.loads(re.findall(r'id="points">(.*?)</script>', page)[0])
    assert len(points) > 1
    assert '<select id="point">' in page
    assert f"On {len(points)} grid points, speed over the best static cap&#x27;s" in page
    assert concur(monkeypatch, "report", "o", "--perfetto", "t.json.gz") == 2


def test_the_page_of_a_sweep_says_each_kind_of_warning_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep(monkeypatch) == 0
    table = pd.read_parquet(folder / "o" / "runs.parquet")
    table["warnings"] = [f"{number} steps were beyond; all of it" for number in range(len(table))]
    table.to_parquet(folder / "o" / "runs.parquet")
    page = write_sweep_report(folder / "o", folder / "page").read_text()
    said = page[page.index("What to know of these runs") :]
    assert "workload.num_agents 2, none, seed 0: 0 steps were beyond (and 15 more alike)" in said
    assert said.count("were beyond") == 1


def test_an_interrupt_keeps_what_is_finished_and_the_rest_follows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    count.stop_at = 6
    assert sweep(monkeypatch) == 130
    assert "the same command continues" in capsys.readouterr().err
    kept = sorted(path.name for path in (folder / "o" / "runs").iterdir())
    assert len(kept) == 5
    assert all(name.endswith(".json") and not name.startswith(".") for name in kept)
    assert not (folder / "o" / "runs.parquet").exists()
    assert sweep(monkeypatch) == 0
    assert count.num_runs == 6 + 11
    interrupted = table(folder).drop(columns="wall_clock_s")
    assert sweep(monkeypatch, "--out", "o2") == 0
    whole = pd.read_parquet(folder / "o2" / "runs.parquet").drop(columns="wall_clock_s")
    pd.testing.assert_frame_equal(interrupted, whole)


def test_a_run_that_fails_is_a_row_and_the_others_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "g.toml").write_text('scenario = "s.toml"\n[grid]\nengine.num_gpu_blocks = [30, 601]\n')
    assert sweep(monkeypatch) == 1
    assert "1 of 2 runs failed" in capsys.readouterr().err
    bad, good = table(folder).to_dict("records")
    assert "set it to at least" in bad["error"]
    assert pd.isna(bad["makespan_s"])
    assert good["error"] is None or pd.isna(good["error"])
    assert good["makespan_s"] > 0
    assert len(list((folder / "o" / "runs").iterdir())) == 1, "what failed is tried again"


def test_a_trace_of_other_content_is_another_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    text = SCENARIO.replace('generator = "react"\nnum_agents = 4\nmean_steps = 3', 'trace = "t.jsonl"')
    (folder / "s.toml").write_text(text)
    (folder / "g.toml").write_text('scenario = "s.toml"\npolicies = ["none", "concur"]\n')
    makespans_s = []
    for wait_s in (1.0, 1.0, 9.0):
        steps = [
            {"new_prompt_tokens": 500, "output_tokens": 20, "tool_latency_s": wait_s},
            {"new_prompt_tokens": 50, "output_tokens": 20, "tool_latency_s": None},
        ]
        (folder / "t.jsonl").write_text(json.dumps(AGENT | {"steps": steps}) + "\n")
        assert sweep(monkeypatch) == 0
        makespans_s.append(table(folder)["makespan_s"].iloc[0])
    assert count.num_runs == 4
    assert makespans_s[2] == pytest.approx(makespans_s[1] + 8.0)


def test_runs_of_another_commit_are_used_and_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(monkeypatch) == 0
    kept = next((folder / "o" / "runs").iterdir())
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"git_commit": "0123456789ab"}))
    capsys.readouterr()
    assert sweep(monkeypatch) == 0
    named = re.search(r"runs of several commits are in the table \((.*)\);", capsys.readouterr().err)
    assert named is not None
    assert "012345678" in named[1].split(", ")  # the other is this checkout's own: any, or "unknown"
    assert len(named[1].split(", ")) == 2


def test_a_file_that_is_no_finished_run_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(monkeypatch) == 0
    kept = next((folder / "o" / "runs").iterdir())
    for text in ("half a", "[]", "{}"):
        kept.write_text(text)
        assert sweep(monkeypatch) == 2
        assert "not a run of a sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (GRID + "[gird]\n", "unknown key gird"),
        (GRID.replace("[2, 3]", "[]"), "grid.workload.num_agents is empty but"),
        (GRID.replace("seeds = [0, 1]", "seeds = []"), "seeds is empty but"),
        (GRID.replace("seeds = [0, 1]", "seeds = [true]"), "seeds.0 = True but"),
        (GRID.replace("[2, 3]", "3"), "grid.workload.num_agents = 3 but"),
        (GRID.replace("[2, 3]", "[2, 2]"), "are the same run"),
        (GRID.replace("agent_cap=1,2", "agent_cap=1,1"), "are the same run"),
        (GRID.replace("[2, 3]", "[2, 0]"), "workload.num_agents = 0"),
        (GRID.replace("workload.num_agents", "workload.agents"), "workload.agents = 2"),
        (GRID.replace("concur", "magic"), "g.toml: policies: magic: kind = 'magic'"),
        (GRID.replace("workload.num_agents", "seed"), "seed is in [grid] and in seeds"),
        (GRID.replace("s.toml", "missing.toml"), "no such scenario"),
    ],
)
def test_a_grid_is_refused_at_the_door(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: Count,
    grid: str,
    said: str,
) -> None:
    (folder / "g.toml").write_text(grid)
    assert sweep(monkeypatch) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert count.num_runs == 0
    assert not (folder / "o").exists()


def test_the_table_marks_the_best_cap_and_leaves_out_points_with_failed_runs() -> None:
    makespans_s = {"none": 9.0, "agent_cap=8": 5.0, "agent_cap=16": 4.0}
    rows: list[dict[str, Any]] = [
        {"x": x, "policy": policy, "seed": seed, "makespan_s": makespan_s + seed}
        for x in (1, 2)
        for policy, makespan_s in makespans_s.items()
        for seed in (0, 1)
    ]
    rows[-1]["makespan_s"] = None
    printed = sweep_table(rows, ["x"])
    assert [list(column.cells) for column in printed.columns] == [
        ["1", "2"],
        ["9.5", "9.5"],
        ["4.5 (16)", "5.5 (8)"],
    ]


def test_the_example_has_about_a_thousand_runs() -> None:
    path = Path(__file__).parents[2] / "examples" / "sweep.toml"
    scenarios: list[Scenario] = [point.scenario for point in load_grid(path).points]
    assert 900 <= len(scenarios) <= 1100


def test_a_backend_that_is_not_there_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "concur.sim.lab.ray_workers", None)
    assert sweep(monkeypatch, "--backend", "ray") == 2
    assert not (folder / "o").exists()


def test_an_interrupted_sweep_has_no_table_of_an_earlier_grid(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep(monkeypatch) == 0
    (folder / "g.toml").write_text(GRID.replace("[2, 3]", "[4]"))
    monkeypatch.setattr(sweep_module, "simulate", Count(stop_at=2))
    sweep(monkeypatch)
    assert not (folder / "o" / "runs.parquet").exists()
    assert json.loads((folder / "o" / "sweep.json").read_text())["grid"]["grid"] == {
        "workload.num_agents": [4]
    }
