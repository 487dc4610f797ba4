"""The shape of the trees in a trace: how wide, how deep, and how much each session holds at once."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from concur.sim.traces.checks import contexts
from concur.sim.traces.format import TraceAgent


@dataclass(frozen=True, slots=True)
class Tree:
    """One session: the agent that arrives by itself, and all that it starts, directly or not.

    `fan_outs`: how many children start together, for each step that starts any. `depth` counts generations
    below the root. `alone_tokens` is the longest history of the root, `resident_tokens` the most that root
    and sub-agents hold at once.
    """

    num_agents: int
    depth: int
    fan_outs: tuple[int, ...]
    alone_tokens: int
    resident_tokens: int


def trees_of(agents: Sequence[TraceAgent]) -> list[Tree]:
    """Return the trees of a checked trace, in the order of their roots.

    Counts without times, so `resident_tokens` is an estimate: after a step, the history of the agent and the
    peaks of the children that the step starts, less what a fork shares. A child that runs beside its parent
    counts with the step that starts it.
    """
    children: defaultdict[str, list[TraceAgent]] = defaultdict(list)
    for agent in agents:
        if agent.is_spawned and agent.parent is not None:
            children[agent.parent].append(agent)
    return [_tree(agent, children) for agent in agents if not agent.is_spawned]


def _tree(root: TraceAgent, children: Mapping[str, list[TraceAgent]]) -> Tree:
    members = list(_members(root, 0, children))
    fan_outs = [
        number
        for agent, _ in members
        for _, number in sorted(
            Counter(child.parent_step for child in children.get(agent.agent_id, ())).items()
        )
    ]
    return Tree(
        num_agents=len(members),
        depth=max(depth for _, depth in members),
        fan_outs=tuple(fan_outs),
        alone_tokens=max(after for _, after in contexts(root)),
        resident_tokens=_resident_tokens(root, children),
    )


def _members(
    agent: TraceAgent, depth: int, children: Mapping[str, list[TraceAgent]]
) -> Iterator[tuple[TraceAgent, int]]:
    yield agent, depth
    for child in children.get(agent.agent_id, ()):
        yield from _members(child, depth + 1, children)


def _resident_tokens(agent: TraceAgent, children: Mapping[str, list[TraceAgent]]) -> int:
    held = [after for _, after in contexts(agent)]
    for child in children.get(agent.agent_id, ()):
        held[child.parent_step or 0] += _resident_tokens(child, children) - child.fork_tokens
    return max(held)
