"""The control loop: snapshot -> controller -> gate, every interval, as in the simulator.

::

    async with ControlledGate(controller, make_gate("hybrid", controller.window), read) as gate:
        async with gate.agent("a-17") as agent:
            ...

Ticks are due at multiples of the interval, the first one interval after the start. A snapshot is stamped with
the time at which the engine's answer was there. A tick that takes longer than the interval delays the next
one to the next multiple: ticks are never made up for in a burst, because a burst would read the same traffic
several times.

**Stale signals freeze the window.** If the engine's metrics cannot be read, there is no decision: the
controller is not called and the window stays. It cannot grow on signals that are not there, and must not be
cut either: unknown is not bad. After an outage counters go on from the last good reading, so the first
decision sees the traffic of the whole outage. Decisions remain a function of the recorded ticks alone:
feeding them to a fresh controller gives the same windows (`replay_decisions`).

**The loop cannot die unseen.** Whatever else goes wrong in it, in the law, in reading, in the gate or in a
callback, ends the gate's service: every step that waits or is asked for raises `ControlError`, and so does
the end of the block.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from concur.controllers import Controller, does_read_calls, hurry_of
from concur.decision import Tick, decide
from concur.errors import ParameterError, require
from concur.gate import Gate
from concur.live.errors import ScrapeError, UsageMissingError
from concur.live.gate import AsyncGate
from concur.signals import UNBOUNDED, Snapshot, TokenBudget

ReadSnapshot = Callable[[], Awaitable[Snapshot]]
"""Read the engine; raises `ScrapeError` when it cannot be read. Gate fields are filled in by the loop."""

_log = logging.getLogger(__name__)
_BLIND_STEPS: Final = 16  # ours: so many steps without a single usage are no accident


@dataclass(frozen=True, slots=True)
class StaleTick:
    """One decision that was not taken, and why."""

    time_s: float
    reason: str


class ControlledGate(AsyncGate):
    """A gate and what controls it, as one: the loop begins and ends with the block.

    `interval_s` is the law's own unless said; one that differs from it is refused. `on_tick` and `on_stale`
    see every decision, taken or not; by default the first stale one of a row is logged, and the end of it.
    """

    def __init__(
        self,
        controller: Controller,
        gate: Gate,
        read: ReadSnapshot,
        *,
        interval_s: float | None = None,
        clock: Callable[[], float] | None = None,
        on_tick: Callable[[Tick], None] | None = None,
        on_stale: Callable[[StaleTick], None] | None = None,
    ) -> None:
        super().__init__(gate, clock=clock)
        self.controller = controller
        self.interval_s = agreed_interval_s(controller, interval_s)
        self._read = read
        said = _Outages()
        self._on_tick, self._on_stale = on_tick or said.on_tick, on_stale or said.on_stale
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start the loop."""
        self.check_loop()
        self._task = asyncio.create_task(self._controlling(), name="concur control loop")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the loop; raise `ControlError` if it had failed and nothing else is on its way."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if error is None:
            self.check_control()

    async def _controlling(self) -> None:
        try:
            await control(
                self.controller,
                self,
                self._read,
                interval_s=self.interval_s,
                on_tick=self._on_tick,
                on_stale=self._on_stale,
            )
        except Exception as error:
            self.fail(error)


class Controlled(Protocol):
    """A gate on asyncio as its control loop sees it."""

    @property
    def gate(self) -> Gate:
        """The gate."""
        ...

    @property
    def num_steps(self) -> int:
        """Steps that ended well."""
        ...

    @property
    def num_contexts(self) -> int:
        """Those that told their context."""
        ...

    @property
    def num_usages(self) -> int:
        """Those that told prompt and output apart."""
        ...

    def now_s(self) -> float:
        """Return the clock's reading, in seconds."""
        ...

    def resize(self, window: int, budget: TokenBudget = UNBOUNDED) -> None:
        """Put a decision in force."""
        ...


