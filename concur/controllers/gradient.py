"""Gradient2 of Netflix's concurrency-limits (`Gradient2Limit`).

    gradient = clamp(1.5 * long-term work / work, 0.5, 1)
    W        = 0.8 W + 0.2 (W * gradient + 4)

*Work* is tokens computed per token generated (`TokenWork`) in the place of a round-trip time; its long-term
value is an exponential average over 600 samples, the plain mean of the first ten, taken 5 % smaller
whenever it is more than twice the present one. Changes nothing while less than half of the window is in use,
as there. Signals: see `TokenWork`.
"""

from dataclasses import dataclass
from typing import Final

from concur.controllers.base import LogValue
from concur.measures.work import WorkLaw, WorkLawParams

_TOLERANCE: Final = 1.5
_QUEUE: Final = 4.0
_SMOOTHING: Final = 0.2
_LONG_SAMPLES: Final = 600
_WARM_UP_SAMPLES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientParams(WorkLawParams):
    """Parameters of `gradient`: the start."""


class Gradient(WorkLaw):
    """Apply the law of the module docstring once per reading."""

    __slots__ = ("_long", "_num_samples", "params")

    def __init__(self, params: GradientParams) -> None:
        super().__init__(params)
        self.params = params
        self._long = 0.0
        self._num_samples = 0

    def log_state(self) -> dict[str, LogValue]:
        """Return the long-term work."""
        return {"long_work": self._long}

    def _next_limit(self, work: float, *, is_in_use: bool) -> float:
        long = self._average(work)
        if not is_in_use:
            return self._limit
        gradient = min(max(_TOLERANCE * long / work, 0.5), 1.0)
        wanted = self._limit * gradient + _QUEUE
        return self._limit + _SMOOTHING * (wanted - self._limit)

    def _average(self, work: float) -> float:
        self._num_samples += 1
        weight = 2 / (_LONG_SAMPLES + 1)
        if self._num_samples <= _WARM_UP_SAMPLES:
            weight = 1 / self._num_samples
        self._long += weight * (work - self._long)
        if self._long > 2 * work:
            self._long *= 0.95
        return self._long
