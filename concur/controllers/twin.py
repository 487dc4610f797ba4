"""Ours: run the rest of the batch forward in a model of it, and take the bounds under which it ends soonest.

Every few seconds the law draws some futures of all agents that are here (`concur.twin.drawing`): how many
more calls each will make, from the lives seen so far (`concur.twin.lives`), and what they are like, from the
calls seen so far (`concur.twin.calls`). It runs them forward under a score of policies (`concur.twin.model`),
with step costs fitted to the engine's counters (`concur.twin.costs`), and moves to the best if that is worth
it (`concur.twin.plan`).

What it bounds are the **tokens** that slot holders keep, not their number: agents differ in length, grow, and
are cut, and the pool holds tokens. The pool of the plan is what the engine has, less what strangers hold,
less a twentieth, for the model knows no blocks and no preemptions, and is up to a tenth too fast beyond the
knee. The gate counts what each agent keeps from `usage` and holds the bound by itself, at every call's end,
also between two plans and while the engine's signals are stale.

**Start.** Until calls enough are known the law decides ten times a second, and doubles the window while all
calls run and none is queued: as fast as the engine takes them, and no faster. Running calls may use a quarter
of the pool for themselves: histories grow, and those that do not fit then were computed in vain. Then the
first plan is made. From there on each call that ends opens one slot at most, two a reading at least (TCP's
slow start, RFC 5681).

**An offload tier** makes misses cheap. How many of them it has is measured (`concur.measures.misses`); the
more, the more a tighter bound has to promise, for the model brings histories back in no time.

**Prudence.** On stale signals (`Freshness`), and while calls end without `usage`, nothing moves. `max_wait_s`
is the starvation bound: a slot opens for every agent that has waited longer, and the gate lets overdue agents
in whatever the budget says.

The one randomness is that of the draws, from `seed`, so that decisions repeat on the same readings.
"""

import math
from dataclasses import asdict, dataclass
from typing import Final

from concur.controllers.base import ControllerParams, LogValue
from concur.errors import require
from concur.measures.flows import Freshness
from concur.measures.misses import MissMeter
from concur.measures.residents import (
    Ledger,
    read_ledger,
    shared_tokens,
    stranger_tokens,
)
from concur.measures.usage import calls_without_usage
from concur.measures.waits import open_for_overdue
from concur.signals import UNBOUNDED, UNLIMITED, Snapshot, TokenBudget
from concur.twin.batch import Batch
from concur.twin.costs import CostMeter
from concur.twin.future import Policy
from concur.twin.plan import Planned, Planner

_START: Final = Policy(admit_frac=8.0, slack_frac=0.3, window=UNLIMITED)
_EARLY_S, _EARLY_EVERY_S = 30.0, 4.0  # a plan of a young batch is worth little: plan again soon
_EVERY_FRAC: Final = 0.03  # of the time so far: what is left changes slowly in a long batch
_HURRY_S: Final = 0.1  # between two decisions at the start
_START_FRAC: Final = 0.25  # of the pool, for what runs at the start
_RUNNING_FRAC: Final = 0.75  # some calls have begun since the engine's last step


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinParams(ControllerParams):
    """Parameters of `twin`; none depends on model, pool or workload.

    `interval_s`      1 s: step costs are read off the difference of two readings.
    `plan_every_s`    10 s: between two plans, early ones apart.
    `max_wait_s`      1800 s: the starvation bound, as for `hybrid`.
    `initial_window`  16, as for `concur`.
    `seed`            of the draws.
    """

    interval_s: float = 1.0
    plan_every_s: float = 10.0
    max_wait_s: float = 1800.0
    initial_window: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        ControllerParams.__post_init__(self)
        require(0 < self.plan_every_s < math.inf, "plan_every_s", self.plan_every_s, "greater than 0 s")
        require(self.max_wait_s > 0, "max_wait_s", self.max_wait_s, "greater than 0 s")
        require(1 <= self.initial_window <= UNLIMITED, "initial_window", self.initial_window, "at least 1")


