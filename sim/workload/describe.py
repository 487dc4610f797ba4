"""Summarise a trace: the distributions that decide whether a batch will thrash."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from concur.measures.prefixes import warm_prefix, warm_up
from concur.sim.traces.checks import contexts
from concur.sim.traces.format import TraceAgent
from concur.sim.workload.from_trace import TraceSelection, select_agents
from concur.sim.workload.losses import loss_lines
from concur.sim.workload.trees import Tree, trees_of

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Count, mean and `QUANTILES` of one quantity."""

    name: str
    count: int
    mean: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """What `concur trace describe` prints; `losses`: see `default_losses`."""

    num_agents: int
    num_fresh_agents: int
    num_prefix_groups: int
    num_calls: int
    num_calls_with_kept_tokens: int
    num_waits_not_recorded: int
    num_sub_agents: int
    num_forks: int
    num_beside: int
    ideal_hit_rate: float
    distributions: tuple[Distribution, ...]
    losses: tuple[str, ...]


def default_losses(agents: Sequence[TraceAgent]) -> tuple[str, ...]:
    """Return what a run loses of a trace where `[workload]` says no more than its name, line by line."""
    everything = TraceSelection()
    return loss_lines(select_agents(agents, everything)[1], everything)


def describe_trace(agents: Sequence[TraceAgent]) -> TraceSummary:
    """Return counts and distributions of a checked trace.

    `ideal_hit_rate` is kept / prompt tokens over all calls: what a cache that never evicts and has no
    blocks could credit. A group's first agent has to compute the shared prefix; a fork finds its parent's
    history.
    """
    prompts: list[int] = []
    peaks: list[int] = []
    kept_total = 0
    warm_tokens: dict[str, int] = {}
    for agent in agents:
        warm = agent.fork_tokens or warm_prefix(agent.levels, warm_tokens)
        history = agent.starting_tokens
        for number, (step, (prompt, after)) in enumerate(zip(agent.steps, contexts(agent), strict=True)):
            kept = history if step.kept_tokens is None else step.kept_tokens
            kept_total += kept if number > 0 else min(kept, warm)
            prompts.append(prompt)
            history = after
        warm_up(agent.levels, warm_tokens)
        peaks.append(max(after for _, after in contexts(agent)))
    trees = trees_of(agents)
    steps = [step for agent in agents for step in agent.steps]
    waits = [step.tool_latency_s for step in steps]
    return TraceSummary(
        num_agents=len(agents),
        num_fresh_agents=sum(agent.fresh_start for agent in agents),
        num_prefix_groups=len(warm_tokens),
        num_calls=len(steps),
        num_calls_with_kept_tokens=sum(step.kept_tokens is not None for step in steps),
        num_waits_not_recorded=sum(wait is None for wait in waits),
        num_sub_agents=sum(agent.is_spawned for agent in agents),
        num_forks=sum(agent.fork_tokens > 0 for agent in agents),
        num_beside=sum(agent.is_spawned and not agent.joins for agent in agents),
        ideal_hit_rate=kept_total / sum(prompts),
        distributions=(
            _distribution("calls per agent", (len(agent.steps) for agent in agents)),
            _distribution("peak context (tokens)", peaks),
            _distribution(
                "shared prefix (tokens)", (agent.starting_tokens - agent.fork_tokens for agent in agents)
            ),
            _distribution("prompt (tokens)", prompts),
            _distribution("new prompt (tokens)", (step.new_prompt_tokens for step in steps)),
            _distribution("output (tokens)", (step.output_tokens for step in steps)),
            _distribution("tool wait (s)", (wait for wait in waits if wait is not None)),
            *(_of_trees(trees) if len(trees) < len(agents) else ()),
        ),
        losses=default_losses(agents),
    )


def _of_trees(trees: Sequence[Tree]) -> Iterator[Distribution]:
    yield _distribution("agents per session", (tree.num_agents for tree in trees))
    yield _distribution("fan-out of a step", (number for tree in trees for number in tree.fan_outs))
    yield _distribution("depth of a session", (tree.depth for tree in trees))
    yield _distribution("resident, session (tokens)", (tree.resident_tokens for tree in trees))
    yield _distribution("resident, root alone (tokens)", (tree.alone_tokens for tree in trees))


def _distribution(name: str, values: Iterable[float]) -> Distribution:
    array = np.fromiter(values, dtype=np.float64)
    if not array.size:
        return Distribution(name, 0, float("nan"), (float("nan"),) * len(QUANTILES))
    quantiles = tuple(float(q) for q in np.quantile(array, QUANTILES))
    return Distribution(name, int(array.size), float(array.mean()), quantiles)
