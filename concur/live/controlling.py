"""The control loop: snapshot -> controller -> gate, every `interval_s`, as in the simulator.

Ticks are due at multiples of the interval, the first one interval after the start. A snapshot is stamped with
the time at which the engine's answer was there. A tick that takes longer than the interval delays the next
one to the next multiple: ticks are never made up for in a burst, because a burst would read the same traffic
several times.

**Stale signals freeze the window.** If the engine's metrics cannot be read, there is no decision: the
controller is not called and the window stays. It cannot grow on signals that are not there, and must not be
cut either: unknown is not bad. After an outage counters go on from the last good reading, so the first
decision sees the traffic of the whole outage. Decisions remain a function of the recorded ticks alone:
feeding them to a fresh controller gives the same windows (`replay_decisions`).
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from concur.controllers import Controller
from concur.errors import require
from concur.live.errors import ScrapeError
from concur.live.gate import AsyncGate
from concur.signals import Snapshot

ReadSnapshot = Callable[[], Awaitable[Snapshot]]
"""Read the engine; raises `ScrapeError` when it cannot be read. Gate fields are filled in by the loop."""


@dataclass(frozen=True, slots=True)
class Tick:
    """One decision: the snapshot in, the window out; `state` is the controller's, as JSON."""

    snapshot: Snapshot
    active: int
    window_before: int
    window: int
    state: str


@dataclass(frozen=True, slots=True)
class StaleTick:
    """One decision that was not taken, and why."""

    time_s: float
    reason: str


async def control(
    controller: Controller,
    gate: AsyncGate,
    read: ReadSnapshot,
    *,
    interval_s: float,
    on_tick: Callable[[Tick], None],
    on_stale: Callable[[StaleTick], None],
) -> None:
    """Decide every `interval_s` until cancelled.

    Raises
    ------
    ParameterError
        If `interval_s` is not positive.
    """
    require(0 < interval_s < math.inf, "interval_s", interval_s, "greater than 0 s")
    start_s = gate.now_s()
    number = 0
    while True:
        number = _next_tick(number, gate.now_s() - start_s, interval_s)
        await asyncio.sleep(start_s + number * interval_s - gate.now_s())
        try:
            snapshot = await read()
        except ScrapeError as error:
            on_stale(StaleTick(gate.now_s(), str(error)))
        else:
            on_tick(decide(controller, gate, snapshot))


def decide(controller: Controller, gate: AsyncGate, snapshot: Snapshot) -> Tick:
    """Take one decision on an engine's snapshot and put it in force; nothing else runs in between."""
    held = gate.gate
    snapshot = replace(
        snapshot,
        agents_paused=held.paused,
        agents_waiting=held.waiting,
        agents=tuple(held.views()) if controller.reads_agents else (),
        departed=held.departed,
    )
    window_before, active = controller.window, held.active
    window = controller.update(snapshot, active=active)
    if window != held.window:
        gate.resize(window)
    return Tick(snapshot, active, window_before, window, json.dumps(controller.log_state()))


def replay_decisions(controller: Controller, ticks: Iterable[tuple[Snapshot, int]]) -> Iterator[int]:
    """Yield the windows that a fresh controller decides on recorded (snapshot, active agents) pairs."""
    for snapshot, active in ticks:
        yield controller.update(snapshot, active=active)


def _next_tick(number: int, elapsed_s: float, interval_s: float) -> int:
    return max(number, math.floor(elapsed_s / interval_s)) + 1
