"""From agents as a recording has them to agents of a trace: who started whom, and who waited for whom."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from concur.sim.importers.calls import Call, steps_of
from concur.sim.importers.importer import Notes
from concur.sim.traces.format import MAX_SECONDS, Prefix, TraceAgent, TraceStep

_EXPLAINED_S: Final = 1.0
_EXPLAINED_FRAC: Final = 0.1
"""A wait that ends within so much of a child's end, in seconds or of the wait, was a wait for the child."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An agent as a recording has it.

    `parent_step` is the call of its parent that started it, where the recording says that itself; else it is
    told by the times. `begins_s` and `ends_s` are its own, where they are not those of its calls.
    `forked_tokens` is how much it has of its parent's history, for one that started as a copy of it.
    `is_awaited` is whether its parent waits for it, where that is known; else it is told by the times.
    """

    agent_id: str
    source: str
    calls: Sequence[Call]
    parent: str | None = None
    parent_step: int | None = None
    begins_s: float | None = None
    ends_s: float | None = None
    forked_tokens: int = 0
    is_awaited: bool | None = None
    is_fresh: bool = True
    prefixes: tuple[Prefix, ...] = ()

    @property
    def began_s(self) -> float | None:
        """When it started."""
        return self.begins_s if self.begins_s is not None else self.calls[0].began_s

    @property
    def ended_s(self) -> float | None:
        """When its last call ended."""
        return self.ends_s if self.ends_s is not None else self.calls[-1].ended_s


@dataclass(frozen=True, slots=True)
class _Spawn:
    """Where a child starts in its parent, and whether the parent waits."""

    step: int
    delay_s: float
    joins: bool
    fork_tokens: int


def agents_of(recorded: Sequence[Recorded], notes: Notes) -> Iterator[TraceAgent]:
    """Yield recorded agents as agents of a trace, in their order; those without a call are left out."""
    by_id = {agent.agent_id: agent for agent in recorded if agent.calls}
    spawns: dict[str, _Spawn] = {}
    children: dict[str, list[Recorded]] = {}
    for agent in by_id.values():
        if (spawn := _spawn(agent, by_id, notes)) is not None and agent.parent is not None:
            spawns[agent.agent_id] = spawn
            children.setdefault(agent.parent, []).append(agent)
    for agent in recorded:
        if not agent.calls:
            notes.leave_out("an agent without a call that has counts", agent.agent_id)
            continue
        spawn = spawns.get(agent.agent_id)
        steps = steps_of(agent.calls, notes, starting_tokens=_starting_tokens(agent, spawn))
        awaited = [(spawns[child.agent_id], child) for child in children.get(agent.agent_id, ())]
        yield _agent(agent, spawn, _without_children(agent, steps, awaited))


def _agent(agent: Recorded, spawn: _Spawn | None, steps: tuple[TraceStep, ...]) -> TraceAgent:
    made = TraceAgent(
        agent_id=agent.agent_id,
        steps=steps,
        source=agent.source,
        arrival_s=agent.began_s if agent.began_s is not None else agent.calls[0].ended_s,
        prefixes=agent.prefixes,
        fresh_start=agent.is_fresh,
        parent=agent.parent,
    )
    if spawn is None:
        return made
    return replace(
        made,
        arrival_s=None,
        parent_step=spawn.step,
        spawn_delay_s=spawn.delay_s,
        joins=spawn.joins,
        fork_tokens=spawn.fork_tokens,
    )


def _starting_tokens(agent: Recorded, spawn: _Spawn | None) -> int:
    return sum(prefix.tokens for prefix in agent.prefixes) + (0 if spawn is None else spawn.fork_tokens)


def _spawn(child: Recorded, by_id: Mapping[str, Recorded], notes: Notes) -> _Spawn | None:
    """Return where a child starts; `None` where its parent is not in the recording, or is its descendant."""
    parent = by_id.get(child.parent or "")
    if parent is None or _is_circular(child, by_id):
        if child.parent is not None:
            notes.guess("a child whose parent is not in the recording arrives by itself", child.agent_id)
        return None
    step = child.parent_step if child.parent_step is not None else _step_before(child, parent, notes)
    step = min(step, len(parent.calls) - 1)
    call = parent.calls[step]
    resumes_s = parent.calls[step + 1].began_s if step + 1 < len(parent.calls) else None
    delay_s = 0.0
    if child.began_s is None or call.ended_s is None:
        notes.guess("a child starts as soon as the step of its parent has ended", child.agent_id)
    else:
        delay_s = min(MAX_SECONDS, max(0.0, round(child.began_s - call.ended_s, 6)))
    in_time = resumes_s is None or child.ended_s is None or child.ended_s <= resumes_s
    history = call.prompt_tokens + call.output_tokens
    return _Spawn(
        step=step,
        delay_s=delay_s,
        joins=in_time if child.is_awaited is None else child.is_awaited,
        fork_tokens=min(child.forked_tokens, history, child.calls[0].prompt_tokens),
    )


def _step_before(child: Recorded, parent: Recorded, notes: Notes) -> int:
    """Return the last step of the parent that had ended when the child started."""
    began_s = child.began_s if child.began_s is not None else child.calls[0].ended_s
    ended = [
        number
        for number, call in enumerate(parent.calls)
        if began_s is not None and call.ended_s is not None and call.ended_s <= began_s
    ]
    if not ended:
        notes.guess("a child that no step of its parent came before starts after the first", child.agent_id)
    return ended[-1] if ended else 0


def _is_circular(child: Recorded, by_id: Mapping[str, Recorded]) -> bool:
    seen = {child.agent_id}
    above = by_id.get(child.parent or "")
    while above is not None:
        if above.agent_id in seen:
            return True
        seen.add(above.agent_id)
        above = by_id.get(above.parent or "")
    return False


def _without_children(
    parent: Recorded, steps: tuple[TraceStep, ...], awaited: Sequence[tuple[_Spawn, Recorded]]
) -> tuple[TraceStep, ...]:
    """Leave of a wait that a child explains what came after it: in a run the child takes its own time."""
    changed = list(steps)
    for number in {spawn.step for spawn, _ in awaited if spawn.joins}:
        wait_s, ended_s = steps[number].tool_latency_s, parent.calls[number].ended_s
        ends_s = [child.ended_s for spawn, child in awaited if spawn.joins and spawn.step == number]
        last_s = max((end_s for end_s in ends_s if end_s is not None), default=None)
        if wait_s is None or ended_s is None or last_s is None:
            continue
        rest_s = ended_s + wait_s - last_s
        if 0 <= rest_s <= max(_EXPLAINED_S, _EXPLAINED_FRAC * wait_s):
            changed[number] = replace(steps[number], tool_latency_s=round(rest_s, 6))
    return tuple(changed)
