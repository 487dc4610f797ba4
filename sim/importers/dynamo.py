"""Request traces of Dynamo, `DYN_REQUEST_TRACE=1`: a line a request or tool, in one file or several.

A request is written when it ends, with when it came in. Sessions name their parents. Hashes of the blocks of
its prompt tell what it has in common with the request before it, and sessions with each other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted
from concur.sim.importers.files import json_objects
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.prefixes import Blocks, Levels, as_prefixes, blocks_of, common_tokens, shared_levels
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.values import count_of, object_of, scaled, text_of
from concur.sim.traces.format import TraceAgent

_NAME: Final = "dynamo"
_SCHEMAS: Final = ("dynamo.request.trace.", "dynamo.agent.trace.")


@dataclass(slots=True)
class _Session:
    """A session while its requests come in, each with the blocks of its prompt and their size."""

    parent: str | None = None
    requests: list[tuple[Call, Blocks, int]] = field(default_factory=list)


def _event(value: Any) -> Mapping[str, Any]:
    """Return the event of a line, with or without the envelope around it."""
    line = object_of(value)
    return object_of(line.get("event")) or line


def _told_by(head: Head) -> bool:
    return any(str(_event(value).get("schema", "")).startswith(_SCHEMAS) for value in head.values)


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    sessions: dict[str, _Session] = {}
    for path in paths:
        for where, line in json_objects(path, notes):
            _take(_event(line), where, sessions, notes)
    for session in sessions.values():
        session.requests.sort(key=_when)
    levels = shared_levels([session.requests[0][1] for session in sessions.values()])
    found = zip(sessions.items(), levels, strict=True)
    yield from agents_of([_recorded(name, session, own) for (name, session), own in found], notes)


def _when(request: tuple[Call, Blocks, int]) -> float:
    call = request[0]
    return call.began_s if call.began_s is not None else call.ended_s or 0.0


def _take(event: Mapping[str, Any], where: str, sessions: dict[str, _Session], notes: Notes) -> None:
    if not str(event.get("schema", "")).startswith(_SCHEMAS):
        notes.leave_out("a line that no Dynamo trace has", where)
        return
    if event.get("event_type") != "request_end":
        return  # tools: their time is that between the requests around them
    request = object_of(event.get("request"))
    replay = object_of(request.get("replay"))
    prompt = request.get("input_tokens")
    tokens = counted(
        replay.get("input_length") if prompt is None else prompt, request.get("output_tokens"), where, notes
    )
    if tokens is None:
        return
    began_s = scaled(request.get("request_received_ms"), 1e-3)
    call = Call(
        *tokens,
        where,
        cached_tokens=count_of(request.get("cached_tokens")),
        began_s=began_s,
        ended_s=_ended_s(event, request, began_s),
    )
    context = object_of(event.get("agent_context"))
    name = text_of(context.get("trajectory_id")) or text_of(context.get("session_id"))
    if name is None:
        notes.guess("a request without a session is an agent of its own", where)
        name = text_of(request.get("request_id")) or where
    session = sessions.setdefault(name, _Session())
    parent = text_of(context.get("parent_trajectory_id")) or text_of(context.get("parent_session_id"))
    session.parent = session.parent or parent
    blocks = blocks_of(replay.get("input_sequence_hashes"))
    session.requests.append((call, blocks, count_of(replay.get("trace_block_size")) or 0))


def _ended_s(event: Mapping[str, Any], request: Mapping[str, Any], began_s: float | None) -> float | None:
    total_s = scaled(request.get("total_time_ms"), 1e-3)
    if total_s is not None and began_s is not None:
        return began_s + total_s
    return scaled(event.get("event_time_unix_ms"), 1e-3)


def _recorded(name: str, session: _Session, levels: Levels) -> Recorded:
    first, _, size = session.requests[0]
    calls = [first]
    for (before, had, _), (call, has, block_tokens) in zip(
        session.requests, session.requests[1:], strict=False
    ):
        calls.append(replace(call, common_tokens=common_tokens(before, had, call, has, block_tokens)))
    return Recorded(
        agent_id=name,
        source=_NAME,
        calls=calls,
        parent=session.parent,
        prefixes=as_prefixes(levels, size, first.prompt_tokens),
    )


DYNAMO: Final = CountsImporter(
    name=_NAME,
    title="Dynamo request trace (dynamo.request.trace.v1)",
    told_by=_told_by,
    agents=_agents,
)
