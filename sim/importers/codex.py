"""Rollouts of Codex, `~/.codex/sessions/**/rollout-*.jsonl`: a file a thread.

Calls are the `token_count` events, whose `input_tokens` include the cached ones and whose `output_tokens`
include reasoning. The same event may be written again; a total that was seen counts once. A thread that was
forked begins with the events of its parent, under new times. They are told by the parent's own file where it
is imported too; else they are those before the thread's own begin, and those written faster than a model
answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted, person_wait_s, waits_after
from concur.sim.importers.files import json_objects
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.values import count_of, object_of, text_of, time_of
from concur.sim.traces.format import TraceAgent

_NAME: Final = "codex"
_KINDS: Final = ("session_meta", "turn_context", "event_msg", "response_item", "compacted")
_FASTEST_S: Final = 0.1
"""Events that follow each other faster than this were copied: no call is as short."""
_ANSWERS: Final = ("reasoning", "function_call", "custom_tool_call", "local_shell_call", "web_search_call")
_Totals = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class _Event:
    """One `token_count` that is not a repeat: its call, and what identifies it in a copy."""

    totals: _Totals
    call: Call


@dataclass(slots=True)
class _Thread:
    """A rollout while its lines come in."""

    path: Path
    thread_id: str = ""
    parent: str | None = None
    is_subagent: bool = False
    began_s: float | None = None
    events: list[_Event] = field(default_factory=list)
    seen: set[_Totals] = field(default_factory=set)
    input_s: float | None = None
    person_s: float | None = None
    answering: tuple[float | None, float | None] | None = None
    """`input_s` and `person_s` of the call whose answer comes in."""
    answer_s: float | None = None
    copied: int = 0
    """How many of its first events are its parent's."""


def _told_by(head: Head) -> bool:
    return any(
        isinstance(value, dict) and value.get("type") in _KINDS and isinstance(value.get("payload"), dict)
        for value in head.values
    )


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    threads = [_read(path, notes) for path in paths]
    by_id = {thread.thread_id: thread for thread in threads}
    for thread in threads:
        _count_copied(thread, by_id.get(thread.parent or ""), notes)
    yield from agents_of([_recorded(thread, by_id, notes) for thread in threads], notes)


def _read(path: Path, notes: Notes) -> _Thread:
    thread = _Thread(path)
    for where, line in json_objects(path, notes):
        payload = object_of(line.get("payload"))
        time_s = time_of(line.get("timestamp"))
        match line.get("type"), payload.get("type"):
            case "session_meta", _:
                _take_meta(thread, payload, time_s)
            case "event_msg", "token_count":
                _take_count(thread, payload, where, time_s, notes)
            case "event_msg", "user_message" | "task_started":  # newer rollouts have the latter only
                _take_person(thread, time_s)
            case "response_item", str(kind) if kind.endswith("_output"):
                thread.input_s = time_s
            case "response_item", kind if kind in _ANSWERS or payload.get("role") == "assistant":
                _take_answer(thread, time_s)
            case kind, _ if kind not in _KINDS and "payload" not in line:
                notes.leave_out("a line that no rollout has", where)
    thread.thread_id = thread.thread_id or path.name.partition(".")[0]
    return thread


def _take_meta(thread: _Thread, meta: Mapping[str, Any], time_s: float | None) -> None:
    """Take the first of these lines: those after it are copies of the parent's."""
    if thread.thread_id:
        return
    thread.thread_id = text_of(meta.get("id")) or text_of(meta.get("session_id")) or ""
    thread.began_s = time_of(meta.get("timestamp")) or time_s
    source = object_of(meta.get("source"))
    spawn = object_of(object_of(source.get("subagent")).get("thread_spawn"))
    parent = text_of(meta.get("forked_from_id")) or text_of(meta.get("parent_thread_id"))
    thread.parent = parent or text_of(spawn.get("parent_thread_id"))
    thread.is_subagent = "subagent" in source or meta.get("thread_source") == "subagent"


def _take_person(thread: _Thread, time_s: float | None) -> None:
    since_s = thread.input_s
    if since_s is None and thread.events:
        since_s = thread.events[-1].call.ended_s
    if thread.events and not thread.is_subagent:
        thread.person_s = person_wait_s(thread.person_s, since_s, time_s)
    thread.input_s = time_s


def _take_answer(thread: _Thread, time_s: float | None) -> None:
    """Take a part of an answer: what comes in after it, before the count, is for the next call."""
    if thread.answering is None:
        thread.answering = (thread.input_s, thread.person_s)
        thread.input_s = thread.person_s = None
    thread.answer_s = time_s


