"""Gradient2 of Netflix's concurrency-limits (`Gradient2Limit`).

    gradient = clamp(1.5 * long-term work / work, 0.5, 1)
    W        = 0.8 W + 0.2 (W * gradient + 4)

*Work* is tokens computed per token generated (`TokenWork`) in the place of a round-trip time; its long-term
value is an exponential average over 600 samples, the plain mean of the first ten, taken 5 % smaller
whenever it is more than twice the present one. Changes nothing while less than half of the window is in use,
as there. Signals: see `TokenWork`.
"""

import math
from dataclasses import dataclass
from typing import Final

from concur.controllers.base import ControllerParams, LogValue
from concur.errors import require
from concur.flows import Freshness
from concur.signals import UNLIMITED, Snapshot
from concur.work import TokenWork

_TOLERANCE: Final = 1.5
_QUEUE: Final = 4.0
_SMOOTHING: Final = 0.2
_LONG_SAMPLES: Final = 600
_WARM_UP_SAMPLES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientParams(ControllerParams):
    """Parameters of `gradient`: the start."""

    initial_window: int = 16

    def __post_init__(self) -> None:
        ControllerParams.__post_init__(self)
        require(
            1 <= self.initial_window <= UNLIMITED,
            "initial_window",
            self.initial_window,
            f"between 1 and {UNLIMITED}",
        )


class Gradient:
    """Apply the law of the module docstring once per reading."""

    __slots__ = ("_freshness", "_limit", "_long", "_num_samples", "_work", "params", "window")
    reads_agents = False

    def __init__(self, params: GradientParams) -> None:
        self.params = params
        self.window = params.initial_window
        self._limit = float(params.initial_window)
        self._freshness = Freshness(params.interval_s)
        self._work = TokenWork()
        self._long = 0.0
        self._num_samples = 0

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the next window."""
        is_stale = self._freshness.is_stale(snapshot)
        work = self._work.update(snapshot)
        if is_stale or work is None:
            return self.window
        if math.floor(self._limit) != self.window:  # a wrapper has overruled the last decision
            self._limit = float(self.window)
        long = self._average(work)
        if 2 * active >= self.window:
            gradient = min(max(_TOLERANCE * long / work, 0.5), 1.0)
            wanted = self._limit * gradient + _QUEUE
            self._limit = min(self._limit + _SMOOTHING * (wanted - self._limit), float(UNLIMITED))
        self.window = math.floor(self._limit)
        return self.window

    def log_state(self) -> dict[str, LogValue]:
        """Return the long-term work."""
        return {"long_work": self._long}

    def _average(self, work: float) -> float:
        self._num_samples += 1
        weight = 2 / (_LONG_SAMPLES + 1)
        if self._num_samples <= _WARM_UP_SAMPLES:
            weight = 1 / self._num_samples
        self._long += weight * (work - self._long)
        if self._long > 2 * work:
            self._long *= 0.95
        return self._long
