"""What is between engines and gate: the reader, the law, the loop; and what they have seen."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import aiohttp

from concur.controllers import make_controller
from concur.decision import Tick
from concur.gateway.config import GatewayConfig
from concur.gateway.errors import UpstreamError
from concur.gateway.logs import EventLog
from concur.gateway.metrics import Metrics
from concur.gateway.record import ServedCall, Stretch
from concur.live.controlling import ControlledGate, StaleTick
from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.fleet import ControlledFleet
from concur.live.scrape import MetricsScraper
from concur.signals import UNLIMITED, Snapshot
from concur.sim.world.gate import gate_of

MOST_SAMPLES: Final = 900
_TRY_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A point of the plots; `hit_rate` is the engine's since the point before, `None` without calls."""

    time_s: float
    window: int | None
    active: int
    paused: int
    waiting: int
    held: int
    kv_usage: float
    hit_rate: float | None
    running: int


class Control:
    """The law over the engines. Life: `start`, then the block of `gate`.

    `samples` are the latest decisions, `stale` the latest one that was not taken.
    """

    def __init__(
        self,
        config: GatewayConfig,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        log: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self.samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self.first = self.last = Snapshot(0.0)
        self.stretch: Stretch | None = None
        self.num_stale = 0
        self.stale: StaleTick | None = None
        self.num_held: Callable[[], int] = lambda: 0
        self.num_left: Callable[[], int] = lambda: 0
        self._config = config
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._num_told = 0
        self._scrapers = [MetricsScraper(session, urls, clock=clock) for urls in self._read_together()]
        self.gate: ControlledGate | ControlledFleet = self._make_gate()

    def failed(self, upstream: str) -> None:
        """Take note that a call has not reached an upstream: one gate for all has nothing to do then."""

    def told_of(self, upstream: str) -> dict[str, Any]:
        """Return what the status page says of an upstream: nothing where one gate stands before all."""
        return {}

    def upstream_of(self, engine: int | None) -> str | None:
        """Return the address of the engine that a gate has chosen; `None` where it chooses none."""
        return None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the readings have to say."""
        return tuple(line for scraper in self._scrapers for line in scraper.warnings)

    def _read_together(self) -> Sequence[str | Sequence[str]]:
        """Return the upstreams whose readings are one: all of them."""
        return [self._config.upstreams]

    def _make_gate(self) -> ControlledGate | ControlledFleet:
        law = self._config.controller
        controller = make_controller(law.kind, wrappers=law.wrappers, **law.parameters)
        return ControlledGate(
            controller,
            gate_of(self._config.gate, law.kind, controller.window),
            self._read,
            clock=self._clock,
            on_tick=self._on_tick,
            on_stale=self._on_stale,
        )

    async def _start_reading(self) -> Snapshot:
        return await self._scrapers[0].start()

    async def start(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Read the engines for the first time; they may take `limits.start_s` to be there.

        Raises
        ------
        UpstreamError
            If they do not answer by then.
        MetricNamesError
            If they answer with what is no engine's.
        """
        until_s = self._clock() + self._config.limits.start_s
        while True:
            try:
                self.first = self.last = await self._start_reading()
            except MetricNamesError:
                raise
            except ScrapeError as error:
                if self._clock() >= until_s:
                    raise UpstreamError(f"{error}; start the engine first, or raise limits.start_s") from None
                self._log.write("waiting_for_upstream", cause=str(error))
                await sleep(_TRY_EVERY_S)
            else:
                self._tell()
                return

    def served(self, call: ServedCall) -> None:
        """Take a call into the record."""
        if self.stretch is not None:
            self.stretch.add_call(call)

    async def _read(self) -> Snapshot:
        try:
            return await self._scrapers[0].read()
        finally:
            self._tell()

    def _tell(self) -> None:
        warnings = self.warnings
        for warning in warnings[self._num_told :]:
            self._log.write("warning", source="metrics", message=warning)
        self._num_told = len(warnings)

    def _on_tick(self, tick: Tick) -> None:
        if self.num_stale:
            self._log.write("signals_back", missed=self.num_stale)
        self.num_stale, self.stale = 0, None
        self._metrics.ticks.inc()
        gate = self.gate.gate
        self.samples.append(self._sample(tick))
        self.last = tick.snapshot
        if self.stretch is not None:
            self.stretch.add_tick(tick, gate, self.num_left())

    def _on_stale(self, tick: StaleTick) -> None:
        if not self.num_stale:
            self._log.write("signals_stale", cause=tick.reason)
        self.num_stale += 1
        self.stale = tick
        self._metrics.stale.inc()
        if self.stretch is not None:
            self.stretch.num_stale += 1

    def _sample(self, tick: Tick) -> Sample:
        snapshot, gate = tick.snapshot, self.gate.gate
        queries = snapshot.prefix_cache_queries_tokens - self.last.prefix_cache_queries_tokens
        hits = snapshot.prefix_cache_hits_tokens - self.last.prefix_cache_hits_tokens
        return Sample(
            time_s=round(snapshot.time_s, 3),
            window=tick.window if tick.window < UNLIMITED else None,
            active=gate.active,
            paused=gate.paused,
            waiting=gate.waiting,
            held=self.num_held(),
            kv_usage=snapshot.kv_cache_usage_frac,
            hit_rate=hits / queries if queries > 0 else None,
            running=snapshot.num_requests_running,
        )


def sample_json(sample: Sample) -> dict[str, Any]:
    """Return a sample as the status page takes it."""
    return asdict(sample)
