"""How a profile's errors get into an outcome: other profiles that its held-out steps do not tell from it.

A draw scales what a decode step costs by one factor and what a prefill costs by another, each log-normal
around 1. Its spread is that of the errors on steps which the fit has not seen. The error of a profile is the
same for like steps again and again, so one draw holds for a whole run; an error that came anew with each step
would average out in a second. What the samples are wrong by, such as measured kernels against a whole engine,
is not in the errors; `extra_frac` adds a standard deviation for it.
"""

from math import exp, hypot
from typing import Final

import numpy as np

from concur.sim.step_time.profile import Regime, StepTimeProfile

_DECODE: Final = ("base_s", "weights_s", "experts_s", "decode_s", "per_decode_seq_s", "per_context_token_s")
_PREFILL: Final = (
    "per_gemm_token_s",
    "per_token_s",
    "per_allreduce_token_s",
    "allreduce_switch_s",
    "prefill_s",
    "per_prefill_seq_s",
    "per_prefill_token_s",
    "per_prefill_context_token_s",
    "per_prefill_pair_s",
)
_MEDIAN_SIGMAS: Final = 0.6745
"""Half of a normal distribution is within so many standard deviations; 95 % within the next."""
_P95_SIGMAS: Final = 1.9600


def drawn(profile: StepTimeProfile, draw: int, extra_frac: float = 0.0) -> StepTimeProfile:
    """Return the `draw`-th profile around this one, the same for the same number; 0 is the profile itself."""
    if not draw:
        return profile
    decode_z, prefill_z = np.random.default_rng(draw).standard_normal(2)
    factors = {
        **dict.fromkeys(_DECODE, exp(hypot(spread(profile, "decode"), extra_frac) * decode_z)),
        **dict.fromkeys(_PREFILL, exp(hypot(spread(profile, "prefill"), extra_frac) * prefill_z)),
    }
    own = profile.coefficients.model_dump()
    scaled = {name: value * factors.get(name, 1.0) for name, value in own.items()}
    return profile.model_copy(update={"coefficients": profile.coefficients.model_copy(update=scaled)})


def spread(profile: StepTimeProfile, regime: Regime) -> float:
    """Return the standard deviation of the relative error in a regime, or in mixed steps if that is larger.

    The larger of what the median and what the 95th percentile of the absolute errors say: they have longer
    tails than a normal distribution.
    """
    errors = [profile.held_out[each] for each in (regime, "mixed") if each in profile.held_out]
    errors = errors or list(profile.held_out.values())
    return max((max(e.median_ape / _MEDIAN_SIGMAS, e.p95_ape / _P95_SIGMAS) for e in errors), default=0.0)
