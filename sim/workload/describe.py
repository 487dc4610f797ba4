"""Summarise a trace: the distributions that decide whether a batch will thrash."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from concur.sim.traces.format import TraceAgent
from concur.sim.workload.from_trace import TraceSelection, select_agents
from concur.sim.workload.losses import loss_lines

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
    blocks could credit. A group's first agent has to compute the shared prefix.
    """
    prompts: list[int] = []
    peaks: list[int] = []
    kept_total = 0
    warm_tokens: dict[str, int] = {}
    for agent in agents:
        history = agent.shared_prefix_tokens
        group = agent.prefix_group
        warm = 0 if group is None else warm_tokens.get(group, 0)
        peak = 0
        for number, step in enumerate(agent.steps):
            kept = history if step.kept_tokens is None else step.kept_tokens
            prompt = kept + step.new_prompt_tokens
            prompts.append(prompt)
            kept_total += kept if number > 0 else min(kept, warm)
            history = prompt + step.output_tokens
            peak = max(peak, history)
        if group is not None:
            warm_tokens[group] = max(warm, agent.shared_prefix_tokens)
        peaks.append(peak)
    steps = [step for agent in agents for step in agent.steps]
    waits = [step.tool_latency_s for step in steps]
    return TraceSummary(
        num_agents=len(agents),
        num_fresh_agents=sum(agent.fresh_start for agent in agents),
        num_prefix_groups=len(warm_tokens),
        num_calls=len(steps),
        num_calls_with_kept_tokens=sum(step.kept_tokens is not None for step in steps),
        num_waits_not_recorded=sum(wait is None for wait in waits),
        ideal_hit_rate=kept_total / sum(prompts),
        distributions=(
            _distribution("calls per agent", (len(agent.steps) for agent in agents)),
            _distribution("peak context (tokens)", peaks),
            _distribution("shared prefix (tokens)", (agent.shared_prefix_tokens for agent in agents)),
            _distribution("prompt (tokens)", prompts),
            _distribution("new prompt (tokens)", (step.new_prompt_tokens for step in steps)),
            _distribution("output (tokens)", (step.output_tokens for step in steps)),
            _distribution("tool wait (s)", (wait for wait in waits if wait is not None)),
        ),
        losses=default_losses(agents),
    )


def _distribution(name: str, values: Iterable[float]) -> Distribution:
    array = np.fromiter(values, dtype=np.float64)
    if not array.size:
        return Distribution(name, 0, float("nan"), (float("nan"),) * len(QUANTILES))
    quantiles = tuple(float(q) for q in np.quantile(array, QUANTILES))
    return Distribution(name, int(array.size), float(array.mean()), quantiles)
