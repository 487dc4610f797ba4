"""`[step_time]` of the scenario file: a measured engine's profile, or given coefficients."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from concur.sim.section import MAX_SEED, Seconds, Section
from concur.sim.step_time.profile import load_profile


class LinearStepTimeConfig(Section):
    """`[step_time]`: coefficients of the linear step time, see `concur.sim.step_time.step_time`."""

    kind: Literal["linear"] = "linear"
    base_s: Seconds = 0.006
    per_prefill_token_s: Seconds = 2.1e-5
    per_decode_seq_s: Seconds = 5e-5
    per_context_token_s: Seconds = 1.2e-8
    per_prefill_pair_s: Seconds = 1.0e-9

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.base_s == 0 and self.per_prefill_token_s == 0:
            raise ValueError("base_s and per_prefill_token_s are both 0, but a step must take time")
        return self


class ProfileStepTimeConfig(Section):
    """`[step_time]`: a measured engine's profile, by the name of a shipped one or by path.

    With it, `engine.num_gpu_blocks` (and, in `[engine.host_cache]`, `kv_bytes_per_token` and
    `bandwidth_bytes_per_s`) may be left out: they are the measured engine's. `draw`: 0 is the profile itself,
    any other number a profile that its errors, and a standard deviation of `draw_extra_frac` for what they do
    not know of, allow as well: see `concur.sim.step_time.draws`.
    """

    kind: Literal["profile"] = "profile"
    profile: str
    draw: int = Field(0, ge=0, le=MAX_SEED)
    draw_extra_frac: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        load_profile(self.profile)
        return self


def _step_time_form(raw: Any) -> str:
    is_profile = "profile" in raw if isinstance(raw, dict) else isinstance(raw, ProfileStepTimeConfig)
    return "<profile>" if is_profile else "<linear>"


StepTimeConfig = Annotated[
    Annotated[LinearStepTimeConfig, Tag("<linear>")] | Annotated[ProfileStepTimeConfig, Tag("<profile>")],
    Discriminator(_step_time_form),
]


def profile_hash(config: LinearStepTimeConfig | ProfileStepTimeConfig) -> str | None:
    """Return the SHA-256 of the step-time profile, `None` where there is none."""
    return load_profile(config.profile).sha256 if config.kind == "profile" else None
