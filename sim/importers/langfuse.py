"""Exports of Langfuse: observations as JSON or JSONL, or traces and sessions with observations in them.

A call is an observation with usage. The kinds of `usageDetails` do not overlap: tokens that were cached are
beside `input`, unless `total` is the sum of `input` and `output` alone. An observation of the type AGENT
within another one is a sub-agent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted
from concur.sim.importers.files import json_objects
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.recorded import agents_of
from concur.sim.importers.spans import Span, recorded_of
from concur.sim.importers.values import count_of, object_of, text_of, time_of
from concur.sim.traces.format import TraceAgent

_NAME: Final = "langfuse"
_READ: Final = ("cache_read_input_tokens", "input_cached_tokens", "input_cache_read")
_Found = tuple[Mapping[str, Any], str | None, str]


def _told_by(head: Head) -> bool:
    return any(
        {"traceId", "startTime"} <= seen.keys() and seen.keys() & {"usageDetails", "usage", "type"}
        for value in head.values
        for seen, _, _ in _observations(value, "", None)
    )


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    spans: dict[str, Span] = {}
    sessions: dict[str, str] = {}
    for path in paths:
        for where, value in json_objects(path, notes):
            for observation, session, trace in _observations(value, where, notes):
                span = _span(observation, session, trace, where, notes)
                spans[span.span_id] = span
                if span.session is not None:
                    sessions.setdefault(span.trace_id, span.session)
    named = [_with_session(span, sessions) for span in spans.values()]
    yield from agents_of(recorded_of(named, _NAME, notes), notes)


def _observations(value: Any, where: str, notes: Notes | None) -> Iterator[_Found]:
    """Yield the observations in a value, each with the session and trace around it."""
    seen = object_of(value)
    if isinstance(traces := seen.get("traces", seen.get("data")), list):
        for trace in traces:
            yield from _observations(trace, where, notes)
    elif isinstance(observations := seen.get("observations"), list):
        trace_id = text_of(seen.get("id")) or where
        for observation in map(object_of, observations):
            yield observation, text_of(seen.get("sessionId")), trace_id
    elif "startTime" in seen:
        yield seen, None, where
    elif notes is not None:
        notes.leave_out("a line without observations", where)


def _with_session(span: Span, sessions: Mapping[str, str]) -> Span:
    return replace(span, session=span.session or sessions.get(span.trace_id))


def _span(observation: Mapping[str, Any], session: str | None, trace: str, where: str, notes: Notes) -> Span:
    name = text_of(observation.get("id")) or where
    kind = str(observation.get("type", "")).upper()
    began_s, ended_s = time_of(observation.get("startTime")), time_of(observation.get("endTime"))
    place = f"{where}, observation {name}"
    return Span(
        span_id=name,
        trace_id=text_of(observation.get("traceId")) or trace,
        parent_id=text_of(observation.get("parentObservationId")),
        session=text_of(observation.get("sessionId")) or session,
        is_agent=kind == "AGENT",
        call=_call(observation, place, began_s, ended_s, notes) if kind == "GENERATION" else None,
        began_s=began_s,
        ended_s=ended_s,
    )


def _call(
    observation: Mapping[str, Any], where: str, began_s: float | None, ended_s: float | None, notes: Notes
) -> Call | None:
    details = object_of(observation.get("usageDetails")) or object_of(observation.get("usage"))
    counts = {key: count for key, value in details.items() if (count := count_of(value)) is not None}
    prompt, output = _sums(counts) if counts else _old_sums(observation)
    if "total" not in counts and any("cache" in key for key in counts):
        notes.guess("tokens that were cached are beside the others", where)
    tokens = counted(prompt, output, where, notes)
    if tokens is None:
        return None
    read = next((counts[key] for key in _READ if key in counts), None)
    parameters = object_of(observation.get("modelParameters"))
    most = count_of(parameters.get("max_tokens"))
    return Call(
        *tokens,
        where,
        cached_tokens=read,
        began_s=began_s,
        ended_s=ended_s,
        max_new_tokens=most if most and most >= tokens[1] else None,
    )


def _sums(counts: Mapping[str, int]) -> tuple[int | None, int | None]:
    """Return the tokens of prompt and output; kinds lie beside each other or within `input` and `output`."""
    parts_in = {key: count for key, count in counts.items() if key.startswith("input") or "cache" in key}
    parts_out = {key: count for key, count in counts.items() if key.startswith("output")}
    whole_in, whole_out = counts.get("input", 0), counts.get("output", 0)
    if counts.get("total") == whole_in + whole_out:
        return whole_in, whole_out
    if not parts_in or not parts_out:
        return _old_sums(counts)
    return sum(parts_in.values()), sum(parts_out.values())


def _old_sums(counts: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the tokens of prompt and output by their older names."""
    return count_of(counts.get("promptTokens")), count_of(counts.get("completionTokens"))


LANGFUSE: Final = CountsImporter(
    name=_NAME,
    title="Langfuse export of observations or traces",
    told_by=_told_by,
    agents=_agents,
)
