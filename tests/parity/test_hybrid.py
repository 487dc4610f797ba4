"""Every step where layers differ: vLLM's scheduler over several block tables, traces, corners, random worlds.

The suite refuses to be vacuous: it proves that it hits, preempts, and that windows change what happens.
"""

import os
import secrets
from dataclasses import replace

import pytest

from concur.validate.parity.parity import run_parity
from concur.validate.parity.vllm_scheduler import vllm_version
from tests.parity.identical import assert_identical
from tests.parity.scenarios import (
    CORNERS,
    MODELS,
    TRACE_CASES,
    TraceCase,
    corner,
    shortened,
    trace_world,
    with_groups,
)

pytestmark = pytest.mark.vllm
modes = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@modes
@pytest.mark.parametrize("model", ["gpt-oss", "Gemma-3"])
@pytest.mark.parametrize("pool", [1.0, 4.0])
@pytest.mark.parametrize(
    "case", [case for case in TRACE_CASES if case.block_size == 16], ids=lambda case: case.file.split(".")[0]
)
def test_real_traces_are_identical(case: TraceCase, pool: float, model: str, is_async: bool) -> None:
    world = shortened(case, is_async=is_async)
    coverage = assert_identical(with_groups(world, MODELS[model], pool=pool * len(MODELS[model])))
    print(coverage)
    assert pool < 4 or coverage.num_cached_tokens > 0


@modes
def test_whole_agents_are_identical(is_async: bool) -> None:
    scenario, workload = trace_world(TRACE_CASES[1], "knee", is_async=is_async)
    few = replace(workload, agents=workload.agents[:24])
    assert assert_identical(with_groups((scenario, few), MODELS["gpt-oss"])).num_cached_tokens > 800_000


@modes
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name: str, model: str, is_async: bool) -> None:
    coverage = assert_identical(with_groups(corner(name, is_async=is_async), MODELS[model]))
    assert coverage.num_preemptions > 0 or name != "preempting" or model.startswith("windows")


def test_one_group_of_full_attention_is_the_plain_scheduler() -> None:
    scenario, workload = corner("preempting", is_async=False)
    plain = run_parity(scenario, workload)
    grouped = run_parity(*with_groups((scenario, workload), [{"kind": "full"}]))
    assert plain.difference is grouped.difference is None
    assert plain.coverage == grouped.coverage


@pytest.mark.parametrize(("seed", "num_worlds"), [(0, 300), (None, 300)], ids=["fixed seed", "fresh seed"])
def test_random_worlds_are_identical(seed: int | None, num_worlds: int) -> None:
    from concur.validate.parity.fuzz import explain_fuzz, fuzz
    from concur.validate.parity.worlds import hybrid_worlds

    least = num_worlds / 20 if seed is not None else 0  # a fresh seed may preempt little
    seed = secrets.randbelow(2**31) if seed is None else seed
    num_worlds = int(os.environ.get("CONCUR_FUZZ_WORLDS", num_worlds))
    result = fuzz(num_worlds, seed, drawn_from=hybrid_worlds)
    print(f"seed {seed}: {explain_fuzz(result, vllm_version())}")
    assert result.failure is None, f"seed {seed}\n{explain_fuzz(result, vllm_version())}"
    assert result.num_worlds >= num_worlds
    assert min(result.coverage.num_preemptions, result.coverage.num_cached_tokens) > least
