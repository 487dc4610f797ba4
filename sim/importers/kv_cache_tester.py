"""Traces of kv-cache-tester: a JSON object a session, its requests with hashes of blocks, sub-agents nested.

`t` is when a request began, `api_time` how long it took, both in seconds. The times within a sub-agent count
from its own begin, or, in republished traces, from the session's. Hashes hold within a session only; across
sessions, equally many tokens of tools and of system prompt are taken as the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted
from concur.sim.importers.files import json_objects
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.prefixes import NO_BLOCKS, blocks_of, common_tokens
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.values import count_of, duration_of, list_of, number_of, object_of, text_of
from concur.sim.traces.format import Prefix, TraceAgent

_NAME: Final = "kv-cache-tester"


def _told_by(head: Head) -> bool:
    found = head.first("requests", "block_size")
    requests = [] if found is None else list_of(found["requests"])
    return any(object_of(request).keys() >= {"t", "type"} for request in requests)


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    for path in paths:
        for where, session in json_objects(path, notes):
            name = text_of(session.get("id")) or where
            found: list[Recorded] = []
            _gather(session, name, where, 0.0, count_of(session.get("block_size")) or 0, found, notes)
            yield from agents_of(found, notes)


def _gather(
    session: Mapping[str, Any],
    name: str,
    where: str,
    begins_s: float,
    block_tokens: int,
    found: list[Recorded],
    notes: Notes,
    *,
    parent: str | None = None,
) -> None:
    """Add a session, and after it its sub-agents."""
    calls: list[Call] = []
    had = NO_BLOCKS
    children: list[Mapping[str, Any]] = []
    for number, request in enumerate(map(object_of, list_of(session.get("requests")))):
        if request.get("type") == "subagent":
            children.append(request)
            continue
        call = _call(request, f"{where}, request {number}", begins_s, notes)
        if call is None:
            continue
        has = blocks_of(request.get("hash_ids"))
        if calls:
            call = replace(call, common_tokens=common_tokens(calls[-1], had, call, has, block_tokens))
        calls.append(call)
        had = has
    prefixes = _prefixes(session, calls[0], notes) if calls else ()
    found.append(Recorded(agent_id=name, source=_NAME, calls=calls, parent=parent, prefixes=prefixes))
    for number, child in enumerate(children):
        own = f"{name}/{text_of(child.get('agent_id')) or number}"
        child_s = _begin_s(child, begins_s)
        _gather(child, own, where, child_s, block_tokens, found, notes, parent=name)


def _begin_s(child: Mapping[str, Any], begins_s: float) -> float:
    """Return the time that a sub-agent's times count from."""
    marker_s = number_of(child.get("t")) or 0.0
    times = [number_of(object_of(request).get("t")) for request in list_of(child.get("requests"))]
    first_s = min((time_s for time_s in times if time_s is not None), default=0.0)
    return begins_s + marker_s if first_s < marker_s else begins_s


def _call(request: Mapping[str, Any], where: str, begins_s: float, notes: Notes) -> Call | None:
    tokens = counted(request.get("in"), request.get("out"), where, notes)
    if tokens is None:
        return None
    time_s, took_s = number_of(request.get("t")), duration_of(request.get("api_time"))
    began_s = None if time_s is None else begins_s + time_s
    ended_s = None if began_s is None or took_s is None else began_s + took_s
    return Call(*tokens, where, began_s=began_s, ended_s=ended_s)


def _prefixes(session: Mapping[str, Any], first: Call, notes: Notes) -> tuple[Prefix, ...]:
    tools = count_of(session.get("tool_tokens")) or 0
    system = count_of(session.get("system_tokens")) or 0
    if not tools + system or tools + system > first.prompt_tokens:
        return ()
    notes.guess("equally long tools and system prompts are the same ones", first.where)
    levels = ((f"tools-{tools}", tools), (f"tools-{tools}-system-{system}", system))
    return tuple(Prefix(group, tokens) for group, tokens in levels if tokens)


KV_CACHE_TESTER: Final = CountsImporter(
    name=_NAME,
    title="kv-cache-tester session (JSON with block_size and requests)",
    told_by=_told_by,
    agents=_agents,
)
