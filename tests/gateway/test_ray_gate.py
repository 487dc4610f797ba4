"""The gate as an actor: the class in this process, and on Ray where that is installed."""

import asyncio
from importlib.util import find_spec
from typing import Any

import pytest

from concur.gateway.adapters.ray_gate import GateActor
from concur.validate.live.fake_server import FakeServer
from tests.gateway.helpers import until


def test_a_worker_waits_for_its_turn_and_one_that_dies_loses_it() -> None:
    async def main() -> None:
        async with FakeServer().running() as server:
            actor = GateActor(server.url, "agent_cap", cap=1, end_s=0.05)
            lost = await actor.begin("a")
            waiting = asyncio.create_task(actor.begin("b"))
            assert not await actor.end(123)
            await until(lambda: not actor._turns)  # whoever had it is dead
            assert not waiting.done()  # the slot is an agent's, not a call's
            assert not await actor.end(lost, 10, 2)
            await actor.leave("a")
            ticket = await waiting
            assert await actor.end(ticket, 10, 2)
            assert actor._gate is not None
            assert actor._gate.gate.context_tokens("b") == 12
            await actor.leave("nobody")
            await actor.close()

    asyncio.run(main())


@pytest.mark.alone
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed; it comes with the extra `ray`")
@pytest.mark.filterwarnings("ignore")
def test_workers_on_ray_share_one_gate() -> None:
    import ray

    with FakeServer().in_thread() as server:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        try:
            made: Any = ray.remote(GateActor)
            gate = made.options(num_cpus=0, max_concurrency=100).remote(server.url, "agent_cap", cap=2)

            @ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
            def worker(gate: Any, name: str) -> int:
                for turn in range(3):
                    ticket = ray.get(gate.begin.remote(name))
                    assert ray.get(gate.end.remote(ticket, 10 * (turn + 1), 2))
                ray.get(gate.leave.remote(name))
                return turn

            names = [f"rollout-{number}" for number in range(4)]
            assert ray.get([worker.remote(gate, name) for name in names], timeout=120) == [2] * 4
            ray.get(gate.close.remote())
        finally:
            ray.shutdown()
