"""One plan of a whole fleet: a budget for each engine, found together.

First the engines' budgets are moved together, as one engine's are (`concur.twin.plan`), then those of some
engines one by one, in turn from plan to plan. Everything is tried on the same futures of all agents, each
with its engine, where its history is; what counts is the end of the whole batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Final

from concur.signals import AgentView
from concur.twin.calls import CallPool
from concur.twin.costs import StepCosts
from concur.twin.drawing import Drawn, draw_agents, future_of, in_order
from concur.twin.fleet_model import FleetFuture, FleetRollout
from concur.twin.future import Policy
from concur.twin.lives import SPREADS, Lives
from concur.twin.model import Outcome
from concur.twin.plan import STEPS, Planned, choose, distance, handicap, near, wants_more, with_budget

Policies = tuple[Policy, ...]
_NUM_ALONE: Final = 4  # engines whose budgets a plan moves one by one


@dataclass(frozen=True, slots=True)
class Part:
    """One engine of a fleet at the moment of the plan; see `Planner.plan` for what is in it."""

    agents: tuple[AgentView, ...]
    policy: Policy
    costs: StepCosts
    pool_tokens: float
    used_frac: float
    recomputed_frac: float

    @property
    def active(self) -> int:
        """Number of slots that are taken."""
        return sum(agent.holds_slot for agent in self.agents)


class FleetPlanner:
    """Draw futures of a fleet and try budgets on them; the seed makes plans repeatable.

    `move_after_s`: after which wait agents go elsewhere, `None` where they stay.
    """

    def __init__(self, seed: int, *, move_after_s: float | None) -> None:
        self.num_plans = 0
        self._seed = seed
        self._move_after_s = move_after_s

    def plan(self, time_s: float, parts: Sequence[Part], calls: CallPool, lives: Lives) -> list[Planned]:
        """Return the best policy for each of the engines, near those in force."""
        trials = self._draw(time_s, parts, calls, lives)
        in_force: Policies = tuple(part.policy for part in parts)
        before = [each.outcome(in_force) for each in trials]

        def ratio(each: Policies, number: int) -> float:
            """Return its cost as a multiple of that of the policies in force, in one of the futures."""
            return trials[number].outcome(each).cost_s / before[number].cost_s * _handicap(each, parts)

        number = self.num_plans
        self.num_plans += 1
        tried = list(_together(parts, number))
        best, score = choose(in_force, tried, ratio, len(trials), _distance)
        for index in _in_turn(len(parts), number):
            at = best

            def against(each: Policies, number: int, at: Policies = at) -> float:
                return ratio(each, number) / ratio(at, number)

            best, gain = choose(at, _alone(at, index), against, len(trials), _distance)
            score *= gain
        left_s = median([each.outcome(best).left_s for each in trials])
        return [Planned(policy, score, left_s) for policy in best]

    def _draw(
        self, time_s: float, parts: Sequence[Part], calls: CallPool, lives: Lives
    ) -> "list[_FleetTrials]":
        home = {agent.agent_id: number for number, part in enumerate(parts) for agent in part.agents}
        agents = in_order([agent for part in parts for agent in part.agents])
        drawn: list[Drawn] = []
        while wants_more([each.agents for each in drawn]):
            number = len(drawn)
            drawn.append(
                draw_agents(
                    time_s,
                    agents,
                    calls,
                    lives,
                    Random(f"{self._seed}/{self.num_plans}/{number}"),
                    spread=SPREADS[number % len(SPREADS)],
                    pool_tokens=min(part.pool_tokens for part in parts),
                )
            )
        return [
            _FleetTrials(
                FleetFuture(
                    tuple(
                        future_of(
                            each,
                            part.costs,
                            pool_tokens=part.pool_tokens,
                            newcomer_tokens=calls.newcomer_tokens,
                            recomputed_frac=part.recomputed_frac,
                        )
                        for part in parts
                    ),
                    tuple(home[agents[place].agent_id] for place in each.numbers),
                ),
                self._move_after_s,
            )
            for each in drawn
        ]


class _FleetTrials:
    """Policies tried on one future; those that would decide as others did are not run again."""

    def __init__(self, future: FleetFuture, move_after_s: float | None) -> None:
        self._future = future
        self._move_after_s = move_after_s
        self._runs: list[tuple[FleetRollout, Outcome]] = []

    def outcome(self, policies: Policies) -> Outcome:
        """Return what becomes of the future under these policies."""
        for rollout, outcome in self._runs:
            if rollout.agrees(policies):
                return outcome
        rollout = FleetRollout(self._future, policies, move_after_s=self._move_after_s)
        outcome = rollout.run()
        self._runs.append((rollout, outcome))
        return outcome


def _together(parts: Sequence[Part], num_plans: int) -> Iterator[Policies]:
    """Yield policies that change all engines in the same way."""
    everybody = sum(len(part.agents) for part in parts)
    yield from zip(
        *[near(part.policy, part.active, everybody, part.used_frac, num_plans) for part in parts],
        strict=True,
    )


def _alone(policies: Policies, index: int) -> Iterator[Policies]:
    """Yield policies that change the budget of one engine."""
    own = policies[index]
    for step in STEPS:
        changed = with_budget(own, own.admit_frac * step)
        yield (*policies[:index], changed, *policies[index + 1 :])


def _in_turn(num_parts: int, num_plans: int) -> list[int]:
    number = min(num_parts, _NUM_ALONE)
    return [(num_plans * number + each) % num_parts for each in range(number)]


def _handicap(policies: Policies, parts: Sequence[Part]) -> float:
    return max(
        handicap(each, part.policy, active=part.active, recomputed_frac=part.recomputed_frac)
        for each, part in zip(policies, parts, strict=True)
    )


def _distance(one: Policies, other: Policies) -> float:
    return sum([distance(each, another) for each, another in zip(one, other, strict=True)])
