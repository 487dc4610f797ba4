"""The control loop: when ticks are due, and what a slow or failing reading does to them."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from concur.controllers import Controller, LogValue, make_controller
from concur.controllers.concur import Concur, ConcurParams
from concur.decision import Tick
from concur.errors import ParameterError
from concur.gate import AgentGate
from concur.live.controlling import ControlledGate, StaleTick, control, replay_decisions
from concur.live.errors import ControlError, ScrapeError, UsageMissingError
from concur.live.gate import AsyncGate
from concur.signals import Snapshot, Usage
from tests.live.helpers import run_jumping


def run_control(
    read: Callable[[AsyncGate], Awaitable[Snapshot]],
    *,
    interval_s: float = 1.0,
    until_s: float = 10.5,
    law: Controller | None = None,
) -> tuple[list[Tick], list[StaleTick], AsyncGate]:
    ticks: list[Tick] = []
    stale: list[StaleTick] = []
    gate = AsyncGate(AgentGate(16))

    async def main() -> None:
        controller = law or make_controller("concur", interval_s=interval_s)
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


class Hurrying(Concur):
    """Wants to decide four times a second until it has 22 slots."""

    @property
    def hurry_s(self) -> float:
        return 0.25 if self.window < 22 else math.inf


def test_a_law_in_a_hurry_decides_between_its_ticks_which_stay_where_they_are() -> None:
    law = Hurrying(ConcurParams(interval_s=1.0))
    ticks, _, _ = run_control(growing, until_s=3.5, law=law)
    assert [tick.snapshot.time_s for tick in ticks] == [0.25, 0.5, 0.75, 1.0, 2.0, 3.0]


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


# The loop and the gate as one


class Odd:
    """A law that does as it is told."""

    reads_agents = False
    interval_s = 1.0

    def __init__(self, decide: Callable[[float], int]) -> None:
        self.window = 1
        self._decide = decide

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        self.window = self._decide(snapshot.time_s)
        return self.window

    def log_state(self) -> dict[str, LogValue]:
        return {}


def controlled(
    law: Controller, read: Callable[[], Awaitable[Snapshot]] | None = None, **options: Any
) -> ControlledGate:
    async def healthy() -> Snapshot:
        return Snapshot(time_s=asyncio.get_running_loop().time())

    return ControlledGate(law, AgentGate(law.window), read or healthy, **options)


async def steps(gate: AsyncGate, name: str, number: int, told: int | Usage | None = 5) -> None:
    async with gate.agent(name) as agent:
        for _ in range(number):
            async with agent.step() as step:
                await asyncio.sleep(1.0)
                if isinstance(told, Usage):
                    step.usage = told
                elif told is not None:
                    step.context_tokens = told


def boom(time_s: float) -> int:
    if time_s >= 3.0:
        raise ZeroDivisionError("the law is broken")
    return 1


async def unreadable() -> Snapshot:
    raise KeyError("a bug in the scraper")


def refuse(_: Tick) -> None:
    raise OSError("disk full")


@pytest.mark.parametrize(
    ("law", "options", "cause"),
    [
        (Odd(boom), {}, ZeroDivisionError),
        (Odd(lambda _: 0), {}, ParameterError),
        (Odd(lambda _: 1), {"read": unreadable}, KeyError),
        (Odd(lambda _: 1), {"on_tick": refuse}, OSError),
    ],
    ids=["law", "window", "read", "callback"],
)
def test_whatever_breaks_the_loop_reaches_the_next_step_the_waiting_and_the_block(
    law: Controller, options: dict[str, Any], cause: type[Exception]
) -> None:
    async def main() -> None:
        gate = controlled(law, **options)
        with pytest.raises(ControlError, match="no longer controlled") as at_the_end:
            await using(gate)
        assert isinstance(at_the_end.value.__cause__, cause)
        assert gate.gate.active == gate.gate.waiting == 0

    async def using(gate: ControlledGate) -> None:
        async with gate:
            working = asyncio.create_task(steps(gate, "works", 10))
            waiting = asyncio.create_task(steps(gate, "waits", 1))
            await asyncio.wait([working, waiting])
            assert gate.now_s() <= 4.0, "at once, not when a slot is free"
            for task in (working, waiting):
                error = task.exception()
                assert isinstance(error, ControlError)
                assert isinstance(error.__cause__, cause)

    run_jumping(main())


def test_an_error_of_the_block_itself_comes_through_and_the_loop_ends() -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="mine"):
            async with controlled(Odd(lambda _: 1)):
                raise OSError("mine")
        assert len(asyncio.all_tasks()) == 1

    run_jumping(main())


def test_a_gate_that_is_well_controlled_serves_and_ends() -> None:
    async def main() -> int:
        async with controlled(Odd(lambda time_s: 1 + int(time_s))) as gate, asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(steps(gate, f"a{number}", 3))
        return gate.gate.window

    assert run_jumping(main()) > 2


def test_the_interval_is_the_laws_and_another_one_is_refused() -> None:
    law = make_controller("hybrid")
    assert controlled(law).interval_s == 1.0
    with pytest.raises(ParameterError, match="the law was made for"):
        controlled(law, interval_s=5.0)
    assert controlled(make_controller("hybrid", interval_s=5.0), interval_s=5.0).interval_s == 5.0


def test_a_law_that_counts_tokens_and_gets_none_is_an_error() -> None:
    async def main(law: Controller, tokens: int | None) -> None:
        async with controlled(law) as gate, asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(steps(gate, f"a{number}", 5, tokens))

    with pytest.raises(BaseExceptionGroup) as caught:
        run_jumping(main(make_controller("hybrid", initial_window=4), None))
    errors = [error for error in caught.value.exceptions if isinstance(error.__cause__, UsageMissingError)]
    assert len(errors) == len(caught.value.exceptions)
    assert "step.context_tokens" in str(errors[0])
    run_jumping(main(make_controller("hybrid", initial_window=4), 100))
    run_jumping(main(make_controller("concur", initial_window=4), None))


def test_a_law_that_reads_calls_and_is_told_only_their_sum_is_an_error() -> None:
    async def main(law: Controller, usage: Usage | int) -> None:
        async with controlled(law) as gate, asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(steps(gate, f"a{number}", 5, usage))

    with pytest.raises(BaseExceptionGroup) as caught:
        run_jumping(main(make_controller("twin", initial_window=4), 100))
    assert "step.usage" in str(caught.value.exceptions[0])
    run_jumping(main(make_controller("twin", initial_window=4), Usage(80, 20)))


def test_outages_are_logged_once_and_so_is_their_end(caplog: pytest.LogCaptureFixture) -> None:
    async def read() -> Snapshot:
        now_s = asyncio.get_running_loop().time()
        if 2.5 < now_s < 6.5:
            raise ScrapeError("gone")
        return Snapshot(time_s=now_s)

    async def main() -> None:
        async with controlled(Odd(lambda _: 1), read):
            await asyncio.sleep(10.5)

    with caplog.at_level("WARNING"):
        run_jumping(main())
    assert [record.getMessage() for record in caplog.records] == [
        "no decision at 3.0 s, the window stays: gone",
        "metrics are read again at 7.0 s",
    ]
