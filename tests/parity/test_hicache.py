"""Every step as SGLang decides it with HiCache: real traces, made corners, random worlds.

The suite refuses to be vacuous: it proves that it loads, evicts and deletes, on the host too.
"""

import os
import secrets
from itertools import product

import pytest

from concur.validate.parity.sglang_engine import sglang_version
from concur.validate.parity.sglang_parity import run_parity
from tests.parity.hicache_scenarios import (
    FAST,
    HICACHE_CORNERS,
    POLICIES,
    SLOW,
    cornered_world,
    hicache_trace_world,
)
from tests.parity.identical_sglang import identical
from tests.parity.sglang_scenarios import BEGINNINGS

pytestmark = pytest.mark.sglang
modes = pytest.mark.parametrize("is_overlapped", [False, True], ids=["normal", "overlap"])
pages = pytest.mark.parametrize("page_size", [1, 16])
policies = pytest.mark.parametrize("policy", POLICIES)


@modes
@pages
@policies
@pytest.mark.parametrize("name", BEGINNINGS)
def test_real_traces_are_identical(name: str, policy: str, page_size: int, is_overlapped: bool) -> None:
    num_loaded = 0
    for is_sorted, bandwidth in product([False, True], [FAST, SLOW * 10]):
        world = hicache_trace_world(
            name,
            is_overlapped=is_overlapped,
            page_size=page_size,
            is_sorted=is_sorted,
            hicache_write_policy=policy,
            bandwidth_bytes_per_s=bandwidth,
        )
        num_loaded += identical(world).coverage.num_loaded_tokens
    assert num_loaded > 0 or policy == "write_through_selective"


@modes
@pages
@policies
@pytest.mark.parametrize("name", HICACHE_CORNERS)
def test_corners(name: str, policy: str, page_size: int, is_overlapped: bool) -> None:
    for bandwidth in (FAST, SLOW):
        world = HICACHE_CORNERS[name](
            is_overlapped=is_overlapped,
            page_size=page_size,
            hicache_write_policy=policy,
            bandwidth_bytes_per_s=bandwidth,
        )
        coverage = identical(world).coverage
        assert coverage.num_evicted_tokens > 0
        if name == "outgrown":
            assert coverage.num_retractions > 0
        if policy == "write_through_selective":  # most of what is evicted was inserted once
            continue
        if name == "returning":
            assert coverage.num_loaded_tokens > 500
        if name == "crammed":
            assert coverage.num_host_evicted_tokens > 500
        if name == "tiny":
            assert coverage.num_dropped_tokens > 100


@modes
@pages
def test_both_end_where_the_last_request_is_aborted(page_size: int, is_overlapped: bool) -> None:
    result = run_parity(*cornered_world(is_overlapped=is_overlapped, page_size=page_size))
    assert result.difference is None
    assert (result.coverage.num_aborted, result.record) == (1, None)
    assert result.coverage.num_steps > 50


@pytest.mark.parametrize(("seed", "num_worlds"), [(0, 300), (None, 300)], ids=["fixed seed", "fresh seed"])
def test_random_worlds_are_identical(seed: int | None, num_worlds: int) -> None:
    from concur.validate.parity.sglang_fuzz import explain_fuzz, fuzz
    from concur.validate.parity.sglang_worlds import hicache_worlds

    # One seed gives other worlds in another environment, see `test_parity`: the least is far below the usual.
    seed = secrets.randbelow(2**31) if seed is None else seed
    num_worlds = int(os.environ.get("CONCUR_FUZZ_WORLDS", num_worlds))
    result = fuzz(num_worlds, seed, drawn_from=hicache_worlds)
    print(f"seed {seed}: {explain_fuzz(result, sglang_version())}")
    assert result.failure is None, f"seed {seed}\n{explain_fuzz(result, sglang_version())}"
    assert result.num_worlds >= num_worlds
    assert result.coverage.num_loaded_tokens > num_worlds
    assert result.coverage.num_evicted_tokens > 100 * num_worlds
    assert min(result.coverage.num_dropped_tokens, result.coverage.num_host_evicted_tokens) > num_worlds
