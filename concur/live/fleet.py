"""The gate of a fleet on asyncio: a control loop for each of its gates, and a watch on each engine.

::

    fleet = build_fleet_gate(scenario, windows, router)          # concur.gate.fleet, concur.gate.placement
    async with ControlledFleet(controllers, fleet, reads, router=router) as gate:
        async with gate.agent("a-17") as agent:
            async with agent.step(call) as step:
                answer = await engines[step.engine].complete(...)

Each engine is read by itself, by the control loop of its gate and by the watch, so one that has collapsed or
died is seen as such and not averaged away. An engine that cannot be read `down_after` times in a row, or that
whoever calls it reports (`mark`), is down: those who wait at its gate go elsewhere at once, who is in a call
there with the next one, and the router forgets its cache. Its law takes no decisions meanwhile. It is up
again with the first reading that succeeds.

One law for all sees the sum of the engines: of one that is down what it had counted before, and no load. As
long as an engine cannot be read and is not known to be down, that law takes no decision either.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self, cast

from concur.controllers import Controller
from concur.decision import Tick
from concur.errors import require
from concur.gate import Gate
from concur.gate.fleet import FleetGate
from concur.live.controlling import ReadSnapshot, StaleTick, agreed_interval_s, control
from concur.live.errors import ScrapeError
from concur.live.gate import AsyncGate
from concur.measures.fleet import sum_of
from concur.routing import RoutedCall, Router
from concur.signals import UNBOUNDED, Snapshot, TokenBudget

_WATCH_S: Final = 1.0


class ControlledFleet(AsyncGate):
    """Gates, and what controls and watches them, as one: the loops begin and end with the block.

    `controllers` are as many as `fleet` has gates, `reads` as many as it has engines. `on_tick` and
    `on_stale` are told the number of the gate too, `on_state` which engine has died or come back.
    """

    def __init__(
        self,
        controllers: Sequence[Controller],
        fleet: FleetGate,
        reads: Sequence[ReadSnapshot],
        *,
        router: Router | None = None,
        interval_s: float | None = None,
        watch_s: float = _WATCH_S,
        down_after: int = 3,
        clock: Callable[[], float] | None = None,
        on_tick: Callable[[int, Tick], None] = lambda number, tick: None,
        on_stale: Callable[[int, StaleTick], None] = lambda number, tick: None,
        on_state: Callable[[int, bool], None] = lambda engine, is_up: None,
    ) -> None:
        super().__init__(cast(Gate, fleet), clock=clock)
        gates, engines = len(fleet.gates), len(fleet.loads)
        require(len(controllers) == gates, "controllers", len(controllers), f"{gates}, one for each gate")
        require(len(reads) == engines, "reads", len(reads), f"{engines}, one for each engine")
        require(down_after >= 1, "down_after", down_after, "at least 1")
        self.fleet = fleet
        self.controllers = tuple(controllers)
        self.last: list[Snapshot | None] = [None] * engines
        self.interval_s = agreed_interval_s(controllers[0], interval_s)
        self._reads, self._router, self._down_after = tuple(reads), router, down_after
        wanted_s = router.reads_every_s if router is not None else None
        self._watch_s = watch_s if wanted_s is None else min(watch_s, wanted_s)
        self._num_failed = [0] * engines
        self._on_tick, self._on_stale, self._on_state = on_tick, on_stale, on_state
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start the loops."""
        self.check_loop()
        loops = [self._controlling(number) for number in range(len(self.controllers))]
        loops += [self._watching(engine) for engine in range(len(self._reads))]
        self._tasks = [asyncio.create_task(loop, name="concur fleet loop") for loop in loops]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the loops; raise `ControlError` if one had failed and nothing else is on its way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        if error is None:
            self.check_control()

    def ask(self, agent_id: str, call: RoutedCall | None) -> list[str]:
        """Ask the fleet's gate for a step."""
        return self.fleet.request_step(agent_id, time_s=self.now_s(), call=call)

    def engine_of(self, agent_id: str) -> int:
        """Return the engine of a step that begins now."""
        return self.fleet.take_engine(agent_id)

    def resize_gate(self, number: int, window: int, budget: TokenBudget) -> None:
        """Set the window of one gate, and let those begin who may."""
        self.check_loop()
        self.wake(self.fleet.resize(number, window, time_s=self.now_s(), budget=budget))

    def mark(self, engine: int, *, is_up: bool) -> None:
        """Take note that an engine has died, or is back; telling it twice is no error."""
        if self.fleet.loads[engine].is_up == is_up:
            return
        self._num_failed[engine] = 0
        self.wake(self.fleet.set_up(engine, is_up=is_up, time_s=self.now_s()))
        self._on_state(engine, is_up)

    async def read(self, engine: int) -> Snapshot:
        """Read an engine, and take note of its load and of whether it answers.

        Raises
        ------
        ScrapeError
            If it cannot be read.
        """
        try:
            snapshot = await self._reads[engine]()
        except ScrapeError:
            self._num_failed[engine] += 1
            if self._num_failed[engine] >= self._down_after:
                self.mark(engine, is_up=False)
            raise
        self._num_failed[engine] = 0
        self.mark(engine, is_up=True)
        self.last[engine], load = snapshot, self.fleet.loads[engine]
        load.num_requests_running = snapshot.num_requests_running
        load.num_requests_waiting = snapshot.num_requests_waiting
        load.kv_cache_usage_frac = snapshot.kv_cache_usage_frac
        return snapshot

    async def read_all(self) -> Snapshot:
        """Read all engines as one; of one that is down what it had counted before, and no load.

        Raises
        ------
        ScrapeError
            If one cannot be read and is not known to be down, or none is up.
        """
        engines = range(len(self._reads))
        found = await asyncio.gather(*map(self.read, engines), return_exceptions=True)
        readings: list[Snapshot] = []
        for engine, each in zip(engines, found, strict=True):
            last = self.last[engine]
            if isinstance(each, Snapshot):
                readings.append(each)
            elif isinstance(each, ScrapeError) and not self.fleet.loads[engine].is_up and last is not None:
                readings.append(_without_load(last))
            else:
                raise each
        if not any(load.is_up for load in self.fleet.loads):
            raise ScrapeError(f"none of the {len(engines)} engines answers")
        return replace(sum_of(readings), time_s=self.now_s())

    async def _controlling(self, number: int) -> None:
        is_global = len(self.fleet.gates) == 1 < len(self._reads)

        async def read() -> Snapshot:
            return await (self.read_all() if is_global else self.read(number))

        try:
            await control(
                self.controllers[number],
                _OneGate(self, number),
                read,
                interval_s=self.interval_s,
                on_tick=lambda tick: self._on_tick(number, tick),
                on_stale=lambda tick: self._on_stale(number, tick),
            )
        except Exception as error:
            self.fail(error)

    async def _watching(self, engine: int) -> None:
        try:
            while True:
                await asyncio.sleep(self._watch_s)
                try:
                    await self.read(engine)
                except ScrapeError:
                    continue  # counted; whoever needs the reading is told by its own
                if self._router is not None:
                    self._router.observe(self.fleet.loads)
        except Exception as error:
            self.fail(error)


class _OneGate:
    """One gate of a fleet, for its control loop."""

    def __init__(self, owner: ControlledFleet, number: int) -> None:
        self._owner = owner
        self._number = number

    @property
    def gate(self) -> Gate:
        return self._owner.fleet.gates[self._number]

    @property
    def num_steps(self) -> int:
        return self._owner.num_steps

    @property
    def num_contexts(self) -> int:
        return self._owner.num_contexts

    @property
    def num_usages(self) -> int:
        return self._owner.num_usages

    def now_s(self) -> float:
        return self._owner.now_s()

    def resize(self, window: int, budget: TokenBudget = UNBOUNDED) -> None:
        self._owner.resize_gate(self._number, window, budget)


def _without_load(snapshot: Snapshot) -> Snapshot:
    """Return what an engine had counted; nothing runs there any more."""
    resident = None if snapshot.kv_cache_resident_frac is None else 0.0
    return replace(
        snapshot,
        num_requests_running=0,
        num_requests_waiting=0,
        kv_cache_usage_frac=0.0,
        kv_cache_resident_frac=resident,
    )
