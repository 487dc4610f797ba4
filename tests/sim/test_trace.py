"""Traces: what is read, and that every breach names file, line, field and remedy."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from concur.sim.errors import TraceError
from concur.sim.traces.trace import read_trace
from concur.sim.workload.describe import describe_trace
from concur.sim.workload.from_trace import TraceSelection, select_agents

GOOD_STEP: dict[str, Any] = {"new_prompt_tokens": 10, "output_tokens": 5, "tool_latency_s": 2.5}
GOOD: dict[str, Any] = {
    "agent_id": "a",
    "source": "test",
    "prefix_group": "g",
    "shared_prefix_tokens": 100,
    "steps": [GOOD_STEP, {"new_prompt_tokens": 7, "output_tokens": 3, "tool_latency_s": None}],
}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def agent(agent_id: str = "a", **changes: Any) -> dict[str, Any]:
    return GOOD | {"agent_id": agent_id} | changes


def steps(*changes: dict[str, Any]) -> dict[str, Any]:
    return agent(steps=[GOOD_STEP | change for change in changes])


def test_append_only_and_kept_histories(tmp_path: Path) -> None:
    line = steps({}, {}, {"kept_tokens": 40}, {})
    (spec,), _ = select_agents(read_trace(write(tmp_path / "t.jsonl", line)), TraceSelection())
    assert [step.prompt_tokens for step in spec.steps] == [110, 125, 50, 65]
    assert [step.kept_tokens for step in spec.steps] == [100, 115, 40, 55]


def test_gzip_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(f"\n{json.dumps(GOOD)}\n\n".encode()))
    assert [agent.agent_id for agent in read_trace(path)] == ["a"]


def test_selection_takes_the_first_eligible_agents_and_counts_those_left_out(tmp_path: Path) -> None:
    lines = [
        agent("stale", fresh_start=False),
        agent("long", shared_prefix_tokens=5000),
        agent("one"),
        agent("two"),
        agent("three"),
    ]
    trace = read_trace(write(tmp_path / "t.jsonl", *lines))
    chosen, losses = select_agents(trace, TraceSelection(num_agents=2, max_context_tokens=1000))
    assert [spec.agent_id for spec in chosen] == ["one", "two"]
    assert [spec.index for spec in chosen] == [0, 1]
    assert (losses.num_not_fresh, losses.num_too_long, losses.num_agents_skipped) == (1, 1, 2)


def test_waits_are_filled_in_and_capped(tmp_path: Path) -> None:
    line = steps({"tool_latency_s": 500.0}, {"tool_latency_s": None, "user_wait_s": 75.0})
    selection = TraceSelection(max_tool_latency_s=60.0, default_tool_latency_s=1.5)
    (spec,), _ = select_agents(read_trace(write(tmp_path / "t.jsonl", line)), selection)
    assert [step.tool_latency_s for step in spec.steps] == [60.0, 1.5]


@pytest.mark.parametrize(
    ("line", "field", "said"),
    [
        ("{not json", "(whole line)", "not JSON"),
        ("[1, 2]", "(whole line)", "is not an object"),
        ({k: v for k, v in GOOD.items() if k != "agent_id"}, "agent_id", "missing"),
        (agent(agent_id=""), "agent_id", "at least 1 character"),
        ({k: v for k, v in GOOD.items() if k != "steps"}, "steps", "missing"),
        (agent(steps=[]), "steps", "at least one step"),
        (agent(steps=[3]), "step 0, (whole step)", "not an object"),
        (agent(shared_prefix_tokens=-1), "shared_prefix_tokens", "-1"),
        (agent(shared_prefix_tokens=1.5), "shared_prefix_tokens", "1.5"),
        (agent(prefix_group=None), "prefix_group", "name the group"),
        (agent(fresh_start="yes"), "fresh_start", "'yes'"),
        (agent(speed=3), "speed", "unknown field"),
        (steps({"new_prompt_tokens": -4}), "step 0, new_prompt_tokens", "-4"),
        (steps({"output_tokens": 0}), "step 0, output_tokens", "greater than or equal to 1"),
        (steps({"output_tokens": True}), "step 0, output_tokens", "True"),
        (steps({}, {"tool_latency_s": -1}), "step 1, tool_latency_s", "greater than or equal to 0"),
        (steps({}, {"tool_latency_s": "2"}), "step 1, tool_latency_s", "'2'"),
        (steps({}, {"kept_tokens": 116}), "step 1, kept_tokens", "116 but the history so far is 115"),
        (steps({"kept_tokens": 5}), "step 0, kept_tokens", "no history"),
        (steps({}, {"kept_tokens": 0, "new_prompt_tokens": 0}), "step 1, new_prompt_tokens", "empty"),
        (steps({"mood": "good"}), "step 0, mood", "unknown field"),
        (steps({"output_tokens": 10**300}), "step 0, output_tokens", "less than or equal to 1000000000"),
        (steps({"tool_latency_s": 10**400}), "step 0, tool_latency_s", "must be a finite number"),
        ("[" * 100_000, "(whole line)", "not JSON"),
        ('{"agent_id": ' + "1" * 5001 + "}", "(whole line)", "not JSON"),
    ],
)
def test_a_breach_names_file_line_field_and_remedy(tmp_path: Path, line: Any, field: str, said: str) -> None:
    path = write(tmp_path / "t.jsonl", agent("first"), line)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2, {field}: ")
    assert said in message
    assert "; " in message


def test_two_agents_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="line 3, agent_id: 'a' is also on line 1"):
        read_trace(write(tmp_path / "t.jsonl", agent("a"), agent("b"), agent("a")))


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such trace"):
        read_trace(tmp_path / "missing.jsonl")
    with pytest.raises(TraceError, match="no agent in the file"):
        read_trace(write(tmp_path / "empty.jsonl"))
    (tmp_path / "t.jsonl.gz").write_text("not gzip")
    with pytest.raises(TraceError, match="unreadable"):
        read_trace(tmp_path / "t.jsonl.gz")
    whole = gzip.compress(json.dumps(GOOD).encode() * 100)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match="unreadable"):
        read_trace(tmp_path / "cut.jsonl.gz")


def test_description_counts_what_is_there(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "t.jsonl", agent("a"), agent("b", fresh_start=False)))
    summary = describe_trace(trace)
    assert (summary.num_agents, summary.num_fresh_agents, summary.num_calls) == (2, 1, 4)
    assert summary.num_waits_not_recorded == 2
    # prompts 110 and 122 twice; kept: 115 twice, and the second agent's shared prefix
    assert summary.ideal_hit_rate == pytest.approx((115 + 100 + 115) / (2 * (110 + 122)))
    peak = next(row for row in summary.distributions if row.name.startswith("peak"))
    assert peak.quantiles[-1] == 125


def test_of_a_longer_prefix_only_what_others_have_sent_can_be_found(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "t.jsonl", agent("a", shared_prefix_tokens=40), agent("b")))
    summary = describe_trace(trace)
    # the second agent's prefix is 100 tokens long, of which the first sent 40
    assert summary.ideal_hit_rate == pytest.approx((55 + 40 + 115) / (50 + 62 + 110 + 122))
