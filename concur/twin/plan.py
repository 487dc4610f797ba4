"""Choose the bounds under which the batch ends soonest, on futures drawn from what is known of it."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import median
from typing import Final, TypeVar

from concur.signals import Snapshot
from concur.twin.calls import CallPool
from concur.twin.costs import StepCosts
from concur.twin.drawing import draw_future, in_order
from concur.twin.future import Future, FutureAgent, Policy
from concur.twin.lives import SPREADS, Lives
from concur.twin.model import Outcome, Rollout

_T = TypeVar("_T")
_MOST_FUTURES: Final = 3 * len(SPREADS)
_MOST_CALLS: Final = 2000  # of all futures: those of few agents differ much, and cost little
_NUM_PROMISING: Final = 5  # policies that are tried on more than one future
_AFAR: Final = (0.5, 0.7, 0.85, 1.0, 1.3, 1.8, 3.0)  # budgets that every third plan looks at, wherever it is
_WINDOWS: Final = (0.7, 0.85, 1.2, 1.5)
_SLACKS: Final = (0.12, 0.3, 0.6, 1.5)
_LEAST_FRAC, _MOST_FRAC = 0.05, 8.0
_WORTH_IT: Final = 0.006  # gain below which the nearest policy is kept
_CUT_COSTS: Final = 1.012  # what a window below the agents that are in has to make up for
_RELOAD_COSTS: Final = 1.04  # what a tighter bound has to make up for where every miss is reloaded

STEPS: Final = (0.72, 0.85, 0.93, 1.08, 1.2, 1.45)
"""What a plan tries, times the budget in force."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A policy, its median cost as a multiple of the one before, and the median of the seconds left."""

    policy: Policy
    ratio: float
    left_s: float


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
        recomputed_frac: float,
    ) -> Planned:
        """Return the best policy near the one in force, or that one if none is worth a change."""
        agents = in_order(snapshot.agents)
        futures: list[Future] = []
        while wants_more([each.agents for each in futures]):
            number = len(futures)
            futures.append(
                draw_future(
                    snapshot.time_s,
                    agents,
                    calls,
                    lives,
                    costs,
                    Random(f"{self._seed}/{self.num_plans}/{number}"),
                    spread=SPREADS[number % len(SPREADS)],
                    pool_tokens=pool_tokens,
                    recomputed_frac=recomputed_frac,
                )
            )
        self.num_plans += 1
        active = sum(agent.holds_slot for agent in agents)
        trials = [_Trials(future) for future in futures]
        before = [each.outcome(policy).cost_s for each in trials]

        def ratio(each: Policy, number: int) -> float:
            """Return its cost as a multiple of that of the policy in force, in one of the futures."""
            of_model = trials[number].outcome(each).cost_s / before[number]
            return of_model * handicap(each, policy, active=active, recomputed_frac=recomputed_frac)

        tried = self._tried(policy, active, len(agents), used_frac)
        best, score = choose(policy, tried, ratio, len(futures), distance)
        return Planned(best, score, median([each.outcome(best).left_s for each in trials]))

    def _tried(self, policy: Policy, active: int, num_agents: int, used_frac: float) -> Iterator[Policy]:
        return near(policy, active, num_agents, used_frac, self.num_plans)


def near(policy: Policy, active: int, num_agents: int, used_frac: float, num_plans: int) -> Iterator[Policy]:
    """Yield what a plan tries around the policy in force; every third one looks far away too."""
    yield from (with_budget(policy, policy.admit_frac * step) for step in STEPS)
    yield with_budget(policy, used_frac)
    if num_plans % 3 == 1:
        yield from (with_budget(policy, frac) for frac in _AFAR)
    window = min(policy.window, num_agents, math.ceil(1.3 * max(active, 1)))
    for step in _WINDOWS:
        yield replace(policy, window=max(1, min(num_agents, round(window * step))))
    yield replace(policy, window=max(1, num_agents))
    for slack in _SLACKS:
        yield replace(policy, slack_frac=slack)


def with_budget(policy: Policy, admit_frac: float) -> Policy:
    """Return a policy with another budget, as far as budgets go."""
    return replace(policy, admit_frac=min(_MOST_FRAC, max(_LEAST_FRAC, admit_frac)))


def handicap(policy: Policy, in_force: Policy, *, active: int, recomputed_frac: float) -> float:
    """Return what the cost of a policy is multiplied by, because of what the model leaves out.

    It brings histories back from a tier in no time; an engine does not, and they hold blocks meanwhile. So
    where misses are reloaded, fewer agents leave steps unfilled, and a tighter bound has to promise more.
    """
    cuts_window = policy.window < min(active, in_force.window)
    one, other = (policy.admit_frac, policy.slack_frac), (in_force.admit_frac, in_force.slack_frac)
    factor = _CUT_COSTS if cuts_window else 1.0
    if cuts_window or one < other:
        factor *= 1.0 + (_RELOAD_COSTS - 1.0) * (1.0 - recomputed_frac)
    return factor


class _Trials:
    """Policies tried on one future; one that would decide as another did is not run again."""

    def __init__(self, future: Future) -> None:
        self._future = future
        self._runs: list[tuple[Rollout, Outcome]] = []

    def outcome(self, policy: Policy) -> Outcome:
        """Return what becomes of the future under a policy."""
        for rollout, outcome in self._runs:
            if rollout.agrees(policy):
                return outcome
        rollout = Rollout(self._future, policy)
        outcome = rollout.run()
        self._runs.append((rollout, outcome))
        return outcome


def wants_more(futures: Sequence[Sequence[FutureAgent]]) -> bool:
    """Tell whether to draw one more: one of each spread at least, more while that costs little."""
    num_calls = sum([len(agent.calls) for agents in futures for agent in agents])
    number = len(futures)
    return number % len(SPREADS) > 0 or (number < _MOST_FUTURES and num_calls < _MOST_CALLS)


def choose(
    in_force: _T,
    tried: Iterable[_T],
    ratio: Callable[[_T, int], float],
    num_futures: int,
    how_far: Callable[[_T, _T], float],
) -> tuple[_T, float]:
    """Return the best of what is tried, and its median ratio: the nearest of those that are as good.

    All are tried on the first future, the promising ones on every other one too.
    """
    first = {each: ratio(each, 0) for each in tried}
    promising = sorted(first, key=lambda each: first[each])[:_NUM_PROMISING]
    others = range(1, num_futures)
    scores = {each: median([first[each], *[ratio(each, number) for number in others]]) for each in promising}
    scores[in_force] = 1.0
    least = min(scores.values())
    close = [each for each in scores if scores[each] <= (1 + _WORTH_IT) * least]
    best = min(close, key=lambda each: (how_far(each, in_force), scores[each]))
    return best, scores[best]


def distance(one: Policy, other: Policy) -> float:
    """Return how far two policies are from each other."""
    return (
        abs(math.log(one.admit_frac / other.admit_frac))
        + 0.5 * abs(math.log(one.window / other.window))
        + 0.2 * abs(math.log(one.slack_frac / other.slack_frac))
    )
