"""The simulated shell and the asyncio shell are the same gate: over one script they wake the same agents.

Agents, step times, tool waits and telemetry are scripted; one run is on a SimPy clock, the other on an
asyncio loop whose clock jumps. Both must begin every step at the same instant in the same order, under
windows that shrink and grow.
"""

import asyncio
import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest
import simpy

from concur.controllers import make_controller, make_gate
from concur.controllers.base import Controller
from concur.decision import Tick
from concur.gate import GateOrders
from concur.live.controlling import control
from concur.live.errors import ScrapeError
from concur.live.gate import AsyncGate
from concur.orders import order_named
from concur.signals import Snapshot
from concur.sim.world.agent import SimGate
from tests.live.helpers import run_jumping

INTERVAL_S = 1.0
NUM_TICKS = 60


@dataclass(frozen=True)
class Script:
    """What agents do, and what the engine says at each tick."""

    steps: dict[str, list[tuple[float, float, int]]]  # step time, tool wait, context tokens
    telemetry: list[tuple[float, int, int]]  # KV usage, queries, hits


def make_script(seed: int) -> Script:
    rng = random.Random(seed)
    steps = {
        f"a{number}": [
            (rng.uniform(0.3, 2.5), rng.uniform(0.05, 1.5), rng.randrange(100, 5000))
            for _ in range(rng.randrange(3, 9))
        ]
        for number in range(14)
    }
    telemetry, queries, hits = [], 0, 0
    for _ in range(NUM_TICKS):
        asked = rng.randrange(0, 3) * 1000
        queries, hits = queries + asked, hits + int(asked * rng.choice([0.05, 0.9]))
        telemetry.append((rng.choice([0.1, 0.15, 0.4, 0.9]), queries, hits))
    return Script(steps, telemetry)


def snapshot_at(script: Script, number: int, time_s: float) -> Snapshot:
    usage, queries, hits = script.telemetry[number]
    return Snapshot(
        time_s=time_s,
        kv_cache_usage_frac=usage,
        prefix_cache_queries_tokens=queries,
        prefix_cache_hits_tokens=hits,
    )


@dataclass
class Seen:
    """Begins of steps, and windows, as a run had them."""

    begins: list[tuple[float, str]]
    windows: list[tuple[float, int]]


def make_world(kind: str, order: str) -> tuple[Controller, GateOrders]:
    parameters: dict[str, Any] = {"concur": {"initial_window": 6}, "none": {}}.get(kind, {"cap": 5})
    controller = make_controller(kind, interval_s=INTERVAL_S, **parameters)
    return controller, GateOrders(order_named(order), order_named("oldest"), order_named("youngest"))


def run_simulated(script: Script, kind: str, order: str) -> Seen:
    env, seen = simpy.Environment(), Seen([], [])
    controller, orders = make_world(kind, order)
    shell = SimGate(env, make_gate(kind, controller.window, orders=orders))

    def agent(name: str) -> Generator[simpy.Event, object, None]:
        shell.gate.arrive(name, time_s=env.now)
        for number, (step_s, tool_s, tokens) in enumerate(script.steps[name]):
            yield shell.turn(name)
            seen.begins.append((env.now, name))
            yield env.timeout(step_s)
            if number == len(script.steps[name]) - 1:
                break
            shell.wake(shell.gate.step_done(name, time_s=env.now, context_tokens=tokens))
            yield env.timeout(tool_s)
        shell.wake(shell.gate.leave(name, time_s=env.now))

    def controlling() -> Generator[simpy.Event, object, None]:
        for number in range(NUM_TICKS):
            yield env.timeout((number + 1) * INTERVAL_S - env.now)
            window = controller.update(snapshot_at(script, number, env.now), active=shell.gate.active)
            seen.windows.append((env.now, window))
            shell.wake(shell.gate.resize(window, time_s=env.now))

    for name in script.steps:
        env.process(agent(name))
    env.process(controlling())
    env.run()
    return seen


def run_live(script: Script, kind: str, order: str, *, outage: range = range(0)) -> Seen:
    seen = Seen([], [])
    controller, orders = make_world(kind, order)
    stale: list[float] = []

    async def agent(gate: AsyncGate, name: str) -> None:
        async with gate.agent(name) as handle:
            for number, (step_s, tool_s, tokens) in enumerate(script.steps[name]):
                is_last = number == len(script.steps[name]) - 1
                async with handle.last_step() if is_last else handle.step() as step:
                    seen.begins.append((gate.now_s(), name))
                    await asyncio.sleep(step_s)
                    step.context_tokens = tokens
                if not is_last:
                    await asyncio.sleep(tool_s)

    async def main() -> None:
        gate = AsyncGate(make_gate(kind, controller.window, orders=orders))
        number = -1

        async def read() -> Snapshot:
            nonlocal number
            number += 1
            if number in outage:
                raise ScrapeError("scripted")
            return snapshot_at(script, number, gate.now_s())

        def on_tick(tick: Tick) -> None:
            seen.windows.append((tick.snapshot.time_s, tick.window))

        ticking = asyncio.create_task(
            control(
                controller,
                gate,
                read,
                interval_s=INTERVAL_S,
                on_tick=on_tick,
                on_stale=lambda tick: stale.append(tick.time_s),
            )
        )
        async with asyncio.TaskGroup() as group:
            for name in script.steps:
                group.create_task(agent(gate, name))
        while len(seen.windows) + len(stale) < NUM_TICKS:
            await asyncio.sleep(INTERVAL_S / 2)
        ticking.cancel()
        assert gate.gate.active == gate.gate.paused == gate.gate.waiting == 0

    run_jumping(main())
    assert len(stale) == len(outage)
    return seen


@pytest.mark.parametrize("kind", ["none", "request_cap", "agent_cap", "concur"])
@pytest.mark.parametrize("order", ["longest_waiting", "smallest"])
@pytest.mark.parametrize("seed", range(3))
def test_both_shells_wake_the_same_agents_at_the_same_instants(kind: str, order: str, seed: int) -> None:
    script = make_script(seed)
    simulated, live = run_simulated(script, kind, order), run_live(script, kind, order)
    assert len(live.begins) == sum(map(len, script.steps.values()))
    assert [name for _, name in live.begins] == [name for _, name in simulated.begins]
    assert [t for t, _ in live.begins] == pytest.approx([t for t, _ in simulated.begins])
    assert [window for _, window in live.windows] == [window for _, window in simulated.windows]
    if kind == "concur":
        assert len({window for _, window in live.windows}) > 3, "a window that never moves proves nothing"


def test_a_stale_signal_freezes_the_window_and_the_law_goes_on_afterwards() -> None:
    script = Script({"a": [(1.0, 1.0, 10)] * 3}, [(0.1, 1000 * n, 900 * n) for n in range(NUM_TICKS)])
    windows = dict(run_live(script, "concur", "longest_waiting", outage=range(3, 8)).windows)
    assert windows[3.0] == 12, "three decisions of +2 on 6"
    assert not any(t in windows for t in (4.0, 5.0, 6.0, 7.0, 8.0)), "no decision without a signal"
    assert windows[9.0] == 14, "one decision's growth, not six"
