"""Runs of OpenHands: `output.jsonl` of an evaluation, a line a task, of its versions 0 and 1.

`metrics.token_usages` has a call an entry, cached tokens within the prompt's, and `response_latencies` how
long each took. When a call ended is told by the first event of `history` that came of it; where the events
do not name their calls, by `costs`. Older lines without `token_usages` have the usage in their events.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted, waits_after, with_told_caches
from concur.sim.importers.files import json_objects
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.values import count_of, duration_of, list_of, object_of, text_of, time_of
from concur.sim.traces.format import TraceAgent

_SOURCE: Final = "openhands"


@dataclass(frozen=True, slots=True)
class _Seen:
    """When the answer of a call was in the history, and the last events before it."""

    ended_s: float | None
    before_s: float | None
    user_wait_s: float | None


def _told_by(head: Head) -> bool:
    row = head.first("instance_id", "history")
    return row is not None and isinstance(row["history"], list) and "trajectory" not in row


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    for path in paths:
        for where, row in json_objects(path, notes):
            name = text_of(row.get("instance_id")) or where
            recorded = Recorded(agent_id=name, source=_SOURCE, calls=_calls(row, where, notes))
            yield from agents_of([recorded], notes)


def _calls(row: Mapping[str, Any], where: str, notes: Notes) -> list[Call]:
    history = list(_events(row.get("history")))
    metrics = object_of(row.get("metrics"))
    usages = list(map(object_of, list_of(metrics.get("token_usages")))) or _of_events(history)
    if any(event.get("action") == "delegate" for event in history):
        notes.guess("calls of a delegate are those of its agent", where)
    latencies = {
        text_of(one.get("response_id")): duration_of(one.get("latency"))
        for one in map(object_of, list_of(metrics.get("response_latencies")))
    }
    seen = _seen(history)
    costs = [time_of(object_of(cost).get("timestamp")) for cost in list_of(metrics.get("costs"))]
    by_costs = len(costs) == len(usages) and not seen
    calls = []
    for number, usage in enumerate(usages, 1):
        name = text_of(usage.get("response_id"))
        told = _Seen(costs[number - 1], None, None) if by_costs else seen.get(name or "")
        call = _call(usage, told, latencies.get(name), f"{where}, call {number}", notes)
        if call is not None:
            calls.append(call)
    return waits_after(with_told_caches(calls))


def _events(history: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the events of a history; the oldest ones have pairs of an action and its result."""
    for entry in list_of(history):
        for event in entry if isinstance(entry, list) else [entry]:
            if isinstance(event, dict):
                yield event


def _call(
    usage: Mapping[str, Any], seen: _Seen | None, latency_s: float | None, where: str, notes: Notes
) -> Call | None:
    tokens = counted(usage.get("prompt_tokens"), usage.get("completion_tokens"), where, notes)
    if tokens is None:
        return None
    cached = count_of(usage.get("cache_read_tokens"))
    if seen is None:
        return Call(*tokens, where, cached_tokens=cached)
    began_s = seen.before_s
    if seen.ended_s is not None and latency_s is not None:
        began_s = seen.ended_s - latency_s
    return Call(
        *tokens,
        where,
        cached_tokens=cached,
        began_s=began_s,
        ended_s=seen.ended_s,
        user_wait_s=seen.user_wait_s,
    )


def _of_events(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the usage that answers of the API have, as the actions that came of them keep it."""
    found: dict[str, Mapping[str, Any]] = {}
    for event in history:
        response = object_of(object_of(event.get("tool_call_metadata")).get("model_response"))
        usage, name = object_of(response.get("usage")), text_of(response.get("id"))
        if usage and name is not None and name not in found:
            details = object_of(usage.get("prompt_tokens_details"))
            found[name] = {
                "response_id": name,
                "prompt_tokens": usage.get("prompt_tokens"),
                "completion_tokens": usage.get("completion_tokens"),
                "cache_read_tokens": details.get("cached_tokens"),
            }
    return list(found.values())


def _seen(history: Sequence[Mapping[str, Any]]) -> dict[str, _Seen]:
    """Return when each call was first in the history, by the id of its answer."""
    found: dict[str, _Seen] = {}
    before_s: float | None = None
    agent_s: float | None = None  # of the last event that no person made
    prompted_s: float | None = None  # of a person's message since
    for event in history:
        now_s, name = time_of(event.get("timestamp")), _response_id(event)
        if name is not None and name not in found:
            waited = found and agent_s is not None and prompted_s is not None
            wait_s = max(0.0, (prompted_s or 0.0) - (agent_s or 0.0)) if waited else None
            found[name] = _Seen(now_s, before_s, wait_s)
            prompted_s = None
        if now_s is None:
            continue
        before_s = now_s
        if event.get("source") == "user":
            prompted_s = now_s
        else:
            agent_s = now_s
    return found


def _response_id(event: Mapping[str, Any]) -> str | None:
    """Return the answer that an event came of; results of tools name that of their action."""
    if event.get("source") != "agent" or event.get("observation"):
        return None
    response = object_of(object_of(event.get("tool_call_metadata")).get("model_response"))
    return text_of(event.get("llm_response_id")) or text_of(response.get("id"))


OPENHANDS: Final = CountsImporter(
    name="openhands",
    title="OpenHands evaluation (output.jsonl)",
    told_by=_told_by,
    agents=_agents,
)
