"""The work behind a generated token: what stands for a round-trip time where calls have heavy tails.

`WorkLaw` is what the congestion-control laws that read it have in common.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from concur.controllers.base import ControllerParams, LogValue
from concur.errors import require
from concur.measures.flows import Freshness
from concur.signals import UNLIMITED, Snapshot


class TokenWork:
    """Measure tokens computed per token generated, reading by reading.

    (uncached prompt tokens + generated tokens) / generated tokens, from the counters of one interval. Without
    recomputation it is a constant of the workload; evicted histories that are prefilled again raise it. Ours:
    latencies of agent steps vary too much by themselves. Live: `vllm:prefix_cache_queries_total` less
    `vllm:prefix_cache_hits_total`, and `vllm:generation_tokens_total`.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: Snapshot | None = None

    def update(self, snapshot: Snapshot) -> float | None:
        """Return the work of the interval, at least 1, or `None` where nothing was generated."""
        last, self._last = self._last, snapshot
        if last is None or snapshot.generation_tokens <= last.generation_tokens:
            return None
        generated = snapshot.generation_tokens - last.generation_tokens
        return 1.0 + max(0, _uncached(snapshot) - _uncached(last)) / generated


def _uncached(snapshot: Snapshot) -> int:
    return snapshot.prefix_cache_queries_tokens - snapshot.prefix_cache_hits_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkLawParams(ControllerParams):
    """Parameters of every law on work: the start."""

    initial_window: int = 16

    def __post_init__(self) -> None:
        ControllerParams.__post_init__(self)
        require(
            1 <= self.initial_window <= UNLIMITED,
            "initial_window",
            self.initial_window,
            f"between 1 and {UNLIMITED}",
        )


class WorkLaw(ABC):
    """Move a real-valued limit by the work of each reading; the window is its whole part.

    Nothing moves on stale readings, or where nothing was generated.
    """

    __slots__ = ("_freshness", "_limit", "_work", "window")
    reads_agents = False

    def __init__(self, params: WorkLawParams) -> None:
        self.window = params.initial_window
        self._limit = float(params.initial_window)
        self._freshness = Freshness(params.interval_s)
        self._work = TokenWork()

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions."""
        return self._freshness.interval_s

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the next window."""
        is_stale = self._freshness.is_stale(snapshot)
        work = self._work.update(snapshot)
        if is_stale or work is None:
            return self.window
        if math.floor(self._limit) != self.window:  # a wrapper has overruled the last decision
            self._limit = float(self.window)
        self._limit = min(self._next_limit(work, is_in_use=2 * active >= self.window), float(UNLIMITED))
        self.window = math.floor(self._limit)
        return self.window

    @abstractmethod
    def log_state(self) -> dict[str, LogValue]:
        """Return what the last decision was based on."""

    @abstractmethod
    def _next_limit(self, work: float, *, is_in_use: bool) -> float:
        """Return the next limit; `is_in_use` if agents hold at least half of the window."""
