"""What holds for every law of the catalog, on readings recorded from simulated runs and on random ones.

`concur` is the paper's law, bare: it grows whenever usage is low, on a stale gauge too. Where that matters it
is tested inside the guard that mends it.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import concur.sim.world.simulate
from concur.controllers import CATALOG, Controller, LogValue, make_controller
from concur.signals import UNLIMITED, AgentView, Snapshot
from concur.sim.record.record import RunRecord
from concur.sim.scenario.scenario import Scenario
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario, make_snapshot

KINDS = list(CATALOG)
ADAPTIVE = [kind for kind in KINDS if kind not in ("none", "request_cap", "agent_cap")]
GUARDS: dict[str, tuple[str, ...]] = {"concur": ("fresh",)}
PARAMS: dict[str, dict[str, Any]] = {"request_cap": {"cap": 4}, "agent_cap": {"cap": 4}}
INTERVAL_S = 1.0

Reading = tuple[Snapshot, int]


def build(kind: str, *, wrappers: tuple[str, ...] = ()) -> Controller:
    return make_controller(kind, wrappers=wrappers, **PARAMS.get(kind, {}), interval_s=INTERVAL_S)


class Recorder:
    """Keep what a controller was shown and what it said."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.readings: list[Reading] = []
        self.windows: list[int] = []

    @property
    def reads_agents(self) -> bool:
        return True

    @property
    def window(self) -> int:
        return self._controller.window

    @window.setter
    def window(self, window: int) -> None:
        self._controller.window = window

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        self.readings.append((snapshot, active))
        self.windows.append(self._controller.update(snapshot, active=active))
        return self.windows[-1]

    def log_state(self) -> dict[str, LogValue]:
        return self._controller.log_state()


@cache
def recorded(kind: str) -> tuple[Recorder, RunRecord]:
    """A run that collapses without control: 48 agents in a pool of about eight, and a tenant for a while."""
    scenario = make_scenario(
        workload={"num_agents": 48},
        engine={"num_gpu_blocks": 2501},
        controller={"kind": kind, "interval_s": INTERVAL_S} | PARAMS.get(kind, {}),
        tenant={
            "num_requests": 4,
            "prompt_tokens": 4000,
            "output_tokens": 500,
            "start_s": 30.0,
            "end_s": 50.0,
        },
    )
    recorders: list[Recorder] = []

    def record(recorded: Scenario) -> list[Recorder]:
        config = recorded.controller
        law = make_controller(config.kind, wrappers=config.wrappers, **config.parameters)
        recorders.append(Recorder(law))
        return recorders[-1:]

    with patch.object(concur.sim.world.simulate, "build_controllers", record):
        run = simulate(scenario)
    return recorders[0], run


def replay(controller: Controller, readings: list[Reading]) -> list[int]:
    return [controller.update(snapshot, active=active) for snapshot, active in readings]


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_readings_replay_to_the_same_windows(kind: str) -> None:
    recorder, run = recorded(kind)
    assert replay(build(kind), recorder.readings) == recorder.windows == run.ticks["window"].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_every_agent_ends_and_nobody_starves(kind: str) -> None:
    _, run = recorded(kind)
    assert len(run.agents) == 48
    assert run.metrics["step_wait_s"]["max"] <= 1800 + INTERVAL_S


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_the_recorded_runs_are_not_vacuous(kind: str) -> None:
    """Every adaptive law both grows and cuts in its run, or the tests on them would say nothing."""
    recorder, _ = recorded(kind)
    assert len(recorder.readings) > 60
    steps = [after - before for before, after in pairwise(recorder.windows)]
    assert max(steps) > 0
    assert min(steps) < 0 or kind == "concur"  # the paper's law never needs to cut here


def on_the_way(kind: str, readings: list[Reading]) -> Iterator[tuple[int, Controller]]:
    """Yield a law that has seen the first n readings, and may be spoilt, for every fourth n."""
    controller = build(kind)
    for number, (snapshot, active) in enumerate(readings):
        if number % 4 == 1:
            yield number, deepcopy(controller)
        controller.update(snapshot, active=active)


