"""What every comparison with an engine's scheduler demands, and those with vLLM's."""

import pytest

from concur.validate.parity.explain import explain_difference
from concur.validate.parity.parity import Coverage, run_parity
from concur.validate.parity.sglang_parity import Coverage as SglangCoverage
from concur.validate.parity.vllm_scheduler import vllm_version
from concur.validate.parity.worlds import World


def assert_whole(coverage: Coverage | SglangCoverage, difference: str | None, world: World) -> None:
    """Demand that nothing differs, and that every call of the world was compared."""
    if difference is not None:
        pytest.fail(difference)
    assert coverage.num_steps > 0
    assert coverage.num_requests == sum(len(agent.steps) for agent in world[1].agents)


def assert_identical(world: World) -> Coverage:
    """Run a world through both schedulers until they differ; return what it exercised."""
    result = run_parity(*world)
    difference = result.difference
    said = None if difference is None else explain_difference(difference, vllm_version())
    assert_whole(result.coverage, said, world)
    return result.coverage
