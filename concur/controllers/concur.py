"""CONCUR's law, bare: additive increase, multiplicative decrease of the number of active agents.

Equation 1 of arXiv:2601.22705::

    W[t+1] = W[t] + alpha     if U[t] < U_low
           = W[t] * beta      if U[t] > U_high and H[t] < H_thresh
           = W[t]             otherwise

    alpha = 2    beta = 0.5    U_low = 0.2    U_high = 0.5    H_thresh = 0.2      (fixed in the paper)

U is the KV-cache usage (proactive), H the prefix-cache hit rate (reactive). High usage with healthy hits
is tolerated on purpose. There is no smoothing, no guard against growth while idle (see `AppLimited`) and
no limit on how often it cuts: the paper has none.

What the paper leaves open is a named parameter here, and every default for it is ours: see `ConcurParams`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from concur.controllers.base import ControllerParams, LogValue
from concur.errors import require
from concur.measures.estimators import WindowedHitRate
from concur.signals import UNLIMITED, Snapshot

ROUNDINGS: Final[Mapping[str, Callable[[float], int]]] = {
    "floor": math.floor,
    "nearest": round,
    "ceil": math.ceil,
}
USAGES: Final[Mapping[str, Callable[[Snapshot], float | None]]] = {
    "referenced": lambda snapshot: snapshot.kv_cache_usage_frac,
    "resident": lambda snapshot: snapshot.kv_cache_resident_frac,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurParams(ControllerParams):
    """Parameters of CONCUR.

    From the paper (Eq. 1): `alpha`, `beta`, `u_low_frac`, `u_high_frac`, `h_thresh_frac`.

    Ours, because the paper does not say:

    `interval_s`            5 s between decisions.
    `hit_rate_window_s`     H is taken over this much of the counters' past; 0, the default, is one interval,
                            so that no decision reads the same traffic twice. No traffic in the window: H is
                            unknown, no cut.
    `usage_counts`          which blocks U counts: `referenced` by running requests (vLLM's gauge), or
                            `resident`, which adds cached blocks of idle agents; that one sits near 1 after
                            warm-up, so the window could never grow.
    `initial_window`        W0 = 16: eight increments of alpha, in reach of a small pool's capacity.
    `min_window`            1: the last agent is never stopped.
    `max_window`            no bound.
    `rounding`              of W * beta: `floor`, so that a cut always cuts (1.5 -> 1).
    """

    alpha: int = 2
    beta: float = 0.5
    u_low_frac: float = 0.2
    u_high_frac: float = 0.5
    h_thresh_frac: float = 0.2
    hit_rate_window_s: float = 0.0
    usage_counts: str = "referenced"
    initial_window: int = 16
    min_window: int = 1
    max_window: int = UNLIMITED
    rounding: str = "floor"

    def __post_init__(self) -> None:
        ControllerParams.__post_init__(self)
        require(self.alpha >= 0, "alpha", self.alpha, "at least 0 agents")
        require(0 < self.beta < 1, "beta", self.beta, "between 0 and 1, exclusive", "1 would never cut")
        require(0 <= self.u_low_frac <= 1, "u_low_frac", self.u_low_frac, "a fraction, 0 to 1")
        require(
            self.u_low_frac <= self.u_high_frac <= 1,
            "u_high_frac",
            self.u_high_frac,
            f"between u_low_frac = {self.u_low_frac} and 1",
        )
        require(0 <= self.h_thresh_frac <= 1, "h_thresh_frac", self.h_thresh_frac, "a fraction, 0 to 1")
        require(
            0 <= self.hit_rate_window_s < math.inf,
            "hit_rate_window_s",
            self.hit_rate_window_s,
            "at least 0 s",
        )
        require(self.usage_counts in USAGES, "usage_counts", self.usage_counts, f"one of {', '.join(USAGES)}")
        require(self.rounding in ROUNDINGS, "rounding", self.rounding, f"one of {', '.join(ROUNDINGS)}")
        require(self.min_window >= 1, "min_window", self.min_window, "at least 1")
        require(self.max_window <= UNLIMITED, "max_window", self.max_window, f"at most {UNLIMITED}")
        require(
            self.min_window <= self.initial_window <= self.max_window,
            "initial_window",
            self.initial_window,
            f"between min_window = {self.min_window} and max_window = {self.max_window}",
        )


class Concur:
    """Apply Eq. 1 once per reading."""

    __slots__ = ("_hit_rate", "_hits", "params", "window")
    reads_agents = False

    def __init__(self, params: ConcurParams) -> None:
        self.params = params
        self.window = params.initial_window
        self._hits = WindowedHitRate(params.hit_rate_window_s or params.interval_s)
        self._hit_rate: float | None = None

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions."""
        return self.params.interval_s

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the next window; `active` is not read, as in the paper."""
        p = self.params
        usage = USAGES[p.usage_counts](snapshot)
        self._hit_rate = hit_rate = self._hits.update(
            time_s=snapshot.time_s,
            queries=snapshot.prefix_cache_queries_tokens,
            hits=snapshot.prefix_cache_hits_tokens,
        )
        window = self.window
        if usage is None:  # the engine does not publish this signal: hold
            return window
        if usage < p.u_low_frac:  # additive increase
            window += p.alpha
        elif usage > p.u_high_frac and hit_rate is not None and hit_rate < p.h_thresh_frac:
            window = ROUNDINGS[p.rounding](window * p.beta)  # multiplicative decrease
        self.window = min(max(window, p.min_window), p.max_window)
        return self.window

    def log_state(self) -> dict[str, LogValue]:
        """Return H as the last decision saw it."""
        return {"hit_rate_frac": self._hit_rate}
