"""Which step time a scenario asks for."""

from concur.sim.step_time.config import StepTimeConfig
from concur.sim.step_time.draws import drawn
from concur.sim.step_time.profile import load_profile
from concur.sim.step_time.roofline import RooflineStepTime
from concur.sim.step_time.step_time import LinearStepTime, StepTime


def make_step_time(config: StepTimeConfig) -> StepTime:
    """Build the step time of a scenario.

    Raises
    ------
    ProfileError
        If the profile that it names cannot be read.
    """
    if config.kind == "profile":
        return RooflineStepTime(drawn(load_profile(config.profile), config.draw, config.draw_extra_frac))
    return LinearStepTime(
        config.base_s,
        config.per_prefill_token_s,
        config.per_decode_seq_s,
        config.per_context_token_s,
        config.per_prefill_pair_s,
    )
