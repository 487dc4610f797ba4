"""From spans, as tracing tools write them, to agents: a call belongs to the agent span that it lies in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from concur.sim.importers.calls import Call
from concur.sim.importers.importer import Notes
from concur.sim.importers.recorded import Recorded

_MAX_DEPTH: Final = 1000
"""Spans deeper than this are in a circle."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span without its text. `session` is the conversation that it is of, where it says so."""

    span_id: str
    trace_id: str
    parent_id: str | None = None
    session: str | None = None
    is_agent: bool = False
    name: str = ""
    call: Call | None = None
    began_s: float | None = None
    ended_s: float | None = None


def recorded_of(spans: Sequence[Span], source: str, notes: Notes) -> list[Recorded]:
    """Return the agents of spans.

    What lies in the outermost agent span of a trace, or in none, is of the agent of its session, or of its
    trace where no span around it names a session. An agent span within another is a sub-agent.
    """
    by_id = {span.span_id: span for span in spans}
    calls: dict[str, list[Call]] = {}
    parents: dict[str, str] = {}
    bounds: dict[str, Span] = {}
    for span in spans:
        if span.call is None:
            continue
        around = list(_around(span, by_id))
        if any(other.call is not None for other in around):
            notes.leave_out("a call within a call, which is the same one", span.call.where)
            continue
        owner, *above = _owners(span, around)
        calls.setdefault(owner, []).append(span.call)
        for child, parent in zip([owner, *above], above, strict=False):
            calls.setdefault(parent, [])
            parents[child] = parent
            bounds[child] = by_id[child]
    return [
        Recorded(
            agent_id=name,
            source=source,
            calls=sorted(own, key=_when),
            parent=parents.get(name),
            begins_s=bounds[name].began_s if name in bounds else None,
            ends_s=bounds[name].ended_s if name in bounds else None,
        )
        for name, own in calls.items()
        if own or name not in bounds
    ]


def _around(span: Span, by_id: Mapping[str, Span]) -> Iterator[Span]:
    """Yield the spans that a span lies in, from the inside out."""
    for _ in range(_MAX_DEPTH):
        above = by_id.get(span.parent_id or "")
        if above is None:
            return
        yield above
        span = above


def _owners(span: Span, around: Sequence[Span]) -> list[str]:
    """Return the agents that a call lies in, from the inside out; the last is of the session or trace."""
    session = next((other.session for other in [span, *around] if other.session), None)
    agents = [other.span_id for other in around if other.is_agent]
    return [*agents[:-1], session or span.trace_id]


def _when(call: Call) -> float:
    return call.began_s if call.began_s is not None else call.ended_s or 0.0