def worse(snapshot: Snapshot, before: Snapshot, how: str) -> Snapshot:
    """The same reading, but with more distress in one signal."""
    return {
        "fuller": replace(snapshot, kv_cache_usage_frac=min(1.0, snapshot.kv_cache_usage_frac + 0.3)),
        "no hits": replace(snapshot, prefix_cache_hits_tokens=before.prefix_cache_hits_tokens),
        "queue": replace(snapshot, num_requests_waiting=snapshot.num_requests_waiting + 50),
        "preempted": replace(snapshot, num_preemptions=snapshot.num_preemptions + 5),
        "smaller": replace(
            snapshot,
            num_gpu_blocks=snapshot.num_gpu_blocks // 2,
            kv_cache_usage_frac=min(1.0, 2 * snapshot.kv_cache_usage_frac),
        ),
    }[how]


@pytest.mark.parametrize("how", ["fuller", "no hits", "queue", "preempted", "smaller"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_worse_reading_never_opens_the_window_further(kind: str, how: str) -> None:
    recorder, _ = recorded(kind)
    readings = recorder.readings
    for number, controller in on_the_way(kind, readings):
        snapshot, active = readings[number]
        window = controller.update(worse(snapshot, readings[number - 1][0], how), active=active)
        assert window <= recorder.windows[number], f"tick {number}"


def moved(snapshot: Snapshot, passed_s: float, **changes: Any) -> Snapshot:
    return replace(snapshot, time_s=snapshot.time_s + passed_s, **changes)


def stale(snapshot: Snapshot, how: str) -> Snapshot:
    """A reading after `snapshot` from which nothing may be concluded, not even that all have left."""
    snapshot = replace(
        snapshot,
        num_requests_waiting=0,
        agents=tuple(AgentView(f"n{n}", 500 + n, 0.0, waiting_since_s=snapshot.time_s) for n in range(200)),
    )
    counters = ("prefix_cache_queries_tokens", "prefix_cache_hits_tokens", "generation_tokens")
    return {
        "again": snapshot,
        "frozen": moved(snapshot, INTERVAL_S, num_requests_running=max(1, snapshot.num_requests_running)),
        "outage": moved(
            snapshot,
            100.0,
            **{name: getattr(snapshot, name) + 10 for name in counters},
            kv_cache_usage_frac=0,
        ),
        "restart": moved(snapshot, INTERVAL_S, **dict.fromkeys(counters, 0), kv_cache_usage_frac=0.0),
    }[how]


@pytest.mark.parametrize("how", ["again", "frozen", "outage", "restart"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "concur"])
def test_a_stale_reading_opens_nothing(kind: str, how: str) -> None:
    readings = recorded(kind)[0].readings
    for number, controller in on_the_way(kind, readings):
        window = controller.window
        snapshot, active = readings[number - 1]
        assert controller.update(stale(snapshot, how), active=active) <= window, f"tick {number}"


@pytest.mark.parametrize("how", ["again", "frozen", "restart"])
def test_the_papers_law_opens_on_stale_readings_and_its_guard_does_not(how: str) -> None:
    low = make_snapshot(10.0, kv_cache_usage_frac=0.1, num_requests_running=3, generation_tokens=9)
    for wrappers, opens in (((), True), (("fresh",), False)):
        law = build("concur", wrappers=wrappers)
        window = law.update(low, active=16)
        assert (law.update(stale(low, how), active=16) > window) is opens


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "concur"])
def test_absent_signals_open_nothing(kind: str) -> None:
    """An engine that publishes nothing: only time passes, while agents hold slots and others wait."""
    controller = build(kind)
    window = controller.window
    for number in range(100):
        assert controller.update(make_snapshot(number * INTERVAL_S, agents_waiting=50), active=16) <= window


