"""vLLM's internal data-parallel balancer (0.32.0, `v1/engine/core_client.py`, `DPLBAsyncMPClient`), exactly.

::

    score = max(client_count * in_flight, waiting + running) + 6 * waiting * max(0, KV usage - 0.5)

The lowest one; of equal ones the first from a place on that moves by one with every call. Waiting, running
and usage are the coordinator's last reading (every 100 ms, `v1/engine/coordinator.py`), with `client_count`
added to the waiting ones for each call that went there since. `in_flight` is this front end's own, exact. No
affinity of any kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from concur.errors import require
from concur.routing.base import EngineLoad, RoutedCall, RouterParams, those_up

_WAITING_WEIGHT: Final = 6.0
_EASY_USAGE_FRAC: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmDpParams(RouterParams):
    """Parameters of `vllm_dp`: how many front ends, which of them this is, the coordinator's interval."""

    client_count: int = 1
    client_index: int = 0
    stats_interval_s: float = 0.1

    def __post_init__(self) -> None:
        RouterParams.__post_init__(self)
        require(1 <= self.client_count <= 10_000, "client_count", self.client_count, "1 to 10,000")
        is_one_of_them = 0 <= self.client_index < self.client_count
        require(is_one_of_them, "client_index", self.client_index, f"0 to {self.client_count - 1}")
        require(
            1e-3 <= self.stats_interval_s <= 1e6, "stats_interval_s", self.stats_interval_s, "1e-3 to 1e6 s"
        )


class VllmDp:
    """Score every engine, rotate among equals."""

    def __init__(self, params: VllmDpParams) -> None:
        self.reads_every_s: float | None = params.stats_interval_s
        self._params = params
        self._waiting: list[int] = []
        self._running: list[int] = []
        self._usage: list[float] = []
        self._start: int | None = None

    def observe(self, engines: Sequence[EngineLoad]) -> None:
        """Take the coordinator's reading; what was added to the last one is gone."""
        self._waiting = [engine.num_requests_waiting for engine in engines]
        self._running = [engine.num_requests_running for engine in engines]
        self._usage = [engine.kv_cache_usage_frac for engine in engines]

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the engine of the lowest score; one that is down has none."""
        num_engines, up = len(engines), set(those_up(engines))
        if len(self._waiting) != num_engines:
            self._waiting, self._running = [0] * num_engines, [0] * num_engines
            self._usage = [0.0] * num_engines
        if self._start is None:
            self._start = num_engines * self._params.client_index // self._params.client_count
        row = [(self._start + place) % num_engines for place in range(num_engines)]
        engine = min((each for each in row if each in up), key=lambda each: self._score(each, engines[each]))
        self._waiting[engine] += self._params.client_count
        self._start = (self._start + 1) % num_engines
        return engine

    def ended(self, call: RoutedCall, engine: int) -> None:
        """Do nothing: what is in flight is counted for it."""

    def lost(self, engine: int) -> None:
        """Do nothing: it remembers no cache."""

    def _score(self, number: int, engine: EngineLoad) -> float:
        waiting = self._waiting[number]
        load = max(self._params.client_count * engine.num_in_flight, waiting + self._running[number])
        return load + waiting * _WAITING_WEIGHT * max(0.0, self._usage[number] - _EASY_USAGE_FRAC)
