"""Ours: a ledger of resident agents bounds the window ahead of time, the engine's own signals correct it.

An agent keeps its history in the KV cache for as long as it has a slot; so the pool P (tokens) must hold

    shared prefixes, each once  +  W * p  +  R  +  S  <=  P

with p the private tokens of an agent, R what must stay free, and S what strangers hold. All are measured:

*Private tokens.* Now, p = (sum of private contexts + g per call in flight) / agents, with g the mean growth
of a context per call. This bound, `fit`, pauses agents when it falls below the number active. Growing by it
alone would admit a cohort while it is young and pay when it has aged; therefore growth has a second bound,
`sustained`, with p the mean over whole lives, call by call, of the agents that left in the last turnover (as
many departures as agents are in). Until a whole turnover was seen, the missing share is filled with the mean
over the life of the furthest agent, f + g' * n: f tokens after the first call, g' more in the mean after each
later one, in the middle of 2 n calls, because a life that has lasted n calls will last about as long again
(the median under a scale-free prior; Gott, Nature 363, 1993).

*Free room.* R = A + F. In an LRU cache an idle history survives a tool wait if fewer tokens than are free
are allocated meanwhile (Denning's working set, CACM 11, 1968). A = `tool_waits` * mean tool wait * tokens
allocated per second, from the engine's counters: uncached plus generated. Misses allocate; so a collapse
raises A and shrinks the window by itself: this is the feedback of the hit rate. The mean tool wait is
Little's law: idle agent-seconds / calls. F is the net growth of the private tokens over the time that a cut
needs to act: one interval plus one mean call (busy agent-seconds / calls), for no running call is ever
cancelled; it counts against `fit` alone, for over whole lives growth is in p already.

*Strangers.* S = blocks referenced by running requests, less those of our agents in a call: callers that pass
no gate take from the pool, and are seen in the usage gauge only.

*An offload tier* gives histories back. If a share r of the misses is computed again (1 without a tier, see
`concur.measures.misses`) and the rest reloaded, P counts as P / r: what comes back need not stay. Reloaded
tokens are no distress.

Growth is paced by turnover: each call that ends brings evidence and opens at most one more slot, one a
reading at least (the slow start of TCP, RFC 5681). What it has to pace are histories; so where n agents
have left and nobody has come back for a second call, a call opens n + 2 slots, for by the rule of
succession one newcomer in n + 2 is expected to come back (Laplace). It waits until a cut has drained, and
is vetoed while the engine shows distress: tokens computed again beyond `shortfall_frac` of all prompt
tokens (the hit rate against the ideal one: what prompts bring beyond what their agents had, histories that
were cut included, is all that has to be prefilled), or more than half as many requests queued in the engine
as run (prime-rl's ratio). If distress, or preemptions, last for `window_s` although nothing drains, the
ledger misses something: the usable pool is taken 10 % smaller (prime-rl's factor), and given back by 1 % a
reading once it is quiet and the window is used. On stale signals (see `Freshness`) nothing moves, nor
while calls end without `usage`: without contexts there is no ledger (`has_usage` = 0).

Starvation bound: `max_wait_s`. A slot opens for every agent that has waited longer, beside those who are in,
and the gate lets those in first if its own bound is the same; so each gets its step within one interval more.
The surplus then pauses at its next step boundary. A bound that the pool cannot honour costs recomputation.

Everything is ours but where a source is named. The law says how many; who pauses is the gate's order.
"""

import math
from dataclasses import dataclass
from typing import Final

from concur.controllers.base import ControllerParams, LogValue
from concur.errors import require
from concur.measures.flows import FlowMeter, Flows, FlowWindow, Freshness
from concur.measures.misses import MissMeter
from concur.measures.residents import Ledger, read_ledger, stranger_tokens
from concur.measures.usage import calls_without_usage
from concur.measures.waits import open_for_overdue
from concur.signals import UNLIMITED, Snapshot

