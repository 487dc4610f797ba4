"""Every step under `--scheduling-policy priority`: traces, corners, every kind of engine, random worlds.

The suite refuses to be vacuous: it proves that requests overtake others, and that those make way who rank
last and not those who began to run last.
"""

import os
import secrets

import pytest

from concur.validate.parity.vllm_scheduler import vllm_version
from tests.parity.identical import assert_identical
from tests.parity.scenarios import (
    CORNERS,
    MODELS,
    TRACE_CASES,
    TraceCase,
    corner,
    latecomers_world,
    offloading,
    shortened,
    with_groups,
    with_priorities,
)

pytestmark = pytest.mark.vllm
modes = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@modes
@pytest.mark.parametrize("case", TRACE_CASES, ids=lambda case: case.file.split(".")[0])
def test_real_traces_are_identical(case: TraceCase, is_async: bool) -> None:
    assert assert_identical(with_priorities(shortened(case, is_async=is_async))).num_overtakes > 0


@modes
def test_those_make_way_who_rank_last(is_async: bool) -> None:
    coverage = assert_identical(latecomers_world(is_async=is_async))
    assert coverage.num_ranked_preemptions > 20


@modes
@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_those_make_way_who_rank_last_with_an_offload_tier_too(runner: str, is_async: bool) -> None:
    world = latecomers_world(is_async=is_async)
    coverage = assert_identical(offloading(world, tier=1.0, runner=runner, bandwidth_bytes_per_s=1e9))
    assert min(coverage.num_ranked_preemptions, coverage.num_stores) > 10


@modes
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name: str, is_async: bool) -> None:
    assert_identical(with_priorities(corner(name, is_async=is_async)))


@modes
@pytest.mark.parametrize("runner", ["v1", "v2"])
@pytest.mark.parametrize("name", CORNERS)
def test_corners_with_an_offload_tier(name: str, runner: str, is_async: bool) -> None:
    world = offloading(corner(name, is_async=is_async), tier=1.0, runner=runner, bandwidth_bytes_per_s=5e9)
    assert assert_identical(with_priorities(world)).num_stores > 0


@modes
@pytest.mark.parametrize("name", CORNERS)
def test_corners_where_layers_differ(name: str, is_async: bool) -> None:
    assert_identical(with_priorities(with_groups(corner(name, is_async=is_async), MODELS["gpt-oss"])))


@pytest.mark.parametrize(("seed", "num_worlds"), [(0, 300), (None, 300)], ids=["fixed seed", "fresh seed"])
def test_random_worlds_are_identical(seed: int | None, num_worlds: int) -> None:
    from concur.validate.parity.fuzz import explain_fuzz, fuzz
    from concur.validate.parity.worlds import priority_worlds

    least = (
        num_worlds / 100 if seed is not None else 0
    )  # as in `test_parity`; a fresh seed may preempt little
    seed = secrets.randbelow(2**31) if seed is None else seed
    num_worlds = int(os.environ.get("CONCUR_FUZZ_WORLDS", num_worlds))
    result = fuzz(num_worlds, seed, drawn_from=priority_worlds)
    print(f"seed {seed}: {explain_fuzz(result, vllm_version())}")
    assert result.failure is None, f"seed {seed}\n{explain_fuzz(result, vllm_version())}"
    assert result.num_worlds >= num_worlds
    assert min(result.coverage.num_overtakes, result.coverage.num_ranked_preemptions) > least
    assert min(result.coverage.num_loads, result.coverage.num_preemptions) > least
