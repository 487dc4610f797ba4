"""From the calls of a recording to the steps of a trace."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from concur.sim.importers.importer import Notes
from concur.sim.importers.values import count_of
from concur.sim.traces.format import MAX_SECONDS, TraceStep

_OVERLAP_S: Final = 1.0
"""Clocks and streams make calls overlap by less than this."""


@dataclass(frozen=True, slots=True)
class Call:
    """One model call as most tools log it; `None` where they do not.

    `prompt_tokens` counts all of the prompt, cached tokens included. `cached_tokens` is what the provider's
    cache had of it; `common_tokens` is how far it equals the history before it, where the recording tells
    that itself. `began_s` and `ended_s` are on one clock of the recording; `where` names the place in it.
    """

    prompt_tokens: int
    output_tokens: int
    where: str
    cached_tokens: int | None = None
    began_s: float | None = None
    ended_s: float | None = None
    user_wait_s: float | None = None
    max_new_tokens: int | None = None
    common_tokens: int | None = None


def counted(prompt: Any, output: Any, where: str, notes: Notes) -> tuple[int, int] | None:
    """Return the tokens of a call, the output at least one; `None`, with a note, for what is no call."""
    prompt_tokens, output_tokens = count_of(prompt), count_of(output)
    if prompt_tokens is None or output_tokens is None:
        notes.leave_out("a call without counts of its tokens", where)
        return None
    if prompt_tokens == 0:
        notes.leave_out("a call with an empty prompt", where)
        return None
    if output_tokens == 0:
        notes.guess("an output of no token counts as one", where)
    return prompt_tokens, max(1, output_tokens)


def steps_of(calls: Sequence[Call], notes: Notes, *, starting_tokens: int = 0) -> tuple[TraceStep, ...]:
    """Return calls as steps: what each keeps of the history, and the wait after it.

    A prompt at least as long as the history before it is taken as that history and something new, unless the
    recording tells how much they have in common. A shorter one was rewritten (compaction, dropped
    reasoning): it keeps what the cache had of it, or, where that was not recorded, nothing. The wait is from
    the end of a call to the begin of the next.
    """
    steps: list[TraceStep] = []
    history = starting_tokens
    for number, call in enumerate(calls):
        kept = _kept(call, history, notes) if number else None
        following = calls[number + 1] if number + 1 < len(calls) else None
        steps.append(
            TraceStep(
                new_prompt_tokens=call.prompt_tokens - (history if kept is None else kept),
                output_tokens=call.output_tokens,
                tool_latency_s=None if following is None else _wait_s(call, following, notes),
                user_wait_s=call.user_wait_s,
                kept_tokens=kept,
                max_new_tokens=call.max_new_tokens,
            )
        )
        history = call.prompt_tokens + call.output_tokens
    return tuple(steps)


def waits_after(calls: Sequence[Call]) -> list[Call]:
    """Return calls whose `user_wait_s` is that before them with that after them, as steps have it."""
    following = [*(call.user_wait_s for call in calls[1:]), None]
    return [
        replace(call, user_wait_s=None if wait_s is None else min(wait_s, MAX_SECONDS))
        for call, wait_s in zip(calls, following, strict=False)
    ]


def with_told_caches(calls: Sequence[Call]) -> list[Call]:
    """Return calls, with the cache unknown if it never had anything: 0 may stand for not reported."""
    if any(call.cached_tokens for call in calls):
        return list(calls)
    return [replace(call, cached_tokens=None) for call in calls]


def _kept(call: Call, history: int, notes: Notes) -> int | None:
    """Return what a call keeps of the history; `None` for all of it."""
    if call.common_tokens is not None:
        common = min(call.common_tokens, call.prompt_tokens)
        return common if common < history else None
    if call.prompt_tokens >= history:
        return None
    if call.cached_tokens is None:
        notes.guess("a prompt shorter than the history keeps nothing of it", call.where)
    return min(call.cached_tokens or 0, call.prompt_tokens)


def person_wait_s(so_far_s: float | None, since_s: float | None, time_s: float | None) -> float | None:
    """Return a person's wait, longer by what has passed since the last input or answer, if both are known."""
    if since_s is None or time_s is None:
        return so_far_s
    return (so_far_s or 0.0) + max(0.0, time_s - since_s)


def _wait_s(call: Call, following: Call, notes: Notes) -> float | None:
    if call.ended_s is None or following.began_s is None:
        return None
    gap_s = following.began_s - call.ended_s
    if gap_s < -_OVERLAP_S:
        notes.guess("calls that overlap stand one after the other", following.where)
    if gap_s > MAX_SECONDS:
        notes.leave_out("a wait that no clock can have measured", following.where)
        return None
    return max(0.0, round(gap_s - (call.user_wait_s or 0.0), 6))
