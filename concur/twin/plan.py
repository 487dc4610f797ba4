"""Choose the bounds under which the batch ends soonest, on futures drawn from what is known of it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from concur.measures.prefixes import prefix_levels
from concur.measures.residents import private_tokens
from concur.signals import AgentView, Snapshot
from concur.twin.calls import CallPool
from concur.twin.costs import StepCosts
from concur.twin.future import FutureAgent, FutureCall, Policy
from concur.twin.lives import Lives
from concur.twin.model import Rollout

NUM_FUTURES: Final = 3
_NUM_PROMISING: Final = 5  # policies that are tried on more than one future
_MOST_CALLS: Final = 500  # of one future; agents beyond it are left out, the youngest first
_STEPS: Final = (0.72, 0.85, 0.93, 1.08, 1.2, 1.45)  # times the budget in force
_AFAR: Final = (0.5, 0.7, 0.85, 1.0, 1.3, 1.8, 3.0)  # budgets that every third plan looks at, wherever it is
_WINDOWS: Final = (0.7, 0.85, 1.2, 1.5)
_SLACKS: Final = (0.12, 0.3, 0.6, 1.5)
_LEAST_FRAC, _MOST_FRAC = 0.05, 8.0
_WORTH_IT: Final = 0.006  # gain below which the nearest policy is kept
_CUT_COSTS: Final = 1.012  # what a window below the agents that are in has to make up for


@dataclass(frozen=True, slots=True)
class Planned:
    """A policy, the seconds that the batch is expected to take under it, and under the one before."""

    policy: Policy
    expected_s: float
    before_s: float


class Planner:
    """Draw futures and try policies on them, all on the same ones; the seed makes plans repeatable."""

    def __init__(self, seed: int) -> None:
        self.num_plans = 0
        self._seed = seed

    def plan(
        self,
        snapshot: Snapshot,
        policy: Policy,
        calls: CallPool,
        lives: Lives,
        costs: StepCosts,
        *,
        pool_tokens: float,
        used_frac: float,
    ) -> Planned:
        """Return the best policy near the one in force, or that one if none is worth a change."""
        agents = in_order(snapshot.agents)
        futures = [
            draw_future(
                snapshot.time_s, agents, calls, lives, Random(f"{self._seed}/{self.num_plans}/{number}")
            )
            for number in range(NUM_FUTURES)
        ]
        self.num_plans += 1
        active = sum(agent.holds_slot for agent in agents)
        newcomer_tokens = calls.newcomer_tokens

        def cost_of(each: Policy, some: Sequence[list[FutureAgent]]) -> float:
            rollouts = [
                Rollout(
                    future,
                    each,
                    costs,
                    pool_tokens=pool_tokens,
                    newcomer_tokens=newcomer_tokens,
                    is_cut=len(future) < len(agents),
                )
                for future in some
            ]
            cuts_window = each.window < active and each.window < policy.window
            cost_s = sum([rollout.run().cost_s for rollout in rollouts]) / len(some)
            return cost_s * (_CUT_COSTS if cuts_window else 1.0)

        tried = set(self._tried(policy, active, len(agents), used_frac))
        first = {each: cost_of(each, futures[:1]) for each in tried}
        promising = sorted(first, key=lambda each: first[each])[:_NUM_PROMISING]
        scores = {
            each: (first[each] + (NUM_FUTURES - 1) * cost_of(each, futures[1:])) / NUM_FUTURES
            for each in {policy, *promising}
        }
        least_s = min(scores.values())
        close = [each for each in scores if scores[each] <= (1 + _WORTH_IT) * least_s]
        best = min(close, key=lambda each: (_distance(each, policy), scores[each]))
        return Planned(best, scores[best], scores[policy])

    def _tried(self, policy: Policy, active: int, num_agents: int, used_frac: float) -> Iterator[Policy]:
        yield policy
        fracs = [policy.admit_frac * step for step in _STEPS] + [used_frac]
        if self.num_plans % 3 == 1:
            fracs += _AFAR
        for frac in fracs:
            yield replace(policy, admit_frac=min(_MOST_FRAC, max(_LEAST_FRAC, frac)))
        window = min(policy.window, num_agents, math.ceil(1.3 * max(active, 1)))
        for step in _WINDOWS:
            yield replace(policy, window=max(1, min(num_agents, round(window * step))))
        yield replace(policy, window=max(1, num_agents))
        for slack in _SLACKS:
            yield replace(policy, slack_frac=slack)


def in_order(agents: Sequence[AgentView]) -> list[AgentView]:
    """Return agents as the gate serves them: slot holders and lenders, paused ones, new ones, each by age."""

    def key(agent: AgentView) -> tuple[int, float, int]:
        rank = 0 if agent.keeps_history else 1 if agent.steps_done else 2
        return rank, agent.admitted_s if agent.admitted_s is not None else math.inf, agent.index

    return sorted(agents, key=key)


def draw_future(
    time_s: float, agents: Sequence[AgentView], calls: CallPool, lives: Lives, rng: Random
) -> list[FutureAgent]:
    """Draw one future of the agents, in the order of the gate."""
    future: list[FutureAgent] = []
    total = 0
    for agent in agents:
        if total > _MOST_CALLS and not agent.keeps_history:
            break
        number = lives.draw_rest(agent.steps_done, rng)
        drawn = calls.draw(agent.agent_id, number, rng)
        if not agent.steps_done:
            drawn[0] = calls.draw_first(rng)
        future.append(_drawn(agent, drawn, time_s, calls, rng))
        total += number
    return future


def _drawn(
    agent: AgentView, drawn: list[FutureCall], time_s: float, calls: CallPool, rng: Random
) -> FutureAgent:
    context = held = float(private_tokens(agent)) if agent.steps_done else 0.0
    is_in = agent.keeps_history
    levels = _levels(agent)
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


def _levels(agent: AgentView) -> tuple[tuple[str, float], ...]:
    """Return what the agent shares; a fork shares it with the forks of the same parent."""
    if agent.fork is not None:
        return ((f"forks of {agent.fork.group}", float(agent.fork.tokens)),)
    levels = prefix_levels(agent.prefix_group, agent.shared_prefix_tokens, agent.outer_prefixes)
    return tuple((level.group, float(level.tokens)) for level in levels)


def _distance(one: Policy, other: Policy) -> float:
    return (
        abs(math.log(one.admit_frac / other.admit_frac))
        + 0.5 * abs(math.log(one.window / other.window))
        + 0.2 * abs(math.log(one.slack_frac / other.slack_frac))
    )
