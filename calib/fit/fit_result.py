"""The result of a fit: coefficients with their errors, how good it is, what to beware of, and the profile."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from concur.calib.errors import FitError
from concur.calib.fit.least_squares import Array, Minimum
from concur.calib.fit.regressors import Regressors
from concur.sim.files import whole_file
from concur.sim.step_time.profile import HostWork, Regime, RegimeErrors, StepTimeProfile

_HIGH_CORRELATION: Final = 0.95
_HIGH_CONDITION: Final = 1e4
_LARGE_ERROR_FRAC: Final = 0.5
_UNKNOWN_ERROR_FRAC: Final = 10.0
"""An error so many times its coefficient is not told more closely."""
_POOR_FRAC: Final = 0.1


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A fitted coefficient; the standard error is NaN at a bound, or where it cannot be determined."""

    name: str
    value: float
    standard_error: float
    initial_value: float
    is_at_bound: bool


@dataclass(frozen=True, slots=True)
class StepTimeFit:
    """A fitted profile, and what speaks for and against it.

    `correlations` lists pairs beyond 0.95. `regressors`, `step_s` and `predicted_s` (num_steps,) cover all
    steps; residuals are `predicted_s / step_s - 1`.
    """

    profile: StepTimeProfile
    coefficients: tuple[Coefficient, ...]
    correlations: tuple[tuple[str, str, float], ...]
    fitted: dict[Regime, RegimeErrors]
    held_out: dict[Regime, RegimeErrors]
    num_evaluations: int
    regressors: Regressors
    step_s: Array
    predicted_s: Array

    @classmethod
    def of(
        cls,
        profile: StepTimeProfile,
        coefficients: tuple[Coefficient, ...],
        minimum: Minimum,
        fitted: dict[Regime, RegimeErrors],
        held_out: dict[Regime, RegimeErrors],
        regressors: Regressors,
        step_s: Array,
        predicted: Array,
    ) -> "StepTimeFit":
        """Put a result together; its profile carries the held-out errors and the warnings."""
        names = [coefficient.name for coefficient in coefficients]
        correlations = tuple(_correlations(names, minimum))
        warnings = tuple(_warnings(coefficients, minimum, held_out, correlations))
        judged = profile.model_copy(update={"held_out": held_out, "warnings": warnings})
        return cls(
            judged,
            coefficients,
            correlations,
            fitted,
            held_out,
            minimum.num_evaluations,
            regressors,
            step_s,
            predicted,
        )

    def with_host(self, host: HostWork) -> "StepTimeFit":
        """Return the fit with the host's work in its profile; what judges it is kernels and stays."""
        return replace(self, profile=self.profile.model_copy(update={"host": host}))

    def summary(self) -> str:
        """Return the result as a readable page of text."""
        lines = [f"profile {self.profile.name}: {len(self.step_s)} steps, {self.num_evaluations} evaluations"]
        lines += ["", f"{'coefficient':22s} {'value':>12s} {'std. error':>12s} {'':>8s} {'start':>12s}"]
        lines += [_line(coefficient) for coefficient in self.coefficients]
        lines.append(f"{'gemm_tile_tokens':22s} {self.profile.coefficients.gemm_tile_tokens:12d}")
        if self.correlations:
            lines += ["", "correlations beyond 0.95"]
            lines += [f"  {one}, {other}: {value:+.3f}" for one, other, value in self.correlations]
        lines += [
            "",
            f"{'regime':10s} {'steps':>6s} {'median APE':>11s} {'p95 APE':>9s} {'worst':>9s} {'bias':>8s}",
        ]
        for which, errors in (("fitted", self.fitted), ("held out", self.held_out)):
            lines.append(f"{which}:")
            lines += [f"  {regime:8s} {_errors_line(e)}" for regime, e in errors.items()]
        lines += ["", "fitted domain"]
        domain = self.profile.domain.model_dump()
        lines += [f"  {name}: {low:,} to {high:,}" for name, (low, high) in domain.items()]
        if host := self.profile.host:
            lines += ["", f"host work per step: {1e3 * host.per_step_s:.3f} ms, {host.source}"]
        lines += ["", *(f"warning: {warning}" for warning in self.profile.warnings)]
        return "\n".join(lines).rstrip()


