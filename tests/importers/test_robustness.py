"""Whatever stands in a recording: a trace that keeps to the format, or one clear error."""

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concur.sim.cli.trace_import import write_trace
from concur.sim.errors import TraceError
from concur.sim.importers.catalog import IMPORTERS, recognising
from concur.sim.importers.files import read_head
from concur.sim.importers.importer import Notes
from concur.sim.traces.format import TraceAgent
from tests.importers.helpers import (
    at,
    claude_asks,
    claude_result,
    claude_says,
    codex_count,
    codex_item,
    codex_meta,
    imported,
    usage,
)
from tests.importers.test_atif import refers, step
from tests.importers.test_dynamo import ended
from tests.importers.test_kv_cache_tester import request
from tests.importers.test_litellm import logged
from tests.importers.test_mooncake import row, turn
from tests.importers.test_spans import observation, otlp, span, tokens

CHILD: dict[str, Any] = {"agentId": "x", "isSidechain": True}
SAMPLES: dict[str, list[dict[str, Any]]] = {
    "claude-code": [
        claude_asks(0),
        claude_says(2, "m1", usage(100, 50), "t1"),
        claude_asks(3, **CHILD),
        claude_says(6, "c1", usage(70, 7), **CHILD),
        claude_result(6.5, "t1"),
        claude_says(9, "m2", usage(20, 3)),
    ],
    "codex": [
        codex_meta("b", 1, forked_from_id="a", timestamp=at(1)),
        codex_count(5, (100, 0, 10)),
        codex_item(8, "user_message"),
        codex_count(9, (150, 90, 5), (250, 90, 15)),
    ],
    "atif": [
        {
            "schema_version": "ATIF-v1.7",
            "session_id": "t",
            "steps": [step(1, 500, 10, observation=refers(trajectory_id="in")), step(2, 100, 10, 50)],
            "subagent_trajectories": [{"trajectory_id": "in", "steps": [step(1, 70, 7)]}],
        }
    ],
    "dynamo": [
        ended("p", 0, 1, (256, 20), 1, 2, 3, 4),
        ended("p", 2, 3, (400, 10), 1, 2, 8, 9),
        ended("c", 2, 3, (100, 10), 1, parent_session_id="p"),
    ],
    "mooncake": [
        row(1024, 50, 0, 1, session_id="s", timestamp=0),
        row(900, 20, 0, 3, session_id="s", delay=5),
        row(100, 20, 9, timestamp=4),
        turn(1, -1, 1.0, 32, 1, 2),
        turn(2, 1, 61.0, 64, 1, 2, 3, 4),
        turn(3, 1, 70.0, 48, 1, 2, 8),
    ],
    "kv-cache-tester": [
        {
            "id": "t1",
            "block_size": 64,
            "tool_tokens": 40,
            "requests": [
                request(0, 128, 10, 1, 2),
                {"type": "subagent", "agent_id": "x", "t": 3.0, "requests": [request(0, 64, 5, 1)]},
                request(8.5, 100, 10, 1, 5),
            ],
        }
    ],
    "otel": [
        otlp(
            span("c1", 1, 2, "root", **tokens(100, 10)),
            span("sub", 3, 7, "root", operation__name="invoke_agent"),
            span("c2", 4, 6, "sub", **tokens(70, 7)),
            span("root", 0, 9, "", operation__name="invoke_agent"),
        )
    ],
    "langfuse": [
        observation("root", 0, 20, "AGENT", sessionId="s"),
        observation("a", 1, 2, usageDetails={"input": 30, "output": 8}, parentObservationId="root"),
        observation("sub", 3, 5, "AGENT", parentObservationId="root"),
        observation("c", 3, 5, usageDetails={"input": 9, "output": 1}, parentObservationId="sub"),
    ],
    "litellm": [logged(0, 31, 467, (1253, 0)), logged(1, 2000, 10, (0, 1253))],
}
GARBAGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from(
        [10**12, 1e300, -1.5, "", "x", "12", "2026-05-24T10:00:00Z", "9" * 400, [], {}, [[1]], [{}]]
    ),
)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    inner = [place for key in keys for place in places(value[key], (*above, key))]
    return [(*above, key) for key in keys] + inner


def put(value: Any, place: tuple[Any, ...], new: Any) -> None:
    """Put something at a place, if that is still there."""
    with suppress(TypeError, KeyError, IndexError):
        for key in place[:-1]:
            value = value[key]
        value[place[-1]] = deepcopy(new)  # what is drawn twice may be one object


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_garbage_makes_a_note_or_an_error_but_no_crash(name: str, data: st.DataObject) -> None:
    sample = json.loads(json.dumps(SAMPLES[name]))
    for place in data.draw(st.lists(st.sampled_from(places(sample)), min_size=1, max_size=6)):
        put(sample, place, data.draw(GARBAGE))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in sample))
        recognising(read_head(path))
        agents, _ = imported(path, name=name)
        with suppress(_Clear):
            _written(agents, Path(folder) / "t.jsonl")


class _Clear(Exception):  # noqa: N818
    """An error that says what is wrong with the recording."""


def _written(agents: list[TraceAgent], out: Path) -> None:
    try:
        write_trace(agents, out, Notes())
    except TraceError as error:
        if any(part in str(error) for part in ("no agent with a call", "comes twice", "arrival_s")):
            raise _Clear from error
        raise


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_is_told_by_itself(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in SAMPLES[name]))
    agents, _ = imported(path)
    assert agents
    assert name in IMPORTERS


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("cut", [lambda text: text[: len(text) - 9], lambda text: text + '{"half": '])
def test_a_last_line_that_breaks_off_is_noted(tmp_path: Path, name: str, cut: Callable[[str], str]) -> None:
    path = tmp_path / "r.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in SAMPLES[name])
    path.write_text(cut(text + text.replace('"r', '"q') if len(SAMPLES[name]) == 1 else cut(text)))
    _, notes = imported(path, name=name)
    assert notes.left_out["a last line that breaks off"] == 1
