"""The control loop: when ticks are due, and what a slow or failing reading does to them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from concur.controllers import make_controller
from concur.errors import ParameterError
from concur.gate import AgentGate
from concur.live.controlling import StaleTick, Tick, control, replay_decisions
from concur.live.errors import ScrapeError
from concur.live.gate import AsyncGate
from concur.signals import Snapshot
from tests.live.helpers import run_jumping


def run_control(
    read: Callable[[AsyncGate], Awaitable[Snapshot]], *, interval_s: float = 1.0, until_s: float = 10.5
) -> tuple[list[Tick], list[StaleTick], AsyncGate]:
    ticks: list[Tick] = []
    stale: list[StaleTick] = []
    gate = AsyncGate(AgentGate(16))

    async def main() -> None:
        controller = make_controller("concur", interval_s=interval_s)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(until_s):
                await control(
                    controller,
                    gate,
                    lambda: read(gate),
                    interval_s=interval_s,
                    on_tick=ticks.append,
                    on_stale=stale.append,
                )

    run_jumping(main())
    return ticks, stale, gate


async def growing(gate: AsyncGate) -> Snapshot:
    return Snapshot(time_s=gate.now_s(), kv_cache_usage_frac=0.1)


def test_ticks_are_due_at_multiples_of_the_interval_the_first_after_one() -> None:
    ticks, stale, gate = run_control(growing, interval_s=0.1, until_s=1.05)
    assert [tick.snapshot.time_s for tick in ticks] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert stale == []
    assert gate.gate.window == ticks[-1].window == 16 + 2 * 10


def test_a_slow_reading_delays_the_next_tick_and_is_not_made_up_for() -> None:
    async def slow(gate: AsyncGate) -> Snapshot:
        await asyncio.sleep(2.5)
        return await growing(gate)

    ticks, _, _ = run_control(slow)
    assert [tick.snapshot.time_s for tick in ticks] == [3.5, 6.5, 9.5]


def test_a_reading_that_fails_is_noted_and_changes_nothing() -> None:
    async def failing(gate: AsyncGate) -> Snapshot:
        if gate.now_s() > 3.5:
            raise ScrapeError("gone")
        return await growing(gate)

    ticks, stale, gate = run_control(failing)
    assert len(ticks) == 3
    assert [tick.time_s for tick in stale] == [4, 5, 6, 7, 8, 9, 10]
    assert stale[0].reason == "gone"
    assert gate.gate.window == 16 + 2 * 3


def test_recorded_ticks_decide_the_same_windows_again() -> None:
    ticks, _, _ = run_control(growing)
    again = make_controller("concur", interval_s=1.0)
    assert list(replay_decisions(again, [(tick.snapshot, tick.active) for tick in ticks])) == [
        tick.window for tick in ticks
    ]


def test_an_interval_of_zero_is_refused() -> None:
    gate = AsyncGate(AgentGate(1))
    loop = control(
        make_controller("none"),
        gate,
        lambda: growing(gate),
        interval_s=0.0,
        on_tick=lambda tick: None,
        on_stale=lambda tick: None,
    )
    with pytest.raises(ParameterError, match="interval_s"):
        run_jumping(loop)
