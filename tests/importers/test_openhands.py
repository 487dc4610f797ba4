from pathlib import Path
from typing import Any

import pytest

from concur.sim.importers.files import read_head
from concur.sim.importers.importer import Notes
from concur.sim.importers.openhands import OPENHANDS
from tests.importers.helpers import at, numbers, waits, write_lines
from tests.importers.server_log import RECORDINGS, assert_agrees, scripted_rows


def used(name: str, prompt: int, output: int, read: int = 0) -> dict[str, Any]:
    return {
        "response_id": name,
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "cache_read_tokens": read,
    }


def took(name: str, latency_s: float) -> dict[str, Any]:
    return {"response_id": name, "latency": latency_s}


def action(at_s: float, name: str | None, **more: Any) -> dict[str, Any]:
    """An event of version 1."""
    event = {"kind": "ActionEvent", "source": "agent", "timestamp": at(at_s), "llm_response_id": name}
    return event | more


def result(at_s: float) -> dict[str, Any]:
    return {"kind": "ObservationEvent", "source": "environment", "timestamp": at(at_s)}


def asked(at_s: float) -> dict[str, Any]:
    return {"kind": "MessageEvent", "source": "user", "timestamp": at(at_s)}


def old_action(at_s: float, name: str, **more: Any) -> dict[str, Any]:
    """An event of version 0; so is the result of its tool, but for `observation`."""
    response = {"id": name} | more.pop("response", {})
    event = {"source": "agent", "timestamp": at(at_s), "tool_call_metadata": {"model_response": response}}
    return event | more


def row(history: list[Any], usages: list[Any], *, latencies: Any = (), costs: Any = (), **more: Any) -> Any:
    metrics = {"token_usages": usages, "response_latencies": list(latencies), "costs": list(costs)}
    return {"instance_id": "task", "history": history, "metrics": metrics} | more


def read(path: Path, *rows: Any) -> tuple[list[Any], Notes]:
    notes = Notes()
    return list(OPENHANDS.read(write_lines(path / "output.jsonl", rows), notes)), notes


def test_calls_and_waits_are_those_that_the_server_saw() -> None:
    notes = Notes()
    path = RECORDINGS / "openhands" / "output.jsonl"
    assert OPENHANDS.recognises(read_head(path))
    agents = list(OPENHANDS.read(path, notes))
    assert_agrees(agents, {"task": scripted_rows("openhands")})
    assert [*notes.lines()] == []


def test_a_call_begins_its_latency_before_its_first_event(tmp_path: Path) -> None:
    history = [asked(0), action(2, "a"), action(2, "a"), result(5), action(8, "b")]
    usages = [used("a", 100, 10), used("b", 130, 7, 100)]
    (agent,), _ = read(tmp_path, row(history, usages, latencies=[took("a", 1.5), took("b", 2)]))
    assert numbers(agent) == [(None, 100, 10), (None, 20, 7)]
    assert waits(agent) == [4.0, None]


def test_without_latencies_a_call_begins_with_the_result_before_it(tmp_path: Path) -> None:
    history = [asked(0), old_action(2, "a"), old_action(5, "a", observation="run"), old_action(8, "b")]
    (agent,), _ = read(tmp_path, row(history, [used("a", 100, 10), used("b", 130, 7)]))
    assert waits(agent) == [3.0, None]


def test_a_pause_of_a_person_is_no_wait_for_tools(tmp_path: Path) -> None:
    history = [asked(0), action(2, "a"), asked(62), action(64, "b")]
    (agent,), _ = read(tmp_path, row(history, [used("a", 100, 10), used("b", 130, 7)]))
    assert waits(agent) == [0.0, None]
    assert [step.user_wait_s for step in agent.steps] == [60.0, None]


def test_costs_tell_the_times_where_no_event_names_a_call(tmp_path: Path) -> None:
    costs = [{"timestamp": 100.0}, {"timestamp": 107.0}]
    usages = [used("a", 100, 10), used("b", 130, 7)]
    (agent,), _ = read(tmp_path, row([], usages, latencies=[took("b", 3)], costs=costs))
    assert waits(agent) == [4.0, None]


def test_older_lines_have_the_usage_in_their_events(tmp_path: Path) -> None:
    counts = {"prompt_tokens": 100, "completion_tokens": 10}
    history = [old_action(2, "a", response={"usage": counts}), old_action(3, "a", response={"usage": counts})]
    (agent,), _ = read(tmp_path, row(history, []))
    assert numbers(agent) == [(None, 100, 10)]


def test_a_prompt_that_was_condensed_keeps_what_the_cache_had(tmp_path: Path) -> None:
    (agent,), _ = read(tmp_path, row([], [used("a", 1000, 10), used("b", 400, 7, 128)]))
    assert numbers(agent) == [(None, 1000, 10), (128, 272, 7)]


def test_calls_of_a_delegate_are_noted(tmp_path: Path) -> None:
    _, notes = read(tmp_path, row([{"action": "delegate"}], [used("a", 100, 10)]))
    assert "calls of a delegate are those of its agent" in notes.guessed


@pytest.mark.parametrize(
    "line", [{}, 3, {"instance_id": "a", "history": 4, "metrics": None}, row([3, None], [{}])]
)
def test_what_is_no_run_is_noted(tmp_path: Path, line: Any) -> None:
    agents, notes = read(tmp_path, line)
    assert agents == []
    assert notes.left_out
