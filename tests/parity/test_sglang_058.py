"""Every step as SGLang 0.5.8's own scheduler decides it, which needs that release in front of the other.

`make test-sglang` puts it there; with 0.5.23 alone these are skipped.
"""

import secrets
from dataclasses import replace
from itertools import product

import pytest

from concur.sim.engine.sglang_config import SglangConfig
from concur.validate.parity.sglang_engine import sglang_version
from concur.validate.parity.sglang_fuzz import explain_fuzz, fuzz
from concur.validate.parity.worlds import World
from tests.parity.identical_sglang import identical
from tests.parity.sglang_scenarios import BEGINNINGS, CORNERS, POOLS, early_world, trace_world, with_limit

pytestmark = pytest.mark.sglang
modes = pytest.mark.parametrize("is_overlapped", [False, True], ids=["normal", "overlap"])
pages = pytest.mark.parametrize("page_size", [1, 16])


@pytest.fixture(autouse=True)
def release() -> str:
    if sglang_version() != "0.5.8":
        pytest.skip(f"SGLang {sglang_version()} is in front, not 0.5.8")
    return sglang_version()


def of_058(world: World) -> World:
    scenario, workload = world
    assert isinstance(scenario.engine, SglangConfig)
    engine = scenario.engine.model_copy(update={"release": "0.5.8"})
    return scenario.model_copy(update={"engine": engine}), workload


@modes
@pages
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", BEGINNINGS)
def test_real_traces_are_identical(name: str, pool: str, page_size: int, is_overlapped: bool) -> None:
    for policy, is_mixed in product(["fcfs", "lpm"], [False, True]):
        settings = {"page_size": page_size, "schedule_policy": policy, "enable_mixed_chunk": is_mixed}
        world = trace_world(name, pool, is_overlapped=is_overlapped, **settings)
        coverage = identical(of_058(world)).coverage
        assert coverage.num_cached_tokens > 0
        assert coverage.num_mixed > 0 or not is_mixed


@modes
@pages
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name: str, page_size: int, is_overlapped: bool) -> None:
    coverage = identical(of_058(CORNERS[name](is_overlapped=is_overlapped, page_size=page_size))).coverage
    if name == "retracting":
        assert coverage.num_retractions > 10
    if name == "mixed":
        assert coverage.num_mixed > 20
        assert coverage.num_chunks > 20


@modes
def test_generated_tokens_are_never_found_again(is_overlapped: bool) -> None:
    coverage = identical(of_058(early_world(is_overlapped=is_overlapped))).coverage
    assert coverage.num_cached_tokens > 1000
    assert coverage.num_generated_tokens_reused == 0


@modes
def test_a_large_limit_is_not_cut_to_the_pool(is_overlapped: bool) -> None:
    scenario, workload = early_world(is_overlapped=is_overlapped)
    agents = tuple(with_limit(agent, 4000) for agent in workload.agents)
    identical(of_058((scenario, replace(workload, agents=agents))))


@pytest.mark.parametrize("seed", [0, None], ids=["fixed seed", "fresh seed"])
def test_random_worlds_are_identical(seed: int | None) -> None:
    seed = secrets.randbelow(2**31) if seed is None else seed
    result = fuzz(150, seed, release="0.5.8")
    print(f"seed {seed}: {explain_fuzz(result, '0.5.8')}")
    assert result.failure is None, f"seed {seed}\n{explain_fuzz(result, '0.5.8')}"
    assert result.num_worlds >= 150
    assert min(result.coverage.num_chunks, result.coverage.num_mixed, result.coverage.num_early_ends) > 0
