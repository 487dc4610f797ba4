"""The laws over several upstreams, each with a gate, a window and a reader of its own.

What the status page, the metrics and the records show is the sum. An upstream that cannot be read three times
in a row, or that a call has not reached, is down: those who wait for it go to another one at once, its other
sessions with their next call. It is up again with the first reading that succeeds.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from concur.controllers import make_controllers
from concur.decision import Tick
from concur.gate.fleet import EngineGates
from concur.gateway.control import Control
from concur.live.controlling import StaleTick
from concur.live.fleet import ControlledFleet
from concur.measures.fleet import sum_of
from concur.routing import make_router
from concur.signals import UNLIMITED, Snapshot
from concur.sim.world.gate import gate_of


class FleetControl(Control):
    """A law for each upstream. Life: as of `Control`."""

    gate: ControlledFleet

    def failed(self, upstream: str) -> None:
        """Take note that a call has not reached an upstream."""
        engine = self._config.upstreams.index(upstream)
        if any(load.is_up for number, load in enumerate(self.gate.fleet.loads) if number != engine):
            self.gate.mark(engine, is_up=False)

    def told_of(self, upstream: str) -> dict[str, Any]:
        """Return whether an upstream is up, and what is at its gate."""
        engine = self._config.upstreams.index(upstream)
        gate, load = self.gate.fleet.gates[engine], self.gate.fleet.loads[engine]
        return {
            "is_up": load.is_up,
            "window": gate.window if gate.window < UNLIMITED else None,
            "active": gate.active,
            "waiting": gate.waiting,
        }

    def upstream_of(self, engine: int | None) -> str | None:
        """Return the address of an engine."""
        return None if engine is None else self._config.upstreams[engine]

    def _read_together(self) -> Sequence[str | Sequence[str]]:
        """Return the upstreams: each is read for itself."""
        return self._config.upstreams

    def _make_gate(self) -> ControlledFleet:
        config, law = self._config, self._config.controller
        assert config.fleet is not None
        controllers = make_controllers(
            law.kind, len(config.upstreams), wrappers=law.wrappers, **law.parameters
        )
        router = make_router(config.fleet.routing, **config.fleet.parameters)
        gates = [gate_of(config.gate, law.kind, each.window) for each in controllers]
        return ControlledFleet(
            controllers,
            EngineGates(gates, router),
            [partial(self._read_one, engine) for engine in range(len(config.upstreams))],
            router=router,
            clock=self._clock,
            on_tick=self._on_fleet_tick,
            on_stale=self._on_fleet_stale,
            on_state=self._on_state,
        )

    async def _start_reading(self) -> Snapshot:
        firsts = [await scraper.start() for scraper in self._scrapers]
        self.gate.last[:] = firsts
        return sum_of(firsts)

    async def _read_one(self, engine: int) -> Snapshot:
        try:
            return await self._scrapers[engine].read()
        finally:
            self._tell()

    def _on_fleet_tick(self, number: int, tick: Tick) -> None:
        """Show the sum of the fleet, as often as the first law that is up decides."""
        loads, fleet = self.gate.fleet.loads, self.gate.fleet
        if number != min(engine for engine, load in enumerate(loads) if load.is_up):
            return
        readings = [reading for reading in self.gate.last if reading is not None]
        whole = replace(
            sum_of(readings),
            time_s=tick.snapshot.time_s,
            agents_paused=fleet.paused,
            agents_waiting=fleet.waiting,
        )
        self._on_tick(replace(tick, snapshot=whole, active=fleet.active, window=fleet.window))

    def _on_fleet_stale(self, number: int, tick: StaleTick) -> None:
        if self.gate.fleet.loads[number].is_up:
            self._on_stale(tick)

    def _on_state(self, engine: int, is_up: bool) -> None:
        self._log.write("upstream_state", upstream=self._config.upstreams[engine], is_up=is_up)