@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_engine_never_locks_its_queue_out(kind: str) -> None:
    """After the worst of times, with nobody active, usage 0 and a full queue: someone must get in."""
    controller = build(kind, wrappers=GUARDS.get(kind, ()))
    replay(controller, recorded("none")[0].readings)
    last = recorded("none")[0].readings[-1][0]
    waiting = tuple(
        AgentView(f"w{n}", 1000 + n, last.time_s, waiting_since_s=last.time_s, context_tokens=9000)
        for n in range(20)
    )
    for number in range(1, 50):
        idle = moved(
            last,
            number * INTERVAL_S,
            num_requests_running=0,
            num_requests_waiting=0,
            kv_cache_usage_frac=0.0,
            agents=waiting,
            agents_waiting=20,
        )
        assert controller.update(idle, active=0) >= 1


fractions = st.floats(0, 1)
ticks = st.tuples(
    st.floats(0, 60),
    *[st.integers(0, 10**6)] * 4,
    st.integers(0, 300),
    st.integers(0, 300),
    fractions,
    st.integers(0, 400),
    st.booleans(),
)


def view(number: int, time_s: float, seed: int) -> AgentView:
    steps = (seed + number) % 7
    return AgentView(
        f"a{number}",
        number,
        0.0,
        admitted_s=0.0 if steps else None,
        waiting_since_s=time_s / 2 if (seed ^ number) % 3 == 0 else None,
        context_tokens=steps * (100 + seed % 5000),
        steps_done=steps,
        prefix_group="g" if number % 2 else None,
        shared_prefix_tokens=64 if number % 2 else 0,
        is_in_step=(seed ^ number) % 3 == 1,
        holds_slot=(seed ^ number) % 3 != 0,
    )


@given(st.sampled_from(KINDS), st.lists(ticks, min_size=1, max_size=30))
@settings(max_examples=150, deadline=None)
def test_the_window_is_a_whole_number_from_one_to_unlimited(kind: str, story: list[Any]) -> None:
    controller = build(kind)
    time_s, sums = 0.0, [0, 0, 0, 0]
    for passed_s, queries, hits, generated, preempted, running, waiting, usage, agents, restarts in story:
        time_s += passed_s
        added = (queries, min(hits, queries), generated, preempted % 5)
        sums = [0, 0, 0, 0] if restarts else [total + more for total, more in zip(sums, added, strict=True)]
        snapshot = make_snapshot(
            time_s,
            prefix_cache_queries_tokens=sums[0],
            prefix_cache_hits_tokens=sums[1],
            generation_tokens=sums[2],
            num_preemptions=sums[3],
            num_requests_running=running,
            num_requests_waiting=waiting,
            kv_cache_usage_frac=usage,
            num_gpu_blocks=agents * 10,
            block_size=16,
            agents=tuple(view(number, time_s, generated + agents) for number in range(agents % 12)),
        )
        window = controller.update(snapshot, active=agents)
        assert type(window) is int
        assert 1 <= window == controller.window <= UNLIMITED
        assert all(isinstance(value, int | float | str | None) for value in controller.log_state().values())


@pytest.mark.parametrize("bound_s", [20.0, 60.0])
def test_the_starvation_bound_of_the_hybrid_holds_in_seconds(bound_s: float) -> None:
    """Gate and law have the same bound: whoever has waited for it gets a step within one interval."""
    scenario = make_scenario(
        workload={"num_agents": 48},
        engine={"num_gpu_blocks": 1001},
        controller={"kind": "hybrid", "interval_s": INTERVAL_S, "max_wait_s": bound_s},
        gate={"max_wait_s": bound_s},
    )
    run = simulate(scenario)
    assert run.metrics["step_wait_s"]["max"] <= bound_s + INTERVAL_S
    unbound = simulate(
        make_scenario(
            workload={"num_agents": 48}, engine={"num_gpu_blocks": 1001}, controller={"kind": "hybrid"}
        )
    )
    assert unbound.metrics["step_wait_s"]["max"] > bound_s + INTERVAL_S, "or the bound has nothing to do"