async def control(
    controller: Controller,
    gate: Controlled,
    read: ReadSnapshot,
    *,
    interval_s: float | None = None,
    on_tick: Callable[[Tick], None],
    on_stale: Callable[[StaleTick], None],
) -> None:
    """Decide every interval, or sooner if the law wants to, until cancelled; see `ControlledGate`.

    Raises
    ------
    ParameterError
        If `interval_s` is not positive, or not the law's own.
    UsageMissingError
        If steps end, none says how long its context is, and the law looks at the agents.
    """
    interval_s = agreed_interval_s(controller, interval_s)
    start_s = gate.now_s()
    number = 0
    while True:
        following = _next_tick(number, gate.now_s() - start_s, interval_s)
        left_s, hurry_s = start_s + following * interval_s - gate.now_s(), hurry_of(controller)
        number = following if left_s <= hurry_s else number
        await asyncio.sleep(min(left_s, hurry_s))
        try:
            snapshot = await read()
        except ScrapeError as error:
            on_stale(StaleTick(gate.now_s(), str(error)))
        else:
            tick = decide(controller, gate.gate, snapshot)
            if not tick.is_in_force(gate.gate):
                gate.resize(tick.window, tick.budget)
            on_tick(tick)
            _check_usage(controller, gate)


def agreed_interval_s(controller: Controller, interval_s: float | None) -> float:
    """Return the seconds between two decisions: the law's own, which whoever names another must mean.

    Raises
    ------
    ParameterError
        If it is not positive, the law was made for another one, or nobody says any.
    """
    own_s: float | None = getattr(controller, "interval_s", None)
    if interval_s is None:
        require(own_s is not None, "interval_s", None, "given", "this law does not say how often it decides")
        interval_s = own_s
    assert interval_s is not None
    require(0 < interval_s < math.inf, "interval_s", interval_s, "greater than 0 s")
    if own_s is not None and own_s != interval_s:
        raise ParameterError(
            f"interval_s = {interval_s!r} but the law was made for {own_s!r} s and would misread the time "
            f"between two readings; leave it out, or make the law with interval_s={interval_s!r}"
        )
    return interval_s


def replay_decisions(controller: Controller, ticks: Iterable[tuple[Snapshot, int]]) -> Iterator[int]:
    """Yield the windows that a fresh controller decides on recorded (snapshot, active agents) pairs."""
    for snapshot, active in ticks:
        yield controller.update(snapshot, active=active)


def _next_tick(number: int, elapsed_s: float, interval_s: float) -> int:
    return max(number, math.floor(elapsed_s / interval_s)) + 1


def _check_usage(controller: Controller, gate: Controlled) -> None:
    if gate.num_steps < _BLIND_STEPS:
        return
    if does_read_calls(controller) and not gate.num_usages:
        raise UsageMissingError(
            f"{gate.num_steps} steps have ended and none set step.usage, but this law needs prompt and "
            "output apart; set it to concur.Usage(prompt_tokens, completion_tokens) of each answer (when "
            'streaming, ask for stream_options={"include_usage": true}), or choose a law that adds them up, '
            "such as hybrid"
        )
    if controller.reads_agents and not gate.num_contexts:
        raise UsageMissingError(
            f"{gate.num_steps} steps have ended and none set step.context_tokens, but this law counts "
            "tokens; set it to usage.total_tokens of each answer (when streaming, ask for "
            'stream_options={"include_usage": true}), or choose a law that does not, such as concur'
        )


class _Outages:
    """Log when readings begin to fail and when they are back; a line per reading would drown the rest."""

    def __init__(self) -> None:
        self._num_stale = 0

    def on_tick(self, tick: Tick) -> None:
        if self._num_stale:
            _log.warning("metrics are read again at %.1f s", tick.snapshot.time_s)
        self._num_stale = 0

    def on_stale(self, tick: StaleTick) -> None:
        if not self._num_stale:
            _log.warning("no decision at %.1f s, the window stays: %s", tick.time_s, tick.reason)
        self._num_stale += 1
