"""What every comparison with SGLang's scheduler demands, of either release."""

import pytest

from concur.validate.parity.sglang_engine import sglang_version
from concur.validate.parity.sglang_fuzz import explain_difference
from concur.validate.parity.sglang_parity import Result, run_parity
from concur.validate.parity.worlds import World


def identical(world: World) -> Result:
    """Run a world through both schedulers until they differ; return what came of it."""
    result = run_parity(*world)
    if result.difference is not None:
        pytest.fail(explain_difference(result.difference, sglang_version()))
    assert result.coverage.num_steps > 0
    assert result.coverage.num_requests == sum(len(agent.steps) for agent in world[1].agents)
    return result
