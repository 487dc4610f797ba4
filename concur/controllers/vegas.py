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

from concur.controllers.base import LogValue
from concur.errors import require
from concur.measures.work import WorkLaw, WorkLawParams


@dataclass(frozen=True, slots=True, kw_only=True)
class VegasParams(WorkLawParams):
    """Parameters of `vegas`: the start, and after how many readings the least work is learnt anew."""

    probe_ticks: int = 120

    def __post_init__(self) -> None:
        WorkLawParams.__post_init__(self)
        require(self.probe_ticks >= 1, "probe_ticks", self.probe_ticks, "at least 1")


class Vegas(WorkLaw):
    """Apply the law of the module docstring once per reading."""

    __slots__ = ("_least", "_num_ticks", "params")

    def __init__(self, params: VegasParams) -> None:
        super().__init__(params)
        self.params = params
        self._least: float | None = None
        self._num_ticks = 0

    def log_state(self) -> dict[str, LogValue]:
        """Return the least work."""
        return {"least_work": self._least}

    def _next_limit(self, work: float, *, is_in_use: bool) -> float:
        self._num_ticks += 1
        if self._least is None or self._num_ticks % self.params.probe_ticks == 0:
            self._least = work
        self._least = min(self._least, work)
        queue = self._limit * (1 - self._least / work)
        change = _change(queue, max(1.0, math.log10(self._limit)))
        return (
            self._limit + change if change < 0 or is_in_use else self._limit
        )  # a cut needs 6 agents or more


def _change(queue: float, unit: float) -> float:
    if queue <= unit:
        return 6 * unit
    if queue < 3 * unit:
        return unit
    return -unit if queue > 6 * unit else 0.0
