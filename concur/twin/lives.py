"""How many more calls an agent will make: lives that have ended, and those that have not yet.

S(n) = product over ended lives of length e <= n of (1 - number ended at e / number that reached e), where
those who are still here count as far as they have come (Kaplan & Meier, JASA 53, 1958). Nothing is seen
beyond the furthest, `a`. There lives go on as a log-normal that agrees with what is known: a share S(a) of
them is longer than a. While many have come to `a` and none has ended, that share is near 1, and the typical
life is several times as long. How wide the log-normal is, nobody knows of a new batch: futures are drawn with
each of `SPREADS`.
"""

import bisect
import math
from collections import deque
from collections.abc import Iterator, Sequence
from random import Random
from statistics import NormalDist
from typing import Final

_MOST_LIVES: Final = 1000
_NORMAL: Final = NormalDist()
SPREADS: Final = (0.55, 0.3, 1.0)
"""Standard deviations of the logarithm of a life. The tenth and the ninetieth percentile of `examples/traces`
say 0.55 for tau-bench and mini-SWE-agent, 0.3 for ReAct on HotpotQA, 1.2 for Claude Code."""


class Lives:
    """Lives of one batch: those that have ended, and at each reading how far the others are."""

    __slots__ = ("_ages", "_beyond_frac", "_ended", "_ends", "_furthest")

    def __init__(self) -> None:
        self._ended: deque[int] = deque(maxlen=_MOST_LIVES)
        self._ends: list[int] = []
        self._ages: list[int] = []
        self._furthest = 1
        self._beyond_frac = 0.5  # of all lives, longer than the furthest seen

    def ended(self, num_calls: int) -> None:
        """Take note of a life that has ended after so many calls."""
        self._ended.append(num_calls)

    def see(self, ages: Sequence[int]) -> None:
        """Take the calls that those who are here have made; whoever has made none says nothing."""
        self._ends = sorted(self._ended)
        self._ages = sorted(age for age in ages if age)
        self._furthest = max([*self._ends[-1:], *self._ages[-1:], 1])
        reached = (sum(self._ends) + sum(self._ages)) / self._furthest  # as if so many had come so far
        self._beyond_frac = (self._survival() * reached + 0.5) / (reached + 1.0)

    def draw_rest(self, num_calls: int, rng: Random, *, spread: float) -> int:
        """Return how many calls an agent makes that has made `num_calls`; `spread` is of the tail."""
        bound = rng.random()
        left = 1.0
        for length, frac in self._steps(num_calls):
            left *= frac
            if left <= bound:
                return length - num_calls
        beyond = self._beyond_frac * max(1e-6, 1.0 - rng.random())
        quantiles = _NORMAL.inv_cdf(1.0 - beyond) - _NORMAL.inv_cdf(1.0 - self._beyond_frac)
        return max(1, math.ceil(self._furthest * math.exp(spread * quantiles)) - num_calls)

    def _survival(self) -> float:
        left = 1.0
        for _, frac in self._steps(0):
            left *= frac
        return left

    def _steps(self, num_calls: int) -> Iterator[tuple[int, float]]:
        """Yield the lengths beyond `num_calls` at which lives have ended, and the share that went on."""
        ends, ages = self._ends, self._ages
        index = bisect.bisect_right(ends, num_calls)
        while index < len(ends):
            length = ends[index]
            following = bisect.bisect_right(ends, length)
            at_risk = len(ends) - index + len(ages) - bisect.bisect_left(ages, length)
            yield length, 1.0 - (following - index) / at_risk
            index = following
