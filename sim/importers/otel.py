"""Spans of OpenTelemetry with the conventions for generative AI, as OTLP in JSON: a line a batch of spans.

A call is a span with `gen_ai.usage.input_tokens`, which include the cached ones by convention; where more
tokens were cached than went in, they do not. Spans with the operation `invoke_agent` are agents.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted
from concur.sim.importers.files import json_objects
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.recorded import agents_of
from concur.sim.importers.spans import Span, recorded_of
from concur.sim.importers.values import count_of, list_of, number_of, object_of, scaled, text_of
from concur.sim.traces.format import TraceAgent

_NAME: Final = "otel"
_USAGE: Final = "gen_ai.usage."
_NO_CALLS: Final = ("invoke_agent", "create_agent", "invoke_workflow", "execute_tool", "embeddings")
_SESSIONS: Final = ("gen_ai.conversation.id", "session.id")


def _told_by(head: Head) -> bool:
    return head.first("resourceSpans") is not None or head.first("resource_spans") is not None


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    spans = [
        _span(span, where, notes)
        for path in paths
        for where, batch in json_objects(path, notes)
        for span in _spans(batch, where, notes)
    ]
    yield from agents_of(recorded_of(spans, _NAME, notes), notes)


def _spans(batch: Mapping[str, Any], where: str, notes: Notes) -> Iterator[Mapping[str, Any]]:
    resources = batch.get("resourceSpans", batch.get("resource_spans"))
    if not isinstance(resources, list):
        notes.leave_out("a line without spans", where)
    for resource in map(object_of, list_of(resources)):
        scopes = resource.get("scopeSpans", resource.get("scope_spans"))
        for scope in map(object_of, list_of(scopes)):
            yield from map(object_of, list_of(scope.get("spans")))


def _span(span: Mapping[str, Any], where: str, notes: Notes) -> Span:
    attributes = _attributes(span)
    name = text_of(span.get("spanId", span.get("span_id"))) or where
    began_s = scaled(span.get("startTimeUnixNano", span.get("start_time_unix_nano")), 1e-9)
    ended_s = scaled(span.get("endTimeUnixNano", span.get("end_time_unix_nano")), 1e-9)
    operation = attributes.get("gen_ai.operation.name")
    return Span(
        span_id=name,
        trace_id=text_of(span.get("traceId", span.get("trace_id"))) or name,
        parent_id=text_of(span.get("parentSpanId", span.get("parent_span_id"))),
        session=next((text for key in _SESSIONS if (text := text_of(attributes.get(key)))), None),
        is_agent=operation == "invoke_agent",
        call=None
        if operation in _NO_CALLS
        else _call(attributes, f"{where}, span {name}", began_s, ended_s, notes),
        began_s=began_s,
        ended_s=ended_s,
    )


def _call(
    attributes: Mapping[str, Any], where: str, began_s: float | None, ended_s: float | None, notes: Notes
) -> Call | None:
    prompt = attributes.get(f"{_USAGE}input_tokens", attributes.get(f"{_USAGE}prompt_tokens"))
    output = attributes.get(f"{_USAGE}output_tokens", attributes.get(f"{_USAGE}completion_tokens"))
    if prompt is None and output is None:
        if attributes.get("gen_ai.operation.name") in ("chat", "generate_content", "text_completion"):
            notes.leave_out("a call without counts of its tokens", where)
        return None
    tokens = counted(prompt, output, where, notes)
    if tokens is None:
        return None
    read = count_of(attributes.get(f"{_USAGE}cache_read.input_tokens"))
    read = count_of(attributes.get(f"{_USAGE}cache_read_input_tokens")) if read is None else read
    written = count_of(attributes.get(f"{_USAGE}cache_creation.input_tokens")) or 0
    outside = 0
    if (read or 0) + written > tokens[0]:
        notes.guess("more cached tokens than went in are beside those that went in", where)
        outside = (read or 0) + written
    most = count_of(attributes.get("gen_ai.request.max_tokens"))
    return Call(
        tokens[0] + outside,
        tokens[1],
        where,
        cached_tokens=read,
        began_s=began_s,
        ended_s=ended_s,
        max_new_tokens=most if most and most >= tokens[1] else None,
    )


def _attributes(span: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span: numbers and texts, whatever OTLP calls them."""
    found: dict[str, Any] = {}
    for attribute in map(object_of, list_of(span.get("attributes"))):
        value = object_of(attribute.get("value"))
        key = text_of(attribute.get("key"))
        if key is None or not key.startswith(("gen_ai.", "session.")):
            continue
        if "intValue" in value or "doubleValue" in value:
            found[key] = number_of(value.get("intValue", value.get("doubleValue")))
        else:
            found[key] = value.get("stringValue")
    return found


OTEL: Final = CountsImporter(
    name=_NAME,
    title="OpenTelemetry export of GenAI spans (OTLP in JSON)",
    told_by=_told_by,
    agents=_agents,
)
