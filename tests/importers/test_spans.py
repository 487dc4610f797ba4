"""OpenTelemetry and Langfuse: calls in spans."""

import json
from pathlib import Path
from typing import Any

from tests.importers.helpers import at, imported, numbers, waits, write_lines


def otlp(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def span(name: str, begin_s: float, end_s: float, parent: str = "", **attributes: Any) -> dict[str, Any]:
    written = [
        {
            "key": f"gen_ai.{key.replace('__', '.')}",
            "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
        }
        for key, value in attributes.items()
    ]
    times = {"startTimeUnixNano": str(int(begin_s * 1e9)), "endTimeUnixNano": str(int(end_s * 1e9))}
    return {"traceId": "t", "spanId": name, "parentSpanId": parent, "attributes": written} | times


def tokens(prompt: int, output: int, **more: Any) -> dict[str, Any]:
    counts = {"usage__input_tokens": prompt, "usage__output_tokens": output}
    return {"operation__name": "chat"} | counts | more


def test_calls_of_a_conversation_with_a_sub_agent(tmp_path: Path) -> None:
    agent = {"operation__name": "invoke_agent"}
    lines = [
        otlp(
            span("c1", 1, 2, "root", **tokens(100, 10, usage__cache_read__input_tokens=50)),
            span("c2", 4, 6, "sub", **tokens(70, 7)),
            span("inside", 4, 6, "c2", **tokens(70, 7)),
        ),
        otlp(
            span("sub", 3, 7, "root", **agent),
            span("c3", 8, 9, "root", **tokens(200, 0, request__max_tokens=64)),
            span("root", 0, 9, "", conversation__id="conv", usage__input_tokens=300, **agent),
        ),
    ]
    (parent, child), notes = imported(write_lines(tmp_path / "o.jsonl", lines))
    assert (parent.agent_id, numbers(parent)) == ("conv", [(None, 100, 10), (None, 90, 1)])
    assert parent.steps[1].max_new_tokens == 64
    assert (child.agent_id, child.parent, child.parent_step) == ("sub", "conv", 0)
    assert (child.spawn_delay_s, child.joins, numbers(child)) == (1.0, True, [(None, 70, 7)])
    assert waits(parent) == [1.0, None]
    assert notes.left_out == {"a call within a call, which is the same one": 1}


def test_more_cached_than_went_in_is_beside_it(tmp_path: Path) -> None:
    line = otlp(span("c", 1, 2, **tokens(3, 10, usage__cache_read__input_tokens=900)))
    (agent,), notes = imported(write_lines(tmp_path / "o.jsonl", [line]))
    assert numbers(agent) == [(None, 903, 10)]
    assert sum(notes.guessed.values()) == 1


def observation(
    name: str, begin_s: float, end_s: float, kind: str = "GENERATION", **more: Any
) -> dict[str, Any]:
    times = {"startTime": at(begin_s), "endTime": at(end_s)}
    return {"id": name, "traceId": "t", "type": kind, "parentObservationId": None} | times | more


def test_observations_of_langfuse(tmp_path: Path) -> None:
    beside = {"input": 30, "input_cached_tokens": 70, "output": 8, "output_reasoning_tokens": 2, "total": 110}
    within = {"input": 200, "input_cached_tokens": 100, "output": 20, "total": 220}
    old: dict[str, Any] = {"usage": {"input": 240, "output": 5, "unit": "TOKENS"}}
    rows = [
        observation("root", 0, 20, "AGENT", sessionId="s"),
        observation("a", 1, 2, usageDetails=beside, parentObservationId="root"),
        observation("sub", 3, 5, "AGENT", parentObservationId="root"),
        observation("c", 3, 5, usageDetails={"input": 9, "output": 1}, parentObservationId="sub"),
        observation("b", 6, 8, usageDetails=within, parentObservationId="root"),
        observation("d", 9, 10, parentObservationId="root", **old),
        observation("e", 11, 12, parentObservationId="root"),
    ]
    (tmp_path / "l.json").write_text(json.dumps(rows))
    (parent, child), notes = imported(tmp_path / "l.json")
    assert (parent.agent_id, child.agent_id, child.parent_step) == ("s", "sub", 0)
    assert numbers(parent) == [(None, 100, 10), (None, 90, 20), (None, 20, 5)]
    assert notes.left_out == {"a call without counts of its tokens": 1}


def test_usage_of_langfuse_without_a_total_and_by_older_names(tmp_path: Path) -> None:
    rows = [
        observation(
            "a", 1, 2, usageDetails={"input_tokens": 3, "cache_read_input_tokens": 90, "output_tokens": 5}
        ),
        observation("b", 3, 4, promptTokens=120, completionTokens=7),
        observation("c", 5, 6, usage={"promptTokens": 150, "completionTokens": 7}),
    ]
    (agent,), notes = imported(write_lines(tmp_path / "l.jsonl", rows))
    assert numbers(agent) == [(None, 93, 5), (None, 22, 7), (None, 23, 7)]
    assert notes.guessed == {"tokens that were cached are beside the others": 1}


def test_a_trace_of_langfuse_with_observations_in_it(tmp_path: Path) -> None:
    inside = observation("a", 1, 2, usageDetails={"input": 100, "output": 10})
    del inside["traceId"]
    trace = {"id": "t1", "sessionId": "s", "observations": [inside | {"traceId": "t1"}]}
    (tmp_path / "trace.json").write_text(json.dumps(trace, indent=2))
    (agent,), _ = imported(tmp_path / "trace.json")
    assert (agent.agent_id, numbers(agent)) == ("s", [(None, 100, 10)])
