"""SGLang's fast core (leaps) leaves the reference's record, byte for byte."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import astuple
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from concur.sim.engine.core import EngineCore
from concur.sim.engine.sglang.core import build_sglang_core
from concur.sim.engine.sglang.fast import FastScheduler, FastSglangCore, build_fast_sglang_core
from concur.sim.engine.sglang.output import BatchOutput
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.kv.radix import RadixTree
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import RecordConfig
from concur.sim.step_time.make import make_step_time
from concur.sim.world.cores import core_of, reference_core_of
from concur.sim.world.simulate import simulate
from concur.validate.parity.sglang_worlds import sglang_worlds
from concur.validate.parity.worlds import World
from tests.parity.sglang_scenarios import BEGINNINGS, CORNERS, POOLS, retracting_world, trace_world
from tests.sim.two_cores import assert_same_bytes, both

LINK = {"bandwidth_bytes_per_s": 2e9, "kv_bytes_per_token": 262_144}
modes = pytest.mark.parametrize("is_overlapped", [False, True], ids=["normal", "overlap"])
pages = pytest.mark.parametrize("page_size", [1, 16])


class Counting(FastScheduler):
    """The fast scheduler; it counts the steps that it decides one by one."""

    num_single_steps = 0

    def schedule(self) -> BatchOutput:
        """Count, and decide."""
        output = super().schedule()
        self.num_single_steps += not output.batch.is_empty
        return output


@modes
@pages
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", BEGINNINGS)
def test_real_traces(name: str, pool: str, page_size: int, is_overlapped: bool, tmp_path: Path) -> None:
    for policy, is_mixed in product(["fcfs", "lpm"], [False, True]):
        engine = {"page_size": page_size, "schedule_policy": policy, "enable_mixed_chunk": is_mixed}
        world = trace_world(name, pool, is_overlapped=is_overlapped, **engine)
        assert_same_bytes(*both(*world), tmp_path / f"{policy}-{is_mixed}")


@modes
@pages
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name: str, page_size: int, is_overlapped: bool, tmp_path: Path) -> None:
    scenario, workload = CORNERS[name](is_overlapped=is_overlapped, page_size=page_size)
    for interval_s in (1.0, 0.01):  # a dense timeline sees each step, and cuts leaps short
        dense = scenario.model_copy(update={"record": RecordConfig(timeline_interval_s=interval_s)})
        fast, reference = both(dense, workload)
        assert_same_bytes(fast, reference, tmp_path / f"{interval_s}")
        assert fast.metrics["num_preemptions"] > 10 or name != "retracting"


@given(sglang_worlds())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_worlds(tmp_path_factory: pytest.TempPathFactory, world: World) -> None:
    assert_same_bytes(*both(*world), tmp_path_factory.mktemp("worlds"))


@modes
@pytest.mark.parametrize("name", ["retracting", "growing", "early", "crowded"])
def test_most_steps_are_leapt_over(name: str, is_overlapped: bool) -> None:
    scenario, workload = CORNERS[name](is_overlapped=is_overlapped, page_size=16)
    config = config_of(scenario)
    scheduler = Counting(config, RadixTree(config.pool_tokens, config.page_size))
    core = FastSglangCore(config, make_step_time(scenario.step_time), scheduler)
    simulate(scenario, workload, core=core)
    assert 0 < scheduler.num_single_steps < core.totals.num_steps / 2


def config_of(scenario: Scenario) -> SglangConfig:
    assert isinstance(scenario.engine, SglangConfig)
    return scenario.engine


def raw_of(scenario: Scenario) -> dict[str, Any]:
    return config_of(scenario).model_dump()


@modes
@pytest.mark.parametrize(
    "keys",
    [{}, {"release": "0.5.8"}, {"hierarchical_cache": {"hicache_ratio": 1.0, **LINK}}],
    ids=["0.5.23", "0.5.8", "hicache"],
)
@pytest.mark.parametrize("build", [build_sglang_core, build_fast_sglang_core])
def test_a_copy_in_the_middle_of_a_run_is_the_same_engine(
    build: Callable[..., Any], keys: dict[str, Any], is_overlapped: bool
) -> None:
    scenario, workload = retracting_world(is_overlapped=is_overlapped)
    config = SglangConfig(**raw_of(scenario) | keys)
    core = build(config, make_step_time(scenario.step_time))
    simulate(scenario, workload, core=core, end_s=1.5)
    twin = deepcopy(core)
    assert run_to_end(twin) == run_to_end(core)
    assert core.stats.num_preemptions > 0


def run_to_end(core: EngineCore) -> tuple[Any, ...]:
    calls = []
    while core.next_change_s < inf:
        finished = core.run_until(inf)
        calls += [(r.request_id, r.finished_s, r.num_cached_tokens, r.num_preemptions) for r in finished]
    assert calls
    return calls, astuple(core.stats), astuple(core.totals)


def test_the_default_engine_is_the_fast_one_and_an_older_release_takes_the_reference() -> None:
    scenario, _ = retracting_world(is_overlapped=True)
    assert isinstance(core_of(scenario), FastSglangCore)
    older = scenario.model_copy(update={"engine": SglangConfig(**raw_of(scenario) | {"release": "0.5.8"})})
    assert not isinstance(core_of(older), FastSglangCore)
    assert not isinstance(reference_core_of(scenario), FastSglangCore)