class Twin:
    """Apply the law of the module docstring once per reading."""

    reads_agents = True
    reads_calls = True
    pool_frac = 0.95
    """Of the pool, for the plan; see the module docstring."""

    def __init__(self, params: TwinParams, batch: Batch | None = None, gate: int = 0) -> None:
        self.params = params
        self.window = self._bound = params.initial_window
        self.budget: TokenBudget = UNBOUNDED
        self._policy = _START
        self._planner = Planner(params.seed)
        self._next_plan_s = 0.0
        self._freshness = Freshness(params.interval_s)
        self._costs = CostMeter()
        self._misses = MissMeter()
        self._batch = batch or Batch()
        self._calls, self._lives = self._batch.calls, self._batch.lives
        self._gate = gate
        self._state: dict[str, LogValue] = {}

    @property
    def hurry_s(self) -> float:
        """Seconds after which the law wants to decide again: few while it knows nothing."""
        return math.inf if self._calls.is_known else _HURRY_S

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions."""
        return self.params.interval_s

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the next window; `budget` goes with it."""
        self._bound = min(self._bound, self.window)  # a wrapper may have overruled the last decision
        costs = self._costs.update(snapshot)
        self._misses.update(snapshot)
        num_ended = self._batch.observe(snapshot, self._gate)
        if self._freshness.is_stale(snapshot):
            self._state = {"is_stale": 1}
            return self.window
        if calls_without_usage(snapshot):
            self._state = {"has_usage": 0}
        elif not self._calls.is_known or snapshot.pool_tokens <= 0:
            self._state = {}
            self._begin(snapshot, active)
        else:
            ledger = read_ledger(snapshot.agents, snapshot.block_size)
            pool_tokens = self._pool_tokens(snapshot, ledger)
            self._look_ahead(snapshot, ledger, pool_tokens, active)
            self._state |= {f"{name[:-2]}_us": 1e6 * cost for name, cost in asdict(costs).items()}
            self._bound_by(pool_tokens)
            self._pace(active, num_ended)
        return self._open_for_overdue(snapshot, active)

    def log_state(self) -> dict[str, LogValue]:
        """Return the policy in force, and what the last plan expects."""
        return self._state

    def _pool_tokens(self, snapshot: Snapshot, ledger: Ledger) -> float:
        """Return the tokens that agents can have for themselves."""
        strangers = stranger_tokens(snapshot, ledger, growth_tokens=self._calls.growth_tokens)
        return max(1.0, self.pool_frac * (snapshot.pool_tokens - strangers))

    def _look_ahead(self, snapshot: Snapshot, ledger: Ledger, pool_tokens: float, active: int) -> None:
        """Plan, if it is time to."""
        time_s = snapshot.time_s
        if time_s < self._next_plan_s or len(snapshot.agents) < 2 or not active:
            return
        self._next_plan_s = next_plan_s(time_s, self.params.plan_every_s)
        planned = self._planner.plan(
            snapshot,
            self._policy,
            self._calls,
            self._lives,
            self._costs.costs,
            pool_tokens=pool_tokens,
            recomputed_frac=self._misses.recomputed_frac,
            used_frac=ledger.tokens / pool_tokens,
        )
        self._take(planned, time_s)

    def _take(self, planned: Planned, time_s: float) -> None:
        """Put a plan that was made then in force."""
        self._policy = planned.policy
        self._state = {
            "expected_end_s": time_s + planned.left_s,
            "admit_frac": planned.policy.admit_frac,
            "slack_frac": planned.policy.slack_frac,
            "max_agents": planned.policy.window,
            "expected_ratio": planned.ratio,
        }

    def _bound_by(self, pool_tokens: float) -> None:
        policy = self._policy
        admit_tokens = max(1.0, policy.admit_frac * pool_tokens)
        pause_tokens = admit_tokens * (1.0 + policy.slack_frac)
        self.budget = TokenBudget(admit_tokens, pause_tokens, self._calls.newcomer_tokens)

    def _begin(self, snapshot: Snapshot, active: int) -> None:
        """Double the slots while all calls in them run, none is queued, and the pool is far from full."""
        num_calls = sum([agent.num_calls for agent in snapshot.agents])
        are_running = snapshot.num_requests_running >= _RUNNING_FRAC * num_calls
        is_seen = snapshot.num_requests_running > 0 or snapshot.generation_tokens > 0
        is_free = is_seen and are_running and not snapshot.num_requests_waiting
        if is_free and active >= self._bound:
            used_frac = _private_frac(snapshot)
            fitting = math.floor(active * _START_FRAC / used_frac) if used_frac else UNLIMITED
            self._bound = max(self._bound, min(2 * self._bound, fitting, UNLIMITED))

    def _pace(self, active: int, num_ended: int) -> None:
        """Let the window follow the agents that are in, ahead by the calls that have just ended."""
        self._bound = max(1, min(active + max(2, num_ended), self._policy.window))

    def _open_for_overdue(self, snapshot: Snapshot, active: int) -> int:
        max_wait_s = self.params.max_wait_s
        self.window = open_for_overdue(self._bound, snapshot, active=active, max_wait_s=max_wait_s)
        return self.window


def next_plan_s(time_s: float, plan_every_s: float) -> float:
    """Return when to plan after a plan of now: soon while the batch is young, seldom in a long one."""
    return time_s + (_EARLY_EVERY_S if time_s < _EARLY_S else max(plan_every_s, _EVERY_FRAC * time_s))


def _private_frac(snapshot: Snapshot) -> float:
    """Return the share of the pool that running calls use for themselves: without what agents share."""
    shared = shared_tokens([agent for agent in snapshot.agents if agent.keeps_history])
    return max(0.0, snapshot.kv_cache_usage_frac - shared / max(1, snapshot.pool_tokens))