def write_profile(profile: StepTimeProfile, path: Path) -> None:
    """Write a profile under a temporary name and rename it.

    Raises
    ------
    FitError
        If the place cannot be written to.
    """
    with whole_file(path, FitError) as temporary:
        temporary.write_text(profile.to_json(), encoding="utf-8")


def _line(coefficient: Coefficient) -> str:
    value, error = coefficient.value, coefficient.standard_error
    spread = f"{'at bound' if coefficient.is_at_bound else 'unknown':>12s} {'':8s}"
    if math.isfinite(error):
        spread = f"{error:12.3g} {_share_text(error, value):>8s}"
    return f"{coefficient.name:22s} {value:12.4g} {spread} {coefficient.initial_value:12.3g}"


def _share_text(error: float, value: float) -> str:
    """Say what share of a coefficient its error is; of one that the samples say nothing of, only that."""
    if not value:
        return ""
    if error >= _UNKNOWN_ERROR_FRAC * value:
        return f"(>{_UNKNOWN_ERROR_FRAC:.0%})"
    return f"({error / value:.0%})"


def _errors_line(e: RegimeErrors) -> str:
    shares = (e.median_ape, e.p95_ape, math.nan if e.worst_ape is None else e.worst_ape)
    return f"{e.num_steps:6d} {shares[0]:11.2%} {shares[1]:9.2%} {shares[2]:9.2%} {e.bias:+8.2%}"


def _correlations(names: Sequence[str], minimum: Minimum) -> list[tuple[str, str, float]]:
    pairs = [
        (one, other, float(minimum.correlation[i, j]))
        for i, one in enumerate(names)
        for j, other in enumerate(names[:i])
        if abs(minimum.correlation[i, j]) > _HIGH_CORRELATION
    ]
    return sorted(pairs, key=lambda pair: -abs(pair[2]))


def _warnings(
    coefficients: Sequence[Coefficient],
    minimum: Minimum,
    held_out: dict[Regime, RegimeErrors],
    correlations: Sequence[tuple[str, str, float]],
) -> list[str]:
    warnings = []
    if minimum.condition > _HIGH_CONDITION:
        warnings.append(
            f"ill-conditioned (condition number {minimum.condition:.1e}): single coefficients mean little"
        )
    if correlations:
        pairs = ", ".join(f"{one} and {other}" for one, other, _ in correlations[:3])
        warnings.append(f"the samples hardly tell apart {pairs}; their sum is what counts")
    at_bound = [c.name for c in coefficients if c.is_at_bound]
    if at_bound:
        warnings.append(f"at their bound: {', '.join(at_bound)}")
    loose = [c.name for c in coefficients if c.value > 0 and c.standard_error > _LARGE_ERROR_FRAC * c.value]
    if loose:
        warnings.append(f"known to worse than {_LARGE_ERROR_FRAC:.0%}: {', '.join(loose)}")
    poor = [f"{regime} {e.median_ape:.0%}" for regime, e in held_out.items() if e.median_ape > _POOR_FRAC]
    if poor:
        warnings.append(f"poor on held-out steps (median error): {', '.join(poor)}; noise, or another law")
    unknown = [c.name for c in coefficients if math.isnan(c.standard_error) and not c.is_at_bound]
    if unknown:
        warnings.append(f"not determined by the samples: {', '.join(unknown)}")
    missing = [regime for regime in ("prefill", "decode", "mixed") if regime not in held_out]
    if missing:
        warnings.append(f"not judged on held-out steps: {', '.join(missing)}")
    return warnings
