"""What every comparison with vLLM's scheduler demands."""

import pytest

from concur.validate.parity.explain import explain_difference
from concur.validate.parity.parity import Coverage, run_parity
from concur.validate.parity.vllm_scheduler import vllm_version
from concur.validate.parity.worlds import World


def assert_identical(world: World) -> Coverage:
    """Run a world through both schedulers until they differ; return what it exercised."""
    result = run_parity(*world)
    if result.difference is not None:
        pytest.fail(explain_difference(result.difference, vllm_version()))
    assert result.coverage.num_steps > 0
    assert result.coverage.num_requests == sum(len(agent.steps) for agent in world[1].agents)
    return result.coverage
