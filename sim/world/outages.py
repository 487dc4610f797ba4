"""Engines of a fleet that die and come back, as `[[fleet.outages]]` says.

A dead engine aborts its calls, and its cache is gone. Gate and router know at once: who waits for it goes
elsewhere, and whose call was aborted asks for it again, as with the live gate (`concur.live.fleet`). Where no
engine is left, calls wait at the last one until it is back, or until another one is.
"""

from collections.abc import Callable, Generator, Sequence

import simpy

from concur.gate.fleet import FleetGate
from concur.sim.engine.core import EngineCore
from concur.sim.scenario.fleet import Outage
from concur.sim.world.agent import SimGate
from concur.sim.world.clock import CONTROL, Instant
from concur.sim.world.engine import Engine


class Outages:
    """Let engines die and come back; `new_core` makes an engine of that number, its cache empty.

    `on_death` is told the number of an engine that dies, while its core can still be asked.
    """

    def __init__(
        self,
        shell: SimGate[FleetGate],
        engines: Sequence[Engine],
        outages: Sequence[Outage],
        new_core: Callable[[int], EngineCore],
        on_death: Callable[[int], None],
    ) -> None:
        self._shell = shell
        self._engines = engines
        self._outages = outages
        self._new_core = new_core
        self._on_death = on_death

    @property
    def are_any(self) -> bool:
        """Whether an engine is to die."""
        return bool(self._outages)

    def start(self) -> None:
        """Begin to wait for their times."""
        for outage in self._outages:
            self._shell.env.process(self._happening(outage))

    def told(self, end_s: float) -> list[str]:
        """Return what happened up to that time, a line an engine that died."""
        lines = []
        for outage in self._outages:
            if outage.at_s <= end_s:
                until = "to the end" if outage.until_s is None else f"to {outage.until_s:,.1f} s"
                lines.append(f"engine {outage.engine} was down from {outage.at_s:,.1f} s {until}")
        return lines

    def _happening(self, outage: Outage) -> Generator[simpy.Event, object, None]:
        env = self._shell.env
        yield Instant(env, CONTROL, outage.at_s - env.now)
        self._die(outage.engine)
        if outage.until_s is not None:
            yield Instant(env, CONTROL, outage.until_s - env.now)
            self._come_back(outage.engine)

    def _die(self, index: int) -> None:
        is_last = not any(engine.is_up for engine in self._engines if engine is not self._engines[index])
        self._on_death(index)
        if not is_last:
            self._set_up(index, is_up=False)
        self._engines[index].die(self._new_core(index), is_awaited=is_last)

    def _come_back(self, index: int) -> None:
        awaited = [number for number, engine in enumerate(self._engines) if engine.is_awaited]
        self._engines[index].come_back()
        self._set_up(index, is_up=True)
        for other in awaited:
            if other != index:
                self._set_up(other, is_up=False)
                self._engines[other].wait_no_longer()

    def _set_up(self, index: int, *, is_up: bool) -> None:
        gate = self._shell.gate
        if gate.loads[index].is_up != is_up:
            self._shell.wake(gate.set_up(index, is_up=is_up, time_s=self._shell.env.now))
