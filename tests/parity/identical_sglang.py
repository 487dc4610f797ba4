"""What every comparison with SGLang's scheduler demands, of either release."""

from concur.validate.parity.sglang_engine import sglang_version
from concur.validate.parity.sglang_fuzz import explain_difference
from concur.validate.parity.sglang_parity import Result, run_parity
from concur.validate.parity.worlds import World
from tests.parity.identical import assert_whole


def identical(world: World) -> Result:
    """Run a world through both schedulers until they differ; return what came of it."""
    result = run_parity(*world)
    difference = result.difference
    said = None if difference is None else explain_difference(difference, sglang_version())
    assert_whole(result.coverage, said, world)
    return result