def _take_count(
    thread: _Thread, payload: Mapping[str, Any], where: str, time_s: float | None, notes: Notes
) -> None:
    info = object_of(payload.get("info"))
    total = object_of(info.get("total_token_usage"))
    last = object_of(info.get("last_token_usage"))
    if not total and not last:
        return  # an event about limits of the account
    totals = _totals(total or last)
    if total and totals in thread.seen:
        return
    before = thread.events[-1].totals if thread.events else (0, 0, 0)
    thread.seen.add(totals)
    usage = last or _difference(totals, before)
    tokens = counted(usage.get("input_tokens"), usage.get("output_tokens"), where, notes)
    if tokens is None:
        return
    if thread.answering is None:
        _take_answer(thread, time_s)
    began_s, person_s = thread.answering or (None, None)
    call = Call(
        *tokens,
        where,
        cached_tokens=count_of(usage.get("cached_input_tokens")),
        began_s=began_s,
        ended_s=time_s if thread.input_s is None else thread.answer_s,
        user_wait_s=person_s,
    )
    thread.answering = None
    thread.events.append(_Event(totals, call))


def _totals(usage: Mapping[str, Any]) -> _Totals:
    return tuple(count_of(usage.get(f"{kind}_tokens")) for kind in ("input", "cached_input", "output"))


def _difference(totals: _Totals, before: _Totals) -> Mapping[str, Any]:
    """Return the usage of a call from the totals around it, as older rollouts need."""
    parts = [(now or 0) - (then or 0) for now, then in zip(totals, before, strict=True)]
    return dict(zip(("input_tokens", "cached_input_tokens", "output_tokens"), parts, strict=True))


def _count_copied(thread: _Thread, parent: _Thread | None, notes: Notes) -> None:
    if thread.parent is None:
        return
    if parent is not None and parent is not thread:
        thread.copied = _common_events(thread.events, parent.events)
        return
    times = [event.call.ended_s for event in thread.events]
    while thread.copied < len(times) and _looks_copied(times, thread.copied, thread.began_s):
        thread.copied += 1
    if thread.copied:
        notes.guess(
            "events of a forked thread that look like its parent's", str(thread.path), number=thread.copied
        )


def _common_events(events: Sequence[_Event], parents: Sequence[_Event]) -> int:
    """Return how many first events are a piece of the parent's."""
    if not events:
        return 0
    starts = [number for number, event in enumerate(parents) if event.totals == events[0].totals]
    return max((_run_length(events, parents[start:]) for start in starts), default=0)


def _run_length(events: Sequence[_Event], parents: Sequence[_Event]) -> int:
    pairs = zip(events, parents, strict=False)
    return next(
        (at for at, (one, other) in enumerate(pairs) if one.totals != other.totals),
        min(len(events), len(parents)),
    )


def _looks_copied(times: Sequence[float | None], number: int, began_s: float | None) -> bool:
    time_s = times[number]
    after_s = times[number + 1] if number + 1 < len(times) else None
    before_s = times[number - 1] if number else None
    if time_s is None:
        return False
    if began_s is not None and time_s < began_s:
        return True
    gaps_s = [abs(time_s - other_s) for other_s in (before_s, after_s) if other_s is not None]
    return bool(gaps_s) and min(gaps_s) < _FASTEST_S


def _recorded(thread: _Thread, by_id: Mapping[str, _Thread], notes: Notes) -> Recorded:
    calls = waits_after([event.call for event in _own(thread)])
    if thread.copied:
        notes.leave_out("an event that a forked thread has from its parent", str(thread.path), thread.copied)
    parent, step = _origin(thread, by_id)
    return Recorded(
        agent_id=thread.thread_id,
        source=_NAME,
        calls=calls,
        parent=parent,
        parent_step=step,
        begins_s=thread.began_s if calls and calls[0].began_s is None else None,
        is_awaited=None if thread.is_subagent else False,
        is_fresh=not thread.copied or step is not None,
        forked_tokens=calls[0].prompt_tokens if calls and step is not None else 0,
    )


def _origin(thread: _Thread, by_id: Mapping[str, _Thread]) -> tuple[str | None, int | None]:
    """Return the thread that a fork's last copied event is of, and which of its calls that was."""
    seen: set[str] = set()
    above = by_id.get(thread.parent or "") if thread.copied else None
    while above is not None and above.thread_id not in seen:
        last = thread.events[thread.copied - 1].totals
        step = next((at for at, event in enumerate(_own(above)) if event.totals == last), None)
        if step is not None:
            return above.thread_id, step
        seen.add(above.thread_id)
        above = by_id.get(above.parent or "")
    return thread.parent, None


def _own(thread: _Thread) -> Sequence[_Event]:
    return thread.events[thread.copied :]


CODEX: Final = CountsImporter(
    name=_NAME,
    title="Codex rollout (~/.codex/sessions/**/rollout-*.jsonl)",
    told_by=_told_by,
    agents=_agents,
)
