"""Laws that read agents, at a live gate: agents of one call, and answers that bring no `usage`."""

import asyncio
import json

import pytest

from concur import make_controller
from concur.controllers import make_gate
from concur.decision import Tick
from concur.live.controlling import control
from concur.live.errors import UsageMissingError
from concur.live.gate import AsyncGate
from concur.signals import Snapshot
from tests.live.helpers import run_jumping


class World:
    """An engine that answers every call after a while; its counters are what its calls have added."""

    def __init__(self, kind: str, *, call_s: float, tokens: int | None) -> None:
        self.controller = make_controller(kind, initial_window=16)
        self.gate = AsyncGate(make_gate(kind, self.controller.window))
        self.ticks: list[Tick] = []
        self.failure: BaseException | None = None
        self._call_s = call_s
        self._tokens = tokens  # of each answer's usage; `None`: it has none
        self._num_calls = 0

    async def read(self) -> Snapshot:
        num_tokens = 100 * self._num_calls
        return Snapshot(
            time_s=self.gate.now_s(),
            prefix_cache_queries_tokens=num_tokens,
            prompt_tokens=num_tokens,
            generation_tokens=num_tokens // 10,
            num_gpu_blocks=10_000,
            block_size=16,
        )

    async def agent(self, name: str, *, num_calls: int, is_last_step: bool) -> None:
        async with self.gate.agent(name) as me:
            for number in range(1, num_calls + 1):
                async with me.last_step() if is_last_step and number == num_calls else me.step() as step:
                    await asyncio.sleep(self._call_s)
                    self._num_calls += 1
                    if self._tokens is not None:
                        step.context_tokens = number * self._tokens

    async def batch(self, num_agents: int, *, num_calls: int, is_last_step: bool = True) -> None:
        loop = asyncio.create_task(
            control(
                self.controller,
                self.gate,
                self.read,
                interval_s=self.controller.interval_s,
                on_tick=self.ticks.append,
                on_stale=print,
            )
        )
        async with asyncio.TaskGroup() as tasks:
            for number in range(num_agents):
                tasks.create_task(self.agent(f"a{number}", num_calls=num_calls, is_last_step=is_last_step))
        loop.cancel()
        await asyncio.wait([loop])
        self.failure = None if loop.cancelled() else loop.exception()


@pytest.mark.parametrize("is_last_step", [True, False])
@pytest.mark.parametrize("call_s", [0.3, 2.5])
def test_agents_of_one_call_open_the_hybrids_window(call_s: float, is_last_step: bool) -> None:
    world = World("hybrid", call_s=call_s, tokens=110)
    run_jumping(world.batch(600, num_calls=1, is_last_step=is_last_step))
    assert world.gate.gate.window > 100
    assert world.gate.gate.departed.agents == world.gate.gate.departed.calls == 600
    assert world.gate.gate.departed.tokens == world.gate.gate.departed.call_tokens == 600 * 110
    assert world.ticks[-1].snapshot.time_s < 600 / 16 * call_s / 2


@pytest.mark.parametrize("kind", ["hybrid", "ledger"])
@pytest.mark.parametrize("num_calls", [1, 8])
def test_a_loop_that_never_reports_usage_holds_the_window_and_says_so(kind: str, num_calls: int) -> None:
    world = World(kind, call_s=1.5, tokens=None)
    run_jumping(world.batch(100, num_calls=num_calls))
    assert {tick.window for tick in world.ticks if json.loads(tick.state).get("has_usage") == 0} == {16}
    assert json.loads(world.ticks[-1].state) == {"has_usage": 0}
    assert world.gate.gate.window == 16
    assert isinstance(world.failure, UsageMissingError)