_LINDY: Final = 2.0  # a life that has lasted n lasts 2 n in all
_QUEUE_RATIO: Final = 0.5  # prime-rl: requests queued over requests running
_CUT: Final = 0.9  # prime-rl: one cut for a queue that stays
_MIN_USABLE_FRAC: Final = 0.5
_RESTORE: Final = 1.01  # per reading


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridParams(ControllerParams):
    """Parameters of `hybrid`; none depends on model, pool or workload.

    `interval_s`      1 s: the ledger is exact at any time; the rates are taken over `window_s`.
    `window_s`        20 s: rates and feedback are averages over this much of the past.
    `tool_waits`      2: histories survive waits of twice the mean (86 % of exponential ones).
    `shortfall_frac`  0.3: recomputed share of the prompt tokens that vetoes growth.
    `max_wait_s`      1800 s (ThunderAgent's forced resume): the starvation bound.
    `initial_window`  16, as for `concur`; nothing is known before the first calls end.
    """

    interval_s: float = 1.0
    window_s: float = 20.0
    tool_waits: float = 2.0
    shortfall_frac: float = 0.3
    max_wait_s: float = 1800.0
    initial_window: int = 16
    max_window: int = UNLIMITED

    def __post_init__(self) -> None:
        ControllerParams.__post_init__(self)
        require(0 < self.window_s < math.inf, "window_s", self.window_s, "greater than 0 s")
        require(0 <= self.tool_waits < math.inf, "tool_waits", self.tool_waits, "at least 0")
        require(0 < self.shortfall_frac <= 1, "shortfall_frac", self.shortfall_frac, "in (0, 1]")
        require(self.max_wait_s > 0, "max_wait_s", self.max_wait_s, "greater than 0 s")
        require(self.max_window <= UNLIMITED, "max_window", self.max_window, f"at most {UNLIMITED}")
        require(
            1 <= self.initial_window <= self.max_window,
            "initial_window",
            self.initial_window,
            f"between 1 and max_window = {self.max_window}",
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many agents fit: `fit` by what they hold now, `sustained` by what they hold over their lives."""

    fit: float
    sustained: float


class Hybrid:
    """Apply the law of the module docstring once per reading."""

    __slots__ = (
        "_bound",
        "_distress_since_s",
        "_freshness",
        "_meter",
        "_misses",
        "_recent",
        "_state",
        "_turnover",
        "_usable_frac",
        "params",
        "window",
    )
    reads_agents = True

    def __init__(self, params: HybridParams) -> None:
        self.params = params
        self.window = self._bound = params.initial_window
        self._freshness = Freshness(params.interval_s)
        self._meter = FlowMeter()
        self._misses = MissMeter()
        self._recent = FlowWindow()
        self._turnover = FlowWindow()
        self._usable_frac = 1.0
        self._distress_since_s: float | None = None
        self._state: dict[str, LogValue] = {}

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions."""
        return self.params.interval_s

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the next window."""
        self._bound = min(self._bound, self.window)  # a wrapper may have overruled the last decision
        steps_before = self._meter.now.steps
        ledger = read_ledger(snapshot.agents, snapshot.block_size)
        flows = self._meter.update(snapshot, ledger)
        self._misses.update(snapshot)
        begin_s = snapshot.time_s - self.params.window_s
        recent = self._recent.update(flows, is_old_enough=lambda then: then.time_s <= begin_s)
        turned = flows.departures - ledger.num_agents
        turnover = self._turnover.update(flows, is_old_enough=lambda then: then.departures <= turned)
        if self._freshness.is_stale(snapshot):
            self._distress_since_s = None
            self._state = {"is_stale": 1}
            return self.window
        if calls_without_usage(snapshot):
            self._state = {"has_usage": 0}
            return self._open_for_overdue(snapshot, active)
        if not ledger.num_agents or not recent.steps or snapshot.pool_tokens <= 0:
            self._state = {}
            return self._open_for_overdue(snapshot, active)  # nothing is known yet
        has_distress = self._judge(snapshot, recent, active)
        bounds = self._bounds(snapshot, ledger, recent, turnover)
        pace = (flows.steps - steps_before) * _per_call(ledger, recent)
        self._move(bounds, pace=pace, active=active, may_grow=not has_distress)
        return self._open_for_overdue(snapshot, active)

    def log_state(self) -> dict[str, LogValue]:
        """Return the bounds and measurements of the last decision."""
        return self._state

    def _bounds(self, snapshot: Snapshot, ledger: Ledger, recent: Flows, turnover: Flows) -> Bounds:
        p = self.params
        agents, pool_tokens = ledger.num_agents, snapshot.pool_tokens
        growth = recent.grown_tokens / recent.steps  # g
        in_call = growth * ledger.num_calls
        strangers = stranger_tokens(snapshot, ledger, growth_tokens=growth)
        per_s = (recent.uncached_tokens + recent.generated_tokens) / recent.time_s
        allocated = p.tool_waits * (recent.idle_s / recent.steps) * per_s  # A
        delay_s = p.interval_s + recent.busy_s / recent.steps
        ahead = max(0.0, recent.net_private_tokens / recent.time_s) * delay_s  # F
        usable_tokens = pool_tokens * self._usable_frac / self._misses.recomputed_frac
        room = usable_tokens - ledger.shared_tokens - strangers - allocated
        per_agent = (ledger.private_tokens + in_call) / agents
        lifelong = self._lifelong_tokens(ledger, recent, turnover)
        self._state |= {
            "growth_tokens": growth,
            "allocated_tokens": allocated,
            "ahead_tokens": ahead,
            "stranger_tokens": strangers,
            "per_agent_tokens": per_agent,
            "lifelong_tokens": lifelong,
            "usable_frac": self._usable_frac,
        }
        return Bounds(fit=(room - ahead) / max(1.0, per_agent), sustained=room / max(1.0, lifelong))

    def _lifelong_tokens(self, ledger: Ledger, recent: Flows, turnover: Flows) -> float:
        """Return the private tokens of an agent, averaged over its life as far as that is known."""
        seen = turnover.ended_call_tokens / turnover.ended_calls if turnover.ended_calls else 0.0
        known_frac = min(1.0, turnover.departures / ledger.num_agents)
        first, later = _sizes(self._meter.now, recent)
        expected = first + later * _LINDY / 2 * ledger.oldest_steps
        return max(seen, known_frac * seen + (1.0 - known_frac) * expected)

    def _judge(self, snapshot: Snapshot, recent: Flows, active: int) -> bool:
        """Tell whether the engine is in distress, and take the pool for smaller if it stays so."""
        shortfall: float | None = None
        if recent.queried_tokens and recent.told_calls:
            needed = recent.new_tokens * recent.steps / recent.told_calls  # of all calls, told or not
            computed_tokens = recent.uncached_tokens - recent.reloaded_tokens
            shortfall = max(0.0, computed_tokens - needed) / recent.queried_tokens
        is_queueing = snapshot.num_requests_waiting > _QUEUE_RATIO * snapshot.num_requests_running
        has_distress = is_queueing or (shortfall is not None and shortfall > self.params.shortfall_frac)
        self._state = {"shortfall_frac": shortfall, "has_distress": int(has_distress)}
        self._correct(snapshot.time_s, has_distress or recent.preemptions > 0, active)
        return has_distress

    def _correct(self, time_s: float, is_bad: bool, active: int) -> None:
        if not is_bad or active > self.window:
            self._distress_since_s = None
            if not is_bad and active >= self.window:
                self._usable_frac = min(1.0, self._usable_frac * _RESTORE)
        elif self._distress_since_s is None:
            self._distress_since_s = time_s
        elif time_s - self._distress_since_s >= self.params.window_s:
            self._usable_frac = max(_MIN_USABLE_FRAC, self._usable_frac * _CUT)
            self._distress_since_s = time_s

    def _move(self, bounds: Bounds, *, pace: int, active: int, may_grow: bool) -> None:
        fit = max(1, math.floor(min(bounds.fit, UNLIMITED)))
        goal = max(1, math.floor(min(bounds.fit, bounds.sustained, UNLIMITED)))
        if goal > self._bound:
            if may_grow and active <= self._bound:  # nothing drains
                self._bound = min(goal, self._bound + max(1, pace), self.params.max_window)
        elif fit < min(self._bound, active):
            self._bound = fit
        self._state |= {"fit": bounds.fit, "sustained": bounds.sustained}

    def _open_for_overdue(self, snapshot: Snapshot, active: int) -> int:
        max_wait_s = self.params.max_wait_s
        self.window = open_for_overdue(self._bound, snapshot, active=active, max_wait_s=max_wait_s)
        return self.window


def _per_call(ledger: Ledger, recent: Flows) -> int:
    """Return how many slots a call that ended may open: one, or more where nobody ever comes back."""
    comes_back = ledger.oldest_steps > 0 or recent.steps > recent.departures
    return 1 if comes_back else recent.departures + 2


def _sizes(so_far: Flows, recent: Flows) -> tuple[float, float]:
    """Return the mean tokens after a first call, and those that a later one adds; none seen: as many."""
    mean = recent.grown_tokens / recent.steps
    first = so_far.first_tokens / so_far.first_calls if so_far.first_calls else mean
    later_calls = recent.steps - recent.first_calls
    if later_calls <= 0:
        return first, first
    return first, max(0.0, recent.grown_tokens - recent.first_tokens) / later_calls
