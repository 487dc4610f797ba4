"""The fast engine (segments and leaps) leaves the reference engine's record, byte for byte."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from concur.sim.engine.config import RELEASES
from concur.sim.engine.vllm.build import build_core
from concur.sim.engine.vllm.fast import FastCore
from concur.sim.record.record import RunRecord
from concur.sim.step_time.make import make_step_time
from concur.validate.parity.worlds import World, of_release, priority_worlds, worlds
from tests.helpers import make_scenario
from tests.parity.scenarios import (
    CORNERS,
    TRACE_CASES,
    TraceCase,
    corner,
    latecomers_world,
    trace_world,
    with_priorities,
)
from tests.sim.two_cores import assert_same_bytes, both

FEW_OF_LONG = {"starved": 5, "knee": 12, "ample": 12}
"""Agents of up to 131k tokens: five starve the small pool, twelve overflow the one at the knee."""
modes = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@modes
@pytest.mark.parametrize("pool", ["starved", "knee", "ample"])
@pytest.mark.parametrize("case", TRACE_CASES, ids=lambda case: case.file.split(".")[0])
def test_real_traces(case: TraceCase, pool: str, is_async: bool, tmp_path: Path) -> None:
    scenario, workload = trace_world(case, pool, is_async=is_async)
    if "weka" in case.file:
        workload = replace(workload, agents=workload.agents[: FEW_OF_LONG[pool]])
    assert_same_bytes(*both(scenario, workload), tmp_path)


@modes
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name: str, is_async: bool, tmp_path: Path) -> None:
    assert_same_bytes(*both(*corner(name, is_async=is_async)), tmp_path)


@given(worlds())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_worlds(tmp_path_factory: pytest.TempPathFactory, world: World) -> None:
    fast, reference = both(*world)
    event(f"falls back: {falls_back(fast)}")
    assert_same_bytes(fast, reference, tmp_path_factory.mktemp("worlds"))


@modes
@pytest.mark.parametrize("name", [*CORNERS, "latecomers"])
def test_corners_under_priority(name: str, is_async: bool, tmp_path: Path) -> None:
    make = latecomers_world if name == "latecomers" else CORNERS[name]
    fast, reference = both(*with_priorities(make(is_async=is_async)))
    assert_same_bytes(fast, reference, tmp_path)
    assert name == "lone" or not falls_back(fast)


@given(worlds(least_agents=6).map(with_priorities))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_worlds_under_priority(tmp_path_factory: pytest.TempPathFactory, world: World) -> None:
    fast, reference = both(*world)
    event(f"falls back: {falls_back(fast)}, preempts: {fast.metrics['num_preemptions'] > 0}")
    assert_same_bytes(fast, reference, tmp_path_factory.mktemp("worlds"))


@modes
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("release", RELEASES)
def test_corners_of_every_release(release: str, policy: str, is_async: bool, tmp_path: Path) -> None:
    for name in CORNERS:
        scenario, workload = corner(name, is_async=is_async)
        if policy == "priority":
            scenario, workload = with_priorities((scenario, workload))
        engine = scenario.vllm.model_copy(update={"release": release})
        fast, reference = both(scenario.model_copy(update={"engine": engine}), workload)
        assert_same_bytes(fast, reference, tmp_path / name)


_any_of_them = st.one_of(worlds(least_agents=6), priority_worlds(is_plain=True))


@given(st.sampled_from(RELEASES).flatmap(lambda release: of_release(_any_of_them, release)))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_worlds_of_every_release(tmp_path_factory: pytest.TempPathFactory, world: World) -> None:
    fast, reference = both(*world)
    event(f"{world[0].vllm.release}, preempts: {fast.metrics['num_preemptions'] > 0}")
    assert_same_bytes(fast, reference, tmp_path_factory.mktemp("worlds"))


def falls_back(record: RunRecord) -> bool:
    """Whether the world had duplicates, for which the fast engine gives way to the reference: it says so."""
    return any("simulated block by block" in warning for warning in record.run["warnings"])


def test_the_default_engine_is_the_fast_one_and_a_host_cache_takes_the_reference() -> None:
    step_time = make_step_time(make_scenario().step_time)
    assert isinstance(build_core(make_scenario().vllm, step_time), FastCore)
    hosted = make_scenario(engine={"host_cache": {"capacity_tokens": 99}}).vllm
    assert not isinstance(build_core(hosted, step_time), FastCore)


def test_duplicates_are_met_and_handled(tmp_path: Path) -> None:
    fast, reference = both(*corner("lone", is_async=False))
    assert falls_back(fast)
    assert not falls_back(reference)
    assert_same_bytes(fast, reference, tmp_path / "lone")
    fast, reference = both(*corner("crowded", is_async=False))
    assert not falls_back(fast)
    assert_same_bytes(fast, reference, tmp_path / "crowded")
