"""From the calls of a recording to the steps of a trace."""

from collections.abc import Sequence
from dataclasses import dataclass

from concur.sim.importers.importer import Notes
from concur.sim.traces.format import TraceStep


@dataclass(frozen=True, slots=True)
class Call:
    """One model call as most tools log it; `None` where they do not.

    `prompt_tokens` counts all of the prompt, cached tokens included. `cached_tokens` is what the provider's
    cache had of it. `began_s` and `ended_s` are on one clock of the recording; `where` names the place in it.
    """

    prompt_tokens: int
    output_tokens: int
    where: str
    cached_tokens: int | None = None
    began_s: float | None = None
    ended_s: float | None = None
    user_wait_s: float | None = None
    max_new_tokens: int | None = None


def steps_of(calls: Sequence[Call], notes: Notes, *, starting_tokens: int = 0) -> tuple[TraceStep, ...]:
    """Return calls as steps: what each keeps of the history, and the wait after it.

    A prompt at least as long as the history before it is taken as that history and something new. A shorter
    one was rewritten (compaction, dropped reasoning): it keeps what the cache had of it, or, where that was
    not recorded, nothing. The wait is from the end of a call to the begin of the next.
    """
    steps: list[TraceStep] = []
    history = starting_tokens
    for number, call in enumerate(calls):
        kept: int | None = None
        if call.prompt_tokens < history:
            kept = min(call.cached_tokens or 0, call.prompt_tokens, history)
            if call.cached_tokens is None:
                notes.guess("a prompt shorter than the history keeps nothing of it", call.where)
        new = call.prompt_tokens - (history if kept is None else kept)
        following = calls[number + 1] if number + 1 < len(calls) else None
        steps.append(
            TraceStep(
                new_prompt_tokens=new,
                output_tokens=call.output_tokens,
                tool_latency_s=None if following is None else _wait_s(call, following),
                user_wait_s=call.user_wait_s,
                kept_tokens=kept if number else None,
                max_new_tokens=call.max_new_tokens,
            )
        )
        history = call.prompt_tokens + call.output_tokens
    return tuple(steps)


def _wait_s(call: Call, following: Call) -> float | None:
    if call.ended_s is None or following.began_s is None:
        return None
    return max(0.0, round(following.began_s - call.ended_s - (call.user_wait_s or 0.0), 6))
