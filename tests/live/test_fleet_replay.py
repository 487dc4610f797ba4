"""A workload on two live servers: per-engine gates, a server that dies in the middle, one that comes back."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from concur.controllers import make_controller
from concur.errors import ParameterError
from concur.gate import AgentGate
from concur.gate.fleet import EngineGates
from concur.live.errors import ScrapeError
from concur.live.fleet import ControlledFleet
from concur.live.gate import LiveAgent
from concur.routing import RoutedCall, make_router
from concur.signals import Snapshot
from concur.sim.scenario.scenario import Scenario
from concur.sim.world.simulate import simulate
from concur.validate.live.client import RetryPolicy
from concur.validate.live.fake_server import FakeEngine, FakeServer, Faults
from concur.validate.live.fleet_replay import FleetRun
from tests.live.helpers import as_server, live_scenario, run_jumping, small_workload

ONCE = RetryPolicy(max_attempts=1, timeout_s=5.0)
GATES: list[dict[str, Any]] = [
    {"gate": "global", "routing": "least_loaded"},
    {"gate": "per_engine", "routing": "session"},
    {"gate": "placement", "move_after_s": 0.01},
]


def two(fleet: dict[str, Any], cap: int = 3) -> Scenario:
    return live_scenario(controller={"kind": "agent_cap", "cap": cap}, fleet=fleet | {"num_engines": 2})


def run_on_two(scenario: Scenario, *, die_at_call: int | None = None, num_agents: int = 10) -> Any:
    """Run on two fake servers; the second one dies at that call. Return the run and the servers."""

    async def main() -> tuple[FleetRun, Sequence[FakeServer]]:
        engine = FakeEngine(token_s=0.001)
        dying = Faults(die_at_call=die_at_call)
        async with FakeServer(engine).running() as one, FakeServer(engine, dying).running() as other:
            servers = [as_server(one), as_server(other)]
            run = FleetRun(scenario, small_workload(num_agents), servers, retry=ONCE)
            await run.run()
            return run, (one, other)

    return asyncio.run(main())


def assert_nothing_leaks(run: FleetRun) -> None:
    fleet = run.gate.fleet
    assert (fleet.active, fleet.paused, fleet.waiting) == (0, 0, 0)
    assert [load.num_in_flight for load in fleet.loads] == [0, 0]


@pytest.mark.parametrize("fleet", GATES, ids=str)
def test_each_server_gets_what_the_record_says(fleet: dict[str, Any]) -> None:
    run, servers = run_on_two(two(fleet))
    record = run.record()
    assert (record.run["complete"], record.run["warnings"]) == (True, [])
    assert len(record.requests) == 30
    for index, server in enumerate(servers):
        own = record.requests[record.requests["engine_index"] == index]
        assert len(own) == len(server.served) > 0
        assert own["prompt_tokens"].sum() == sum(len(served.prompt) for served in server.served)
        assert record.metrics["engines"][index]["cached_tokens"] == sum(
            served.cached_tokens for served in server.served
        )
        if fleet["gate"] != "global":
            assert server.most_running <= 3
    last = record.engines.groupby("engine_index").last()
    assert last["generation_tokens"].sum() == record.metrics["generated_tokens"] == 180
    assert set(record.ticks["engine_index"].dropna()) == (set() if fleet["gate"] == "global" else {0, 1})
    assert_nothing_leaks(run)


@pytest.mark.parametrize("fleet", GATES, ids=str)
def test_when_a_server_dies_its_agents_go_on_elsewhere_and_nothing_is_lost(fleet: dict[str, Any]) -> None:
    run, (alive, dead) = run_on_two(two(fleet), die_at_call=4)
    record = run.record()
    assert record.run["failures"] == []
    assert len(record.requests) == 30
    assert len(record.agents) == 10
    assert sorted(zip(record.requests["agent_index"], record.requests["call_index"], strict=True)) == [
        (agent, call) for agent in range(10) for call in range(3)
    ]
    finished_there = sum(served.is_complete for served in dead.served)
    counts = record.requests["engine_index"].value_counts()
    assert counts.get(1, 0) == finished_there < 10
    assert counts[0] == 30 - finished_there == sum(served.is_complete for served in alive.served)
    assert record.engines.groupby("engine_index")["is_up"].last().to_list() == [1, 0]
    assert any("engine 1" in text and "does not answer" in text for text in record.run["warnings"])
    assert any("the call was made elsewhere" in text for text in record.run["warnings"])
    assert_nothing_leaks(run)


def test_what_is_routed_live_is_what_is_routed_in_the_simulator() -> None:
    scenario = two({"gate": "per_engine", "routing": "session"})
    run, _ = run_on_two(scenario)
    live = run.record().requests.groupby("agent_index")["engine_index"].unique()
    simulated = (
        simulate(scenario, small_workload(10)).requests.groupby("agent_index")["engine_index"].unique()
    )
    assert [each.tolist() for each in live] == [each.tolist() for each in simulated]


def test_as_many_servers_as_engines() -> None:
    with pytest.raises(ParameterError, match="servers = 1 but must be 2, as the scenario has engines"):
        FleetRun(two(GATES[0]), small_workload(), [as_server(FakeServer())])


async def engine_of_step(agent: LiveAgent) -> int | None:
    async with agent.step() as step:
        return step.engine


class TestControlledFleet:
    """On a clock that jumps."""

    def test_keeps_a_collapsed_engine_apart_and_cuts_its_window_alone(self) -> None:
        async def main() -> list[int]:
            tokens = [0, 0]

            async def read(engine: int) -> Snapshot:
                tokens[engine] += 1000
                hits = tokens[engine] if engine == 0 else 0
                usage = 0.3 if engine == 0 else 0.95
                return Snapshot(
                    time_s=asyncio.get_running_loop().time(),
                    num_requests_running=8,
                    kv_cache_usage_frac=usage,
                    prefix_cache_queries_tokens=tokens[engine],
                    prefix_cache_hits_tokens=hits,
                )

            laws = [make_controller("concur", interval_s=1.0, initial_window=16) for _ in range(2)]
            fleet = EngineGates([AgentGate(16), AgentGate(16)], make_router("session"))
            reads = [lambda: read(0), lambda: read(1)]
            async with (
                ControlledFleet(laws, fleet, reads, watch_s=100.0) as gate,
                gate.agent("a") as one,
                gate.agent("b") as other,
                one.step(RoutedCall("a", "a", 1)),
                other.step(RoutedCall("b", "b", 1)),
            ):
                await asyncio.sleep(8.5)
                return [each.window for each in fleet.gates]

        windows = run_jumping(main())
        assert windows[1] < 16
        assert windows[1] < windows[0]

    def test_takes_an_engine_for_down_after_three_readings_and_for_up_after_one(self) -> None:
        states: list[tuple[float, int, bool]] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()

            async def read(engine: int) -> Snapshot:
                if engine == 1 and 2.5 < loop.time() < 9.5:
                    raise ScrapeError("no answer")
                return Snapshot(
                    time_s=loop.time(),
                    num_requests_running=engine + 1,
                    generation_tokens=7,
                    num_gpu_blocks=11,
                    block_size=16,
                )

            fleet = EngineGates([AgentGate(1), AgentGate(1)], make_router("round_robin"))
            laws = [make_controller("agent_cap", cap=1, interval_s=1000.0) for _ in range(2)]
            on_state = lambda engine, is_up: states.append((loop.time(), engine, is_up))  # noqa: E731
            reads = [lambda: read(0), lambda: read(1)]
            async with (
                ControlledFleet(laws, fleet, reads, watch_s=1.0, on_state=on_state) as gate,
                gate.agent("a") as one,
                gate.agent("b") as two,
                gate.agent("c") as three,
            ):
                async with one.step(), two.step():
                    waiting = asyncio.create_task(engine_of_step(three))
                    await asyncio.sleep(6.5)
                    summed = await gate.read_all()
                    assert (summed.num_requests_running, summed.generation_tokens) == (1, 14)
                assert await waiting == 0
                await asyncio.sleep(5.0)

        run_jumping(main())
        assert states == [(5.0, 1, False), (10.0, 1, True)]
