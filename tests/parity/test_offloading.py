"""Every step with vLLM's own `OffloadingConnector`: traces over tiers and links, corners, random worlds.

The suite refuses to be vacuous: it proves that it loads, stores, flushes, and puts look-ups off.
"""

import os
import secrets

import pytest

from concur.validate.parity.parity import Coverage
from concur.validate.parity.vllm_scheduler import vllm_version
from concur.validate.parity.worlds import World
from tests.parity.identical import assert_identical
from tests.parity.scenarios import (
    CORNERS,
    TIERS,
    TRACE_CASES,
    TraceCase,
    corner,
    offloading,
    shortened,
    twins_world,
)

pytestmark = pytest.mark.vllm
modes = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
runners = pytest.mark.parametrize("runner", ["v1", "v2"])


def assert_stored(world: World) -> Coverage:
    coverage = assert_identical(world)
    assert coverage.num_stores > 0
    return coverage


@runners
@modes
@pytest.mark.parametrize("bandwidth_bytes_per_s", [48.5e9, 2e9])
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("case", TRACE_CASES, ids=lambda case: case.file.split(".")[0])
def test_real_traces_are_identical(
    case: TraceCase, tier: str, bandwidth_bytes_per_s: float, is_async: bool, runner: str
) -> None:
    world = shortened(case, is_async=is_async)
    bandwidth = {"bandwidth_bytes_per_s": bandwidth_bytes_per_s}
    coverage = assert_stored(offloading(world, tier=TIERS[tier], runner=runner, **bandwidth))
    print(coverage)
    assert tier != "ample" or coverage.num_loads > 0


@modes
@pytest.mark.parametrize(
    "host",
    [
        {"eviction_policy": "arc"},
        {"offload_prompt_only": False},
        {"blocks_per_chunk": 4},
        {"store_threshold": 2},
        {"eviction_policy": "arc", "offload_prompt_only": False, "blocks_per_chunk": 3, "store_threshold": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("tier", TIERS)
def test_every_setting_is_identical(tier: str, host: dict[str, object], is_async: bool) -> None:
    world = shortened(TRACE_CASES[1], is_async=is_async)
    assert_stored(offloading(world, tier=TIERS[tier], **host))  # type: ignore[arg-type]


@modes
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name: str, is_async: bool) -> None:
    assert_stored(offloading(corner(name, is_async=is_async), tier=1.0, bandwidth_bytes_per_s=5e9))


@runners
@modes
def test_the_last_block_of_a_prompt_is_waited_for_while_it_moves(is_async: bool, runner: str) -> None:
    world = offloading(twins_world(is_async=is_async), tier=2.0, runner=runner, bandwidth_bytes_per_s=1e8)
    assert assert_stored(world).num_loads > 0


@modes
def test_of_a_chunk_nothing_is_waited_for_if_the_pool_has_half(is_async: bool) -> None:
    world = offloading(
        twins_world(is_async=is_async), tier=2.0, blocks_per_chunk=2, bandwidth_bytes_per_s=1e8
    )
    assert_stored(world)


@pytest.mark.parametrize(("seed", "num_worlds"), [(0, 300), (None, 300)], ids=["fixed seed", "fresh seed"])
def test_random_worlds_are_identical(seed: int | None, num_worlds: int) -> None:
    from concur.validate.parity.fuzz import explain_fuzz, fuzz
    from concur.validate.parity.worlds import offloading_worlds

    least = num_worlds / 20 if seed is not None else 0  # as in `test_parity`; a fresh seed may load little
    seed = secrets.randbelow(2**31) if seed is None else seed
    num_worlds = int(os.environ.get("CONCUR_FUZZ_WORLDS", num_worlds))
    result = fuzz(num_worlds, seed, drawn_from=offloading_worlds)
    print(f"seed {seed}: {explain_fuzz(result, vllm_version())}")
    assert result.failure is None, f"seed {seed}\n{explain_fuzz(result, vllm_version())}"
    assert result.num_worlds >= num_worlds
    assert result.coverage.num_preemptions > least
    assert min(result.coverage.num_loads, result.coverage.num_stores, result.coverage.num_flushes) > least
