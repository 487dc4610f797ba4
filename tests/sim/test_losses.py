"""Nothing of a recording is left out, cut or filled in without a line in the record and on the terminal."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from concur.sim.errors import ScenarioError
from concur.sim.record.record import load_record
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import load_scenario
from concur.sim.show.figures import timeline_figure
from concur.sim.world.simulate import simulate
from tests.helpers import concur, make_scenario


def step(**fields: Any) -> dict[str, Any]:
    return {"new_prompt_tokens": 100, "output_tokens": 50} | fields


RECORDING = [
    {
        "agent_id": "ci",
        "steps": [
            step(new_prompt_tokens=1000, tool_latency_s=600.0),
            step(tool_latency_s=900.0, user_wait_s=300.0),
            step(tool_latency_s=700.0, user_wait_s=10.0),  # the last: nobody waits after it
        ],
    },
    {"agent_id": "cont", "fresh_start": False, "steps": [step(new_prompt_tokens=90_000)]},
    {"agent_id": "child", "parent": "ci", "steps": [step(), step()]},
    {"agent_id": "huge", "steps": [step(new_prompt_tokens=9000)]},
]
LINES = [
    "1 agent left out: it began before the recording (fresh_start = false); "
    "workload.fresh_only = false keeps it",
    "1 agent left out: it outgrows workload.max_context_tokens = 8192; a higher one keeps it",
    "`parent` of 1 agent is ignored, without a parent_step: it runs as an agent of its own",
    "2 tool waits were cut at workload.max_tool_latency_s = 60 s (1,380 s in all); raise it to keep them",
    "1 tool wait was not recorded: workload.default_tool_latency_s = 1 s stands for each",
    "`user_wait_s` of 1 step (300 s in all) left out: a batch has no people in it; "
    "workload.user_waits = 'kept' keeps them",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in RECORDING))
    (tmp_path / "s.toml").write_text(
        '[workload]\ntrace = "t.jsonl"\nmax_context_tokens = 8192\n[engine]\nnum_gpu_blocks = 2001\n'
    )
    return tmp_path


def test_every_loss_of_a_trace_is_a_line_in_the_record_and_every_agent_left_out_counts(folder: Path) -> None:
    record = simulate(load_scenario(folder / "s.toml"))
    assert record.run["warnings"][: len(LINES)] == LINES
    assert (record.metrics["num_agents"], record.metrics["num_agents_skipped"]) == (2, 2)


def test_what_is_kept_is_not_said(folder: Path) -> None:
    keep = ["max_tool_latency_s=1000", "fresh_only=false", "max_context_tokens=131072"]
    scenario = load_scenario(
        folder / "s.toml", [f"workload.{each}" for each in keep] + ["engine.num_gpu_blocks=9001"]
    )
    workload = build_workload(scenario)
    assert workload.warnings == (LINES[2], LINES[4], LINES[5])
    assert workload.num_agents_skipped == 0
    assert simulate(scenario, workload).metrics["makespan_s"] > 1500


def test_agents_beyond_the_number_asked_for_are_no_loss(folder: Path) -> None:
    workload = build_workload(load_scenario(folder / "s.toml", ["workload.num_agents=1"]))
    assert workload.warnings == (LINES[3], LINES[5])
    assert workload.num_agents_skipped == 0


def test_a_default_wait_that_is_cut_says_so(folder: Path) -> None:
    workload = build_workload(load_scenario(folder / "s.toml", ["workload.max_tool_latency_s=0.5"]))
    said = "default_tool_latency_s = 1 s, cut at workload.max_tool_latency_s = 0.5 s, stands for each"
    assert any(said in line for line in workload.warnings)


def test_waits_and_agents_of_a_generator_are_counted_too() -> None:
    scenario = make_scenario(workload={"max_tool_latency_s": 0.5, "max_context_tokens": 5000})
    workload = build_workload(scenario)
    skipped, cut = workload.warnings
    assert skipped.startswith(f"{workload.num_agents_skipped} agents left out: they outgrow")
    assert "tool waits were cut at workload.max_tool_latency_s = 0.5 s" in cut


def test_the_commands_say_it_in_one_line_on_stderr_and_under_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["simulate", "s.toml", "--out", "r"],
        ["compare", "s.toml", "--controllers", "none", "agent_cap=1"],
    ):
        assert concur(monkeypatch, *arguments) == 0
        printed = capsys.readouterr()
        assert printed.err.strip() == "concur: warning: " + "; ".join(LINES)
        under_the_table = " ".join(printed.out.replace("\n", " ").split())
        assert all(under_the_table.count(line) == 1 for line in LINES)
        assert "2 agents (2 more left out)" in under_the_table
    assert load_record(folder / "r").run["warnings"][: len(LINES)] == LINES


@pytest.mark.parametrize("verb", ["describe", "check"])
def test_a_trace_tells_what_a_run_by_default_loses(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert concur(monkeypatch, "trace", verb, "t.jsonl") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(f"by default: {line}" in printed for line in (LINES[0], *LINES[2:]))
    assert "max_context_tokens" not in printed, "which is not set by default"


def test_a_trace_of_which_nobody_is_left_says_why(folder: Path) -> None:
    (folder / "t.jsonl").write_text("".join(f"{json.dumps(RECORDING[number])}\n" for number in (1, 3)))
    with pytest.raises(
        ScenarioError, match=r"no agent is eligible: 1 agent left out: it began .*; 1 agent left out: it outg"
    ):
        build_workload(load_scenario(folder / "s.toml"))


def test_the_line_below_a_figure_is_not_flooded(folder: Path) -> None:
    record = simulate(load_scenario(folder / "s.toml"))
    many = replace(
        record, run=record.run | {"warnings": [f"{line} ({n})" for n in range(9) for line in LINES]}
    )
    (label,) = (text for text in timeline_figure(many).findobj(Text) if "seed 0" in text.get_text())
    lines = label.get_text().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 200
    assert lines[-1].endswith("(all: run.json)")
