from pathlib import Path
from typing import Any

from concur.sim.traces.format import Prefix
from tests.importers.helpers import imported, numbers, waits, write_lines


def ended(
    session: str | None, began_ms: int, ended_ms: int, tokens: tuple[int, int], *blocks: int, **context: str
) -> dict[str, Any]:
    request = {
        "request_id": f"r{began_ms}",
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "cached_tokens": 0,
        "request_received_ms": began_ms,
        "replay": {"trace_block_size": 64, "input_sequence_hashes": list(blocks)},
    }
    event = {
        "schema": "dynamo.request.trace.v1",
        "event_type": "request_end",
        "event_time_unix_ms": ended_ms,
        "request": request,
    }
    if session is not None:
        event["agent_context"] = {"session_id": session, **context}
    return {"timestamp": began_ms, "event": event}


def test_waits_are_between_the_end_of_a_request_and_the_next(tmp_path: Path) -> None:
    lines = [
        ended("p", 4000, 5000, (300, 10), 1, 2, 3, 4),
        ended("p", 1000, 2000, (128, 20), 1, 2),
        {"event": {"schema": "dynamo.request.trace.v1", "event_type": "tool_end", "tool": {}}},
    ]
    (agent,), notes = imported(write_lines(tmp_path / "d.jsonl", lines))
    assert numbers(agent) == [(None, 128, 20), (None, 152, 10)]
    assert waits(agent) == [2.0, None]
    assert list(notes.lines()) == []


def test_hashes_tell_what_a_prompt_has_in_common(tmp_path: Path) -> None:
    lines = [ended("p", 0, 1, (256, 20), 1, 2, 3, 4), ended("p", 2, 3, (400, 10), 1, 2, 8, 9)]
    (agent,), _ = imported(write_lines(tmp_path / "d.jsonl", lines))
    assert numbers(agent) == [(None, 256, 20), (128, 272, 10)]


def test_sessions_share_what_their_first_prompts_begin_with(tmp_path: Path) -> None:
    lines = [
        ended("a", 0, 1, (200, 9), 1, 2, 3),
        ended("b", 0, 1, (150, 9), 1, 2),
        ended("c", 0, 1, (70, 9), 7),
    ]
    agents, _ = imported(write_lines(tmp_path / "d.jsonl", lines))
    assert [agent.prefixes for agent in agents] == [(Prefix("blocks-1", 128),)] * 2 + [()]


def test_children_and_shards(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "d.0.jsonl", [ended("p", 0, 1000, (128, 20))])
    rest = [
        ended("c", 1500, 3000, (64, 5), parent_session_id="p"),
        ended("p", 3100, 4000, (200, 20)),
        ended(None, 5000, 6000, (10, 1)),
    ]
    (parent, child, lone), notes = imported(first, write_lines(tmp_path / "d.1.jsonl", rest))
    assert len(parent.steps) == 2
    assert (child.parent, child.parent_step, child.spawn_delay_s, child.joins) == ("p", 0, 0.5, True)
    assert waits(parent) == [0.1, None]
    assert lone.agent_id == "r5000"
    assert "a request without a session is an agent of its own" in notes.guessed


def test_the_older_schema_has_trajectories(tmp_path: Path) -> None:
    line = ended("run", 0, 1, (64, 5), trajectory_id="run:a", parent_trajectory_id="run:b")
    line["event"]["schema"] = "dynamo.agent.trace.v1"
    (agent,), _ = imported(write_lines(tmp_path / "d.jsonl", [line["event"]]))
    assert (agent.agent_id, agent.parent) == ("run:a", "run:b")
