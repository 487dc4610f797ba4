"""How many more calls an agent will make: lives that have ended, and those that have not yet.

S(n) = product over ended lives of length e <= n of (1 - number ended at e / number that reached e), where
those who are still here count as far as they have come (Kaplan & Meier, JASA 53, 1958). Beyond the longest
life that was seen, the rest is exponential, and as long in the mean as the furthest has come (Gott, Nature
363, 1993: what has lasted n lasts about n more).
"""

import bisect
import math
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Final

_MOST_LIVES: Final = 1000
_LONGEST_TAIL: Final = 3.5  # means of an exponential rest: rare longer ones would decide every future


class Lives:
    """Lives of one batch: those that have ended, and at each reading how far the others are."""

    __slots__ = ("_ages", "_ended", "_ends", "_mean_rest")

    def __init__(self) -> None:
        self._ended: deque[int] = deque(maxlen=_MOST_LIVES)
        self._ends: list[int] = []
        self._ages: list[int] = []
        self._mean_rest = 1.0

    def ended(self, num_calls: int) -> None:
        """Take note of a life that has ended after so many calls."""
        self._ended.append(num_calls)

    def see(self, ages: Sequence[int]) -> None:
        """Take the calls that those who are here have made; whoever has made none says nothing."""
        self._ends = sorted(self._ended)
        self._ages = sorted(age for age in ages if age)
        self._mean_rest = float(max([*self._ends[-1:], *self._ages[-1:], 3]))

    def draw_rest(self, num_calls: int, rng: Random) -> int:
        """Return how many calls an agent makes that has made `num_calls`, at least 1."""
        ends, left = self._ends, 1.0
        bound = rng.random()
        index = bisect.bisect_right(ends, num_calls)
        longest = num_calls
        while index < len(ends):
            longest = ends[index]
            following = bisect.bisect_right(ends, longest)
            at_risk = len(ends) - index + len(self._ages) - bisect.bisect_left(self._ages, longest)
            left *= 1 - (following - index) / at_risk
            if left <= bound:
                return longest - num_calls
            index = following
        tail = min(_LONGEST_TAIL, -math.log(max(1e-9, rng.random()))) * self._mean_rest
        return max(1, int(tail + 1) + longest - num_calls)
