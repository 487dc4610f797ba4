"""Trajectories of SWE-agent, `*.traj`: a file a task, texts without counts.

A step has the messages that its call was sent (`query` since version 1.1, `messages` before), the answer, and
how long its command ran, which is the wait after the call. Where a step has no messages, the prompts are
those of `history`. A file of several attempts has them under `attempts`, and the best once more by itself:
each attempt is an agent. Messages may be shortened between calls: each prompt is held against the one before.
`info.model_stats` has totals only: the counts of the tokenizer are held against them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted, steps_of
from concur.sim.importers.importer import CountTokens, Head, Notes
from concur.sim.importers.texts import COUNTED, TextImporter, message_counter, message_texts, value_with_texts
from concur.sim.importers.values import count_of, duration_of, list_of, object_of
from concur.sim.traces.format import TraceAgent, TraceStep

_SOURCE: Final = "swe-agent"
_TOLERANCE_FRAC: Final = 0.2
"""Counts further from the recorded totals than this are noted."""
_Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Turn:
    """A call by its texts: what it was sent, what it answered, and how long its command ran."""

    prompt: Sequence[_Message]
    answer: _Message
    runs_s: float | None


def _told_by(head: Head) -> bool:
    return head.first("trajectory", "history", "info") is not None


def _agents(path: Path, notes: Notes, count_tokens: CountTokens | None) -> Iterator[TraceAgent]:
    value = object_of(value_with_texts(path, notes))
    name = path.name.partition(".traj")[0]
    attempts = [attempt for attempt in list_of(value.get("attempts")) if isinstance(attempt, dict)]
    if not attempts:
        yield from _agent(name, value, str(path), notes, count_tokens)
    for number, attempt in enumerate(attempts, 1):
        where = f"{path}, attempt {number}"
        yield from _agent(f"{name}/{number}", attempt, where, notes, count_tokens)


def _agent(
    name: str, value: Mapping[str, Any], where: str, notes: Notes, count_tokens: CountTokens | None
) -> Iterator[TraceAgent]:
    turns = _turns(value, where, notes)
    if not turns:
        notes.leave_out("a task without a call", where)
    elif count_tokens is None:
        notes.leave_out("a call without counts; a --tokenizer counts its text", where, len(turns))
    else:
        calls = _calls(turns, where, message_counter(count_tokens), notes)
        _hold_against(object_of(object_of(value.get("info")).get("model_stats")), calls, where, notes)
        if calls:  # without times, and so without an arrival
            yield TraceAgent(agent_id=name, steps=_steps(calls, turns, notes), source=_SOURCE)


def _turns(value: Mapping[str, Any], where: str, notes: Notes) -> list[_Turn]:
    steps = [step for step in map(object_of, list_of(value.get("trajectory"))) if _answered(step)]
    sent = [_messages(step.get("query") or step.get("messages")) for step in steps]
    runs_s = [duration_of(step.get("execution_time")) for step in steps]
    if not all(sent):
        turns = _of_history(_messages(value.get("history")), runs_s)
        notes.guess("prompts told by the history, as if nothing in it had been shortened", where, len(turns))
        return turns
    turns = [
        _Turn(prompt, {"content": _answer_text(step)}, run_s)
        for step, prompt, run_s in zip(steps, sent, runs_s, strict=True)
    ]
    # The next prompt repeats an answer with the calls of its tools, which the step does not have.
    repeated = [_repeated(turn, following) for turn, following in pairwise(turns)]
    return [*repeated, *turns[-1:]]


def _answered(step: Mapping[str, Any]) -> bool:
    """Tell a step of the model from one that only submits or ends."""
    return bool(step.get("response") or step.get("thought"))


def _messages(value: Any) -> list[_Message]:
    return [message for message in list_of(value) if isinstance(message, dict) and message.get("role")]


def _answer_text(step: Mapping[str, Any]) -> str:
    said, action = str(step.get("response") or step.get("thought") or ""), str(step.get("action") or "")
    return said if action.strip() in said else f"{said}\n{action}"


def _repeated(turn: _Turn, following: _Turn) -> _Turn:
    place = len(turn.prompt)
    if len(following.prompt) > place and following.prompt[place].get("role") == "assistant":
        return replace(turn, answer=following.prompt[place])
    return turn


def _of_history(history: Sequence[_Message], runs_s: Sequence[float | None]) -> list[_Turn]:
    places = [
        place
        for place, message in enumerate(history)
        if message.get("role") == "assistant" and not message.get("is_demo")
    ]
    times = runs_s if len(runs_s) == len(places) else [None] * len(places)
    return [_Turn(history[:place], history[place], run_s) for place, run_s in zip(places, times, strict=True)]


def _calls(
    turns: Sequence[_Turn], place: str, tokens_of: Callable[[_Message], int], notes: Notes
) -> list[Call]:
    calls: list[Call] = []
    before: Sequence[_Message] = ()
    for number, turn in enumerate(turns, 1):
        where = f"{place}, call {number}"
        tokens = counted(sum(map(tokens_of, turn.prompt)), tokens_of(turn.answer), where, notes)
        if tokens is None:
            continue
        notes.guess(COUNTED, where)
        common = sum(map(tokens_of, turn.prompt[: _common(before, turn.prompt)]))
        calls.append(Call(*tokens, where, common_tokens=common))
        before = [*turn.prompt, turn.answer]
    return calls


def _common(before: Sequence[_Message], prompt: Sequence[_Message]) -> int:
    """Return how many messages two prompts begin with alike."""
    pairs = zip(before, prompt, strict=False)
    alike = (list(message_texts(one)) == list(message_texts(other)) for one, other in pairs)
    return next(
        (place for place, is_alike in enumerate(alike) if not is_alike), min(len(before), len(prompt))
    )


def _steps(calls: Sequence[Call], turns: Sequence[_Turn], notes: Notes) -> tuple[TraceStep, ...]:
    steps = steps_of(calls, notes)
    if len(steps) != len(turns):
        return steps
    waits = [turn.runs_s for turn in turns[:-1]]
    return (
        *(replace(step, tool_latency_s=wait_s) for step, wait_s in zip(steps, waits, strict=False)),
        steps[-1],
    )


def _hold_against(stats: Mapping[str, Any], calls: Sequence[Call], where: str, notes: Notes) -> None:
    for what, key, total in (
        ("prompts", "tokens_sent", sum(call.prompt_tokens for call in calls)),
        ("outputs", "tokens_received", sum(call.output_tokens for call in calls)),
    ):
        recorded = count_of(stats.get(key))
        if recorded and abs(total / recorded - 1) > _TOLERANCE_FRAC:
            notes.guess(f"{what} of a task more than 20 % from the {key} of the recording", where)


SWE_AGENT: Final = TextImporter(
    name="swe-agent",
    title="SWE-agent trajectory (trajectories/**/*.traj)",
    told_by=_told_by,
    agents=_agents,
    needs_tokenizer=True,
)
