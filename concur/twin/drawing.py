"""Draw a future of the batch from what is known of it: lives, calls, and who is where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from concur.measures.prefixes import prefix_levels
from concur.measures.residents import private_tokens
from concur.signals import AgentView
from concur.twin.cache import Level
from concur.twin.calls import CallPool
from concur.twin.costs import StepCosts
from concur.twin.future import Future, FutureAgent, FutureCall
from concur.twin.lives import Lives

_MOST_CALLS: Final = 1000  # of one future
_LEAST_FITTING: Final = 16.0  # agents that a thinned pool still holds, or they would not share it as they do


def in_order(agents: Sequence[AgentView]) -> list[AgentView]:
    """Return agents as the gate serves them: slot holders and lenders, paused ones, new ones, each by age."""

    def key(agent: AgentView) -> tuple[int, float, int]:
        rank = 0 if agent.keeps_history else 1 if agent.steps_done else 2
        return rank, agent.admitted_s if agent.admitted_s is not None else math.inf, agent.index

    return sorted(agents, key=key)


def draw_future(
    time_s: float,
    agents: Sequence[AgentView],
    calls: CallPool,
    lives: Lives,
    costs: StepCosts,
    rng: Random,
    *,
    spread: float,
    pool_tokens: float,
    recomputed_frac: float,
) -> Future:
    """Draw one future of agents in the order of the gate; `spread` is of the lives' tail."""
    drawn = draw_agents(time_s, agents, calls, lives, rng, spread=spread, pool_tokens=pool_tokens)
    return future_of(
        drawn,
        costs,
        pool_tokens=pool_tokens,
        newcomer_tokens=calls.newcomer_tokens,
        recomputed_frac=recomputed_frac,
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """Agents with what they will do; `numbers` are their places among all of them.

    Each stands for `scale` of them; `is_cut`: the youngest are left out.
    """

    numbers: tuple[int, ...]
    agents: tuple[FutureAgent, ...]
    scale: int
    is_cut: bool


def draw_agents(
    time_s: float,
    agents: Sequence[AgentView],
    calls: CallPool,
    lives: Lives,
    rng: Random,
    *,
    spread: float,
    pool_tokens: float,
) -> Drawn:
    """Draw what agents will do.

    Of many agents every second, third, ... is drawn and stands for the others too. Where so few fit in the
    pool that this would change how they share it, the youngest are left out instead.
    """
    rests = [lives.draw_rest(agent.steps_done, rng, spread=spread) for agent in agents]
    scale = _scale(agents, sum(rests), pool_tokens, calls.newcomer_tokens)
    first = rng.randrange(scale)
    future: list[FutureAgent] = []
    total = 0
    for agent, rest in list(zip(agents, rests, strict=True))[first::scale]:
        if total > _MOST_CALLS and not agent.keeps_history:
            break
        drawn = calls.draw(agent.agent_id, rest, rng)
        if not agent.steps_done:
            drawn[0] = calls.draw_first(rng)
        future.append(_drawn(agent, drawn, time_s, calls, rng, scale))
        total += rest
    numbers = range(first, len(agents), scale)
    return Drawn(tuple(numbers[: len(future)]), tuple(future), scale, len(future) < len(numbers))


def future_of(
    drawn: Drawn,
    costs: StepCosts,
    *,
    pool_tokens: float,
    newcomer_tokens: float,
    recomputed_frac: float,
) -> Future:
    """Return the future of drawn agents on an engine that costs so much and holds so much."""
    scale = drawn.scale
    thinned = replace(
        costs,
        prefill_token_s=scale * costs.prefill_token_s,
        decode_token_s=scale * costs.decode_token_s,
        context_token_s=scale * costs.context_token_s,
    )
    return Future(
        agents=drawn.agents,
        costs=thinned,
        pool_tokens=pool_tokens / scale,
        newcomer_tokens=newcomer_tokens,
        scale=scale,
        is_cut=drawn.is_cut,
        recomputed_frac=recomputed_frac,
    )


def _scale(agents: Sequence[AgentView], num_calls: int, pool_tokens: float, newcomer_tokens: float) -> int:
    """Return of how many agents one is drawn."""
    contexts = [private_tokens(agent) for agent in agents if agent.steps_done]
    mean_tokens = max(1.0, newcomer_tokens, sum(contexts) / max(1, len(contexts)))
    most = min(pool_tokens / mean_tokens / _LEAST_FITTING, len(agents) / _LEAST_FITTING)
    return max(1, min(math.ceil(num_calls / _MOST_CALLS), int(most)))


def _drawn(
    agent: AgentView, drawn: list[FutureCall], time_s: float, calls: CallPool, rng: Random, scale: int
) -> FutureAgent:
    context = held = float(private_tokens(agent)) if agent.steps_done else 0.0
    is_in = agent.keeps_history
    levels = _levels(agent, scale)
    if agent.is_in_step:
        now, *rest = drawn
        context = context * now.kept_frac + now.new_tokens + now.output_tokens
        left = max(1.0, now.output_tokens * rng.random())
        held = held or calls.newcomer_tokens
        return FutureAgent(
            context, held, is_in, left, now.wait_s, tuple(rest or [now]), levels, agent.heard_s
        )
    idled_s = max(0.0, time_s - agent.heard_s)
    idle_s = calls.draw_idle_s(idled_s, rng) if agent.waiting_since_s is None else 0.0
    return FutureAgent(context, held, is_in, 0.0, idle_s, tuple(drawn), levels, agent.heard_s)


def _levels(agent: AgentView, scale: int) -> tuple[Level, ...]:
    """Return what the agent shares; a fork shares it with the forks of the same parent."""
    if agent.fork is not None:
        return ((f"forks of {agent.fork.group}", agent.fork.tokens / scale),)
    levels = prefix_levels(agent.prefix_group, agent.shared_prefix_tokens, agent.outer_prefixes)
    return tuple((level.group, level.tokens / scale) for level in levels)
