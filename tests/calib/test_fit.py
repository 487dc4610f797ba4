"""A fit can be wrong and look right: it is held against known laws, certified data, and its own formula."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from concur.calib.errors import FitError
from concur.calib.fit.check import check_profile
from concur.calib.fit.fit import NO_HOST_WORK, fit_step_time
from concur.calib.fit.law import vectorised_step_s
from concur.calib.fit.least_squares import minimise
from concur.calib.fit.regressors import predicted_s, regressors_of
from concur.calib.fit.samples import Samples
from concur.sim.step_time.corrections import Corrections, SizeFactors, TokenFactors
from concur.sim.step_time.profile import HostWork, load_profile
from concur.sim.step_time.roofline import RooflineStepTime
from tests.calib.helpers import COEFFICIENTS, make_profile, make_provenance, make_samples

# NIST Statistical Reference Datasets, nonlinear regression, https://www.itl.nist.gov/div898/strd/nls/
MISRA1A = np.array(
    [
        *((10.07, 77.6), (14.73, 114.9), (17.94, 141.1), (23.93, 190.8), (29.61, 239.9), (35.18, 289.0)),
        *((40.02, 332.8), (44.82, 378.4), (50.76, 434.8), (55.05, 477.3), (61.01, 536.8), (66.40, 593.1)),
        *((75.47, 689.1), (81.78, 760.0)),
    ]
)
DANWOOD = np.array(
    [(2.138, 1.309), (3.421, 1.471), (3.597, 1.490), (4.340, 1.565), (4.882, 1.611), (5.660, 1.680)]
)


@pytest.mark.parametrize("start", [(500.0, 0.0001), (250.0, 0.0005)])
def test_misra1a_as_certified_by_nist(start: tuple[float, float]) -> None:
    y, x = MISRA1A.T
    found = minimise(
        lambda b: y - b[0] * -np.expm1(-b[1] * x), start, ((-math.inf, -math.inf), (math.inf, math.inf))
    )
    assert found.values == pytest.approx([2.3894212918e02, 5.5015643181e-04], rel=1e-6)
    assert found.standard_errors == pytest.approx([2.7070075241e00, 7.2668688436e-06], rel=1e-4)
    assert found.residual_sum_of_squares == pytest.approx(1.2455138894e-01, rel=1e-8)


@pytest.mark.parametrize("start", [(1.0, 5.0), (0.7, 4.0)])
def test_danwood_as_certified_by_nist(start: tuple[float, float]) -> None:
    y, x = DANWOOD.T
    found = minimise(lambda b: y - b[0] * x ** b[1], start, ((0.0, 0.0), (math.inf, math.inf)))
    assert found.values == pytest.approx([7.6886226176e-01, 3.8604055871e00], rel=1e-6)
    assert found.standard_errors == pytest.approx([1.8281973860e-02, 5.1726610913e-02], rel=1e-4)
    assert found.residual_sum_of_squares == pytest.approx(4.3173084083e-03, rel=1e-8)


def test_an_outlier_moves_the_robust_fit_less() -> None:
    x = np.linspace(1, 10, 50)
    y = 2.0 * x
    y[7] *= 50
    bounds = ((0.0,), (math.inf,))
    plain = minimise(lambda b: np.log(b[0] * x / y), [1.0], bounds)
    robust = minimise(lambda b: np.log(b[0] * x / y), [1.0], bounds, outlier_scale=0.1)
    assert abs(robust.values[0] - 2.0) < 0.01 < 0.1 < abs(plain.values[0] - 2.0)


def test_a_parameter_that_nothing_depends_on_spoils_no_other() -> None:
    x = np.linspace(1, 10, 50)
    y = 2.0 * x + np.sin(x)
    bounds = ((0.0, 0.0), (math.inf, math.inf))
    found = minimise(lambda b: y - b[0] * x + 0.0 * b[1], [1.0, 1.0], bounds)
    assert math.isfinite(found.standard_errors[0])
    assert math.isnan(found.standard_errors[1])


def test_without_padding_no_term_repeats_the_sum_of_two_others() -> None:
    eager = make_profile(cudagraph_capture_sizes=())
    steps = make_samples(profile=eager).steps
    fit = fit_step_time(Samples(steps, make_provenance(cudagraph_capture_sizes=())), name="tiny")
    by_name = {coefficient.name: coefficient for coefficient in fit.coefficients}
    assert "per_prefill_token_s" not in by_name
    assert fit.held_out["all"].median_ape < 0.01
    error = by_name["per_decode_seq_s"].standard_error
    true = (
        COEFFICIENTS.per_decode_seq_s - COEFFICIENTS.per_prefill_token_s
    )  # a token's share is in per_token_s
    assert abs(by_name["per_decode_seq_s"].value - true) < 3 * error < true


def test_a_poor_fit_is_warned_of() -> None:
    fit = fit_step_time(make_samples(noise=0.5), name="tiny")
    assert any("poor on held-out steps" in warning for warning in fit.profile.warnings)
    assert not any(
        "poor" in warning for warning in fit_step_time(make_samples(), name="tiny").profile.warnings
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_known_coefficients_are_found_again_within_three_standard_errors(seed: int) -> None:
    fit = fit_step_time(make_samples(seed=seed), name="tiny")
    assert fit.held_out["all"].median_ape < 0.01
    free = [coefficient for coefficient in fit.coefficients if not coefficient.is_at_bound]
    assert len(free) >= 10
    for coefficient in free:
        assert coefficient.standard_error > 0, coefficient.name
        true = getattr(COEFFICIENTS, coefficient.name)
        assert abs(coefficient.value - true) < 3 * coefficient.standard_error, coefficient.name


def test_the_formula_is_written_twice_and_agrees() -> None:
    samples = make_samples(200, noise=0.0)
    regressors = regressors_of(samples)
    changed = COEFFICIENTS.model_copy(
        update={
            "experts_s": 0.02,
            "experts_tokens": 30.0,
            "per_allreduce_token_s": 1e-5,
            "allreduce_switch_s": 1e-3,
            "gemm_tile_tokens": 64,
        }
    )
    simulated = predicted_s(
        RooflineStepTime(make_profile(coefficients=changed, cudagraph_capture_sizes=())), regressors
    )
    coefficients = changed.model_dump()
    tile = coefficients.pop("gemm_tile_tokens")
    vectorised = vectorised_step_s(coefficients, tile, regressors, regressors.num_tokens)
    np.testing.assert_allclose(vectorised, simulated, rtol=1e-12)


def uneven_samples(num_steps: int = 900) -> Samples:
    """Kernels that are a third slower beyond 1,024 tokens, and decodes that are slow when few."""
    flat = SizeFactors(first=(1, 2), second=(1, 2), factors=((1.0, 1.0), (1.0, 1.0)))
    corrections = Corrections(
        tokens=TokenFactors(num_tokens=(1024, 1025), factors=(1.0, 1.33)),
        launch=flat,
        pairs=flat,
        decode=SizeFactors(first=(1, 64), second=(1, 2), factors=((2.0, 2.0), (1.0, 1.0))),
    )
    samples = make_samples(num_steps, noise=0.0, profile=make_profile(corrections=corrections))
    return Samples(samples.steps, make_provenance(source="silicon"))


def test_kernels_that_follow_no_law_are_followed_by_corrections() -> None:
    fit = fit_step_time(uneven_samples(), name="tiny")
    held_out = fit.regressors.is_held_out()
    errors = np.abs(fit.predicted_s / fit.step_s - 1.0)[held_out]
    law = RooflineStepTime(fit.profile.model_copy(update={"corrections": None}))
    law_errors = np.abs(predicted_s(law, fit.regressors) / fit.step_s - 1.0)[held_out]
    assert np.percentile(law_errors, 95) > 0.04
    assert np.percentile(errors, 95) < 0.5 * np.percentile(law_errors, 95)


def test_an_engines_own_steps_are_fitted_by_the_law_alone() -> None:
    assert fit_step_time(make_samples(), name="tiny").profile.corrections is None


def test_host_work_is_named_in_a_profile_of_kernels_and_judges_nothing() -> None:
    samples = uneven_samples(400)
    assumed = fit_step_time(samples, name="tiny")
    assert assumed.profile.host == NO_HOST_WORK
    assert NO_HOST_WORK.source in assumed.summary()
    host = HostWork(per_step_s=0.004, source="measured on a bench")
    given = fit_step_time(samples, name="tiny", host=host).profile
    assert given.host == host
    assert given.held_out == assumed.profile.held_out
    assert check_profile(given, samples) == check_profile(assumed.profile, samples)
    with pytest.raises(FitError, match="host work, but steps of an engine have theirs"):
        fit_step_time(make_samples(), name="tiny", host=host)


def test_all_steps_of_a_shape_are_on_one_side() -> None:
    samples = make_samples(300)
    twice = Samples(
        samples.steps.loc[np.repeat(samples.steps.index, 2)].reset_index(drop=True), samples.provenance
    )
    is_held_out = regressors_of(twice).is_held_out()
    np.testing.assert_array_equal(is_held_out[0::2], is_held_out[1::2])
    assert 0.1 < is_held_out.mean() < 0.3
    np.testing.assert_array_equal(is_held_out[0::2], regressors_of(samples).is_held_out())


def test_too_little_to_fit_is_said() -> None:
    with pytest.raises(FitError, match=r"shapes of steps are left to fit 13 coefficients but at least 39"):
        fit_step_time(make_samples(30), name="tiny")
    samples = make_samples(600)
    decodes = samples.steps[samples.steps["phase"] == "decode"].reset_index(drop=True)
    with pytest.raises(FitError, match="0 steps have a prefill but at least 10 are needed"):
        fit_step_time(Samples(decodes, samples.provenance), name="tiny")


def test_the_summary_says_what_to_beware_of(tmp_path: Path) -> None:
    fit = fit_step_time(make_samples(), name="tiny")
    page = fit.summary()
    for word in ("per_context_token_s", "held out", "median APE", "fitted domain", "std. error"):
        assert word in page
    for warning in fit.profile.warnings:
        assert warning in page
    assert fit.profile.held_out == fit.held_out
    path = tmp_path / "p.json"
    path.write_text(fit.profile.to_json())
    assert load_profile(str(path)) == fit.profile


def test_an_error_far_beyond_its_coefficient_is_not_told_to_the_last_digit() -> None:
    fit = fit_step_time(make_samples(), name="tiny")
    for error, told in ((0.2, "(20%)"), (9.9, "(990%)"), (4e5, "(>1000%)")):
        first = replace(fit.coefficients[0], value=1.0, standard_error=error, is_at_bound=False)
        assert f" {told} " in replace(fit, coefficients=(first,)).summary()
