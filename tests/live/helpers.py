"""For tests of the live half: an event loop whose clock jumps, and a small world on a fake server."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from concur.sim.record.record import RunRecord
from concur.sim.scenario.scenario import Scenario
from concur.sim.workload.spec import Workload
from concur.validate.live.client import RetryPolicy
from concur.validate.live.fake_server import FakeEngine, FakeServer, Faults
from concur.validate.live.replay import LiveRun
from concur.validate.live.server import Server
from tests.helpers import make_agent, make_scenario, make_workload

T = TypeVar("T")
QUICK = RetryPolicy(max_attempts=3, timeout_s=5.0, first_pause_s=0.001, max_pause_s=0.01)


class _JumpingSelector(selectors.SelectSelector):
    """Where a loop would sleep, its clock jumps instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now_s += max(timeout, 0.0)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on simulated time: sleeps take none, and instants are exact."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run_jumping(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop whose clock jumps."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


def live_scenario(**sections: dict[str, Any]) -> Scenario:
    """A scenario with ticks and samples every few milliseconds."""
    given: dict[str, dict[str, Any]] = {
        "controller": {"kind": "none", "interval_s": 0.02},
        "record": {"timeline_interval_s": 0.01},
        "engine": {"num_gpu_blocks": 101, "block_size": 16, "max_model_len": 1024},
    }
    for name, section in sections.items():
        given[name] = given.get(name, {}) | section
    return make_scenario(**given)


def small_workload(num_agents: int = 5, num_calls: int = 3) -> Workload:
    """Agents with a shared prefix of 32 tokens, 40 new ones and 6 of output per call."""
    return make_workload(
        *(
            make_agent(index, [(40, 6)] * num_calls, wait_s=0.002, group="team", shared=32)
            for index in range(num_agents)
        )
    )


async def live_run(
    scenario: Scenario,
    workload: Workload,
    *,
    faults: Faults | None = None,
    token_s: float = 0.001,
    num_gpu_blocks: int = 101,
    tells_cached_tokens: bool = True,
    retry: RetryPolicy = QUICK,
    stream: bool = True,
) -> tuple[LiveRun, FakeServer]:
    """Run a workload on a fake server to its end."""
    engine = FakeEngine(
        token_s=token_s, num_gpu_blocks=num_gpu_blocks, tells_cached_tokens=tells_cached_tokens
    )
    async with FakeServer(engine, faults).running() as server:
        run = LiveRun(scenario, workload, as_server(server), retry=retry, stream=stream)
        await run.run()
        return run, server


def as_server(fake: FakeServer) -> Server:
    """What the harness takes a fake server for."""
    return Server(fake.url, "fake", {"vllm": "0.32.0"})


def run_on_fake(
    scenario: Scenario, workload: Workload, **options: Any
) -> tuple[RunRecord, FakeServer, LiveRun]:
    """Run a workload on a fake server; return its record, the server's truth and the run."""
    run, server = asyncio.run(live_run(scenario, workload, **options))
    return run.record(), server, run
