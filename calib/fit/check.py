"""A profile against samples, and a profile's word on one step."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.table import Table

from concur.calib.errors import FitError
from concur.calib.fit.regressors import errors_by_regime, predicted_s, regressors_of
from concur.calib.fit.samples import Samples
from concur.sim.step_time.profile import Regime, RegimeErrors, StepTimeProfile
from concur.sim.step_time.roofline import RooflineStepTime
from concur.sim.step_time.step_time import StepBatch


@dataclass(frozen=True, slots=True)
class StepPrediction:
    """The duration of one engine step in milliseconds, its parts, and what to beware of."""

    step_ms: float
    parts_ms: dict[str, float]
    warnings: tuple[str, ...]


def check_profile(profile: StepTimeProfile, samples: Samples) -> dict[Regime, RegimeErrors]:
    """Return how far a profile is off on samples, by regime and over all; kernels know no host work."""
    if samples.provenance.source == "silicon":
        profile = profile.model_copy(update={"host": None})
    regressors = regressors_of(samples)
    step_s = samples.steps["step_s"].to_numpy(dtype=float)
    return errors_by_regime(regressors, step_s, predicted_s(RooflineStepTime(profile), regressors))


def errors_table(errors: Mapping[Regime, RegimeErrors], title: str | None = None) -> Table:
    """Return one row per regime: how far predictions of those steps are off."""
    table = Table("regime", "steps", "median APE", "p95 APE", "worst", "bias", title=title)
    for regime, e in errors.items():
        worst = "" if e.worst_ape is None else f"{e.worst_ape:.2%}"
        shares = (f"{e.median_ape:.2%}", f"{e.p95_ape:.2%}", worst, f"{e.bias:+.2%}")
        table.add_row(regime, str(e.num_steps), *shares)
    return table


def predict_step(profile: StepTimeProfile, batch: StepBatch) -> StepPrediction:
    """Return the predicted duration of one step.

    Raises
    ------
    FitError
        If the step computes nothing.
    """
    if batch.is_empty:
        raise FitError("the step computes nothing; give at least one --prefill or --decode")
    step_time = RooflineStepTime(profile)
    parts = {name: 1e3 * part_s for name, part_s in step_time.parts_s(batch).items()}
    return StepPrediction(1e3 * step_time(batch), parts, tuple(_outside(profile, batch)))


def parse_batch(prefills: Iterable[str], decodes: Iterable[str]) -> StepBatch:
    """Build a step from texts: `TOKENS@CONTEXT` per prefill, `BATCHxCONTEXT` per group of decodes.

    Raises
    ------
    FitError
        If a text is not of its form.
    """
    batch = StepBatch()
    for text in prefills:
        tokens, context = _two_numbers(text, "@", "--prefill", "TOKENS@CONTEXT, e.g. 512@8192")
        batch.add_prefill(tokens, context, 0)
    for text in decodes:
        number, context = _two_numbers(text, "x", "--decode", "BATCHxCONTEXT, e.g. 32x4096")
        batch.decode_seqs += number
        batch.context_tokens += number * context
    return batch


def _two_numbers(text: str, separator: str, option: str, form: str) -> tuple[int, int]:
    match = re.fullmatch(rf"(\d+){separator}(\d+)", text)
    if match is None or int(match[1]) < 1:
        raise FitError(f"{option} {text!r} but must be {form}, both whole numbers, the first at least 1")
    return int(match[1]), int(match[2])


def _outside(profile: StepTimeProfile, batch: StepBatch) -> list[str]:
    """Say where a step is beyond what the fit has seen."""
    domain = profile.domain.model_dump()
    values = {
        "num_tokens": batch.prefill_tokens + batch.decode_seqs,
        **{name: getattr(batch, name) for name in domain if name != "num_tokens"},
    }
    return [
        f"{name} = {values[name]:,} is beyond the fitted {low:,} to {high:,}: extrapolated"
        for name, (low, high) in domain.items()
        if not low <= values[name] <= high
    ]
