"""Vegas (Brakmo and Peterson, 1995), in the form of Netflix's concurrency-limits (`VegasLimit`).

    queue = W * (1 - least work / work)
    W += beta         if queue <= log10(W)
    W += log10(W)     if queue < alpha = 3 log10(W)
    W -= log10(W)     if queue > beta = 6 log10(W)

with log10(W) at least 1. *Work* is tokens computed per token generated (`TokenWork`) in the place of a
round-trip time. Grows only while at least half of the window is in use, as there. Not taken over: the random
probe that forgets the least work now and then; instead it is forgotten after `probe_ticks` (ours), for a
decision is a function of its inputs. Signals: see `TokenWork`.
"""

import math
from dataclasses import dataclass

from concur.controllers.base import ControllerParams, LogValue
from concur.errors import require
from concur.flows import Freshness
from concur.signals import UNLIMITED, Snapshot
from concur.work import TokenWork


@dataclass(frozen=True, slots=True, kw_only=True)
class VegasParams(ControllerParams):
    """Parameters of `vegas`: the start, and after how many readings the least work is learnt anew."""

    initial_window: int = 16
    probe_ticks: int = 120

    def __post_init__(self) -> None:
        ControllerParams.__post_init__(self)
        require(
            1 <= self.initial_window <= UNLIMITED,
            "initial_window",
            self.initial_window,
            f"between 1 and {UNLIMITED}",
        )
        require(self.probe_ticks >= 1, "probe_ticks", self.probe_ticks, "at least 1")


class Vegas:
    """Apply the law of the module docstring once per reading."""

    __slots__ = ("_freshness", "_least", "_limit", "_num_ticks", "_work", "params", "window")
    reads_agents = False

    def __init__(self, params: VegasParams) -> None:
        self.params = params
        self.window = params.initial_window
        self._limit = float(params.initial_window)
        self._freshness = Freshness(params.interval_s)
        self._work = TokenWork()
        self._least: float | None = None
        self._num_ticks = 0

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the next window."""
        is_stale = self._freshness.is_stale(snapshot)
        work = self._work.update(snapshot)
        if is_stale or work is None:
            return self.window
        if math.floor(self._limit) != self.window:  # a wrapper has overruled the last decision
            self._limit = float(self.window)
        self._num_ticks += 1
        if self._least is None or self._num_ticks % self.params.probe_ticks == 0:
            self._least = work
        self._least = min(self._least, work)
        queue = self._limit * (1 - self._least / work)
        change = _change(queue, max(1.0, math.log10(self._limit)))
        if change < 0 or 2 * active >= self.window:
            self._limit = min(self._limit + change, float(UNLIMITED))  # a cut needs 6 agents or more
        self.window = math.floor(self._limit)
        return self.window

    def log_state(self) -> dict[str, LogValue]:
        """Return the least work."""
        return {"least_work": self._least}


def _change(queue: float, unit: float) -> float:
    if queue <= unit:
        return 6 * unit
    if queue < 3 * unit:
        return unit
    return -unit if queue > 6 * unit else 0.0
