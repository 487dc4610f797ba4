"""Spend logs of LiteLLM, and the payloads of its standard logging: an object a request, in JSON or JSONL.

Whether `prompt_tokens` include the cached ones depends on version and provider. They do not where more were
cached than are in the prompt: then no request of that model includes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted
from concur.sim.importers.files import json_objects
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.values import count_of, object_of, parsed, text_of, time_of
from concur.sim.traces.format import TraceAgent

_NAME: Final = "litellm"


@dataclass(frozen=True, slots=True)
class _Request:
    """A request: its call, and what was cached of its prompt or beside it."""

    session: str
    model: str
    call: Call
    cached_tokens: int
    is_within: bool | None
    """Whether the logged prompt includes the cached tokens; `None` where it may or may not."""


def _told_by(head: Head) -> bool:
    return any(
        head.first("prompt_tokens", "completion_tokens", "startTime", name) for name in ("request_id", "id")
    )


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    requests = [
        request
        for path in paths
        for where, logged in json_objects(path, notes)
        if (request := _request(logged, where, notes)) is not None
    ]
    without = {request.model for request in requests if request.is_within is False}
    sessions: dict[str, list[Call]] = {}
    for request in requests:
        call = _whole(request, request.model in without, notes)
        sessions.setdefault(request.session, []).append(call)
    found = [
        Recorded(agent_id=name, source=_NAME, calls=sorted(calls, key=lambda call: call.began_s or 0.0))
        for name, calls in sessions.items()
    ]
    yield from agents_of(found, notes)


def _whole(request: _Request, is_without: bool, notes: Notes) -> Call:
    """Return the call with the whole prompt."""
    call = request.call
    if request.is_within is not None or not request.cached_tokens:
        return call
    if is_without:
        return replace(call, prompt_tokens=call.prompt_tokens + request.cached_tokens)
    notes.guess("a prompt includes the tokens that were cached", call.where)
    return call


def _request(logged: Mapping[str, Any], where: str, notes: Notes) -> _Request | None:
    if "prompt_tokens" not in logged or "startTime" not in logged:
        notes.leave_out("a line that no log of requests has", where)
        return None
    if logged.get("status") == "failure":
        notes.leave_out("a request that failed", where)
        return None
    if str(logged.get("cache_hit")).lower() == "true":
        notes.leave_out("a request that a cache of answers served", where)
        return None
    if "embedding" in str(logged.get("call_type")):
        notes.leave_out("a request for embeddings", where)
        return None
    metadata = object_of(parsed(logged.get("metadata")))
    usage = object_of(parsed(metadata.get("usage_object")))
    details = object_of(usage.get("prompt_tokens_details"))
    read = _first(usage, "cache_read_input_tokens", details.get("cached_tokens"))
    written = _first(usage, "cache_creation_input_tokens", details.get("cache_creation_tokens")) or 0
    cached = (read or 0) + written
    prompt = count_of(logged.get("prompt_tokens"))
    is_within = None if prompt is None else _is_within(prompt, cached, details)
    if prompt is not None and is_within is False:
        prompt += cached
    tokens = counted(prompt, logged.get("completion_tokens"), where, notes)
    if tokens is None:
        return None
    session = next((text for key in ("session_id", "trace_id") if (text := text_of(logged.get(key)))), None)
    if session is None:
        notes.guess("a request without a session is an agent of its own", where)
        session = text_of(logged.get("request_id", logged.get("id"))) or where
    call = Call(
        *tokens,
        where,
        cached_tokens=read,
        began_s=time_of(logged.get("startTime")),
        ended_s=time_of(logged.get("endTime")),
    )
    return _Request(session, text_of(logged.get("model")) or "", call, cached, is_within)


def _first(usage: Mapping[str, Any], key: str, other: Any) -> int | None:
    found = count_of(usage.get(key))
    return count_of(other) if found is None else found


def _is_within(prompt: int, cached: int, details: Mapping[str, Any]) -> bool | None:
    """Tell whether a prompt includes its cached tokens."""
    if cached > prompt:
        return False
    texts = count_of(details.get("text_tokens"))
    if texts is not None and texts + cached == prompt:
        return True
    return None


LITELLM: Final = CountsImporter(
    name=_NAME,
    title="LiteLLM spend log or standard logging payload",
    told_by=_told_by,
    agents=_agents,
)
