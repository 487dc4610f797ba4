"""Estimates from cumulative counters. Small, explicit about what they do not know."""

from collections import deque
from typing import Final

_SAME_INSTANT: Final = 1e-12  # relative: multiples of an interval are not exact in floating point


class WindowedHitRate:
    """Estimate the prefix-cache hit rate over the last `window_s` seconds of counter readings.

    H = (hits(t) - hits(t0)) / (queries(t) - queries(t0)), with t0 the newest reading that is at least
    `window_s` old, or the oldest one while none is. No queries in between: `None`, never 0, because
    "no traffic" is not "no hits". A counter that went backwards (engine restart) starts a new history.

    Costs amortised O(1) per reading.
    """

    __slots__ = ("_readings", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._readings: deque[tuple[float, int, int]] = deque()

    def update(self, *, time_s: float, queries: int, hits: int) -> float | None:
        """Add one reading of the cumulative counters and return the hit rate (0 to 1) or `None`."""
        readings = self._readings
        if readings and (queries < readings[-1][1] or hits < readings[-1][2]):
            readings.clear()
        readings.append((time_s, queries, hits))
        begin_s = time_s - self.window_s + _SAME_INSTANT * time_s
        while len(readings) > 2 and readings[1][0] <= begin_s:
            readings.popleft()
        _, queries_before, hits_before = readings[0]
        asked = queries - queries_before
        return (hits - hits_before) / asked if asked > 0 else None
