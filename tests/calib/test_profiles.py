"""The shipped profiles: as good as they claim, on steps that their fit has not seen."""

from importlib.resources import files
from pathlib import Path

import pytest

from concur.calib.fit.check import check_profile, parse_batch, predict_step
from concur.calib.fit.fit import fit_step_time
from concur.calib.fit.regressors import errors_by_regime, predicted_s, regressors_of
from concur.calib.fit.samples import Samples, read_samples
from concur.sim.step_time.profile import REGIMES, load_profile, shipped_profiles
from concur.sim.step_time.roofline import RooflineStepTime

NAMES = [
    "h100-sxm_deepseek-v3_tp16",
    "h100-sxm_qwen3-32b_tp2",
    "h100-sxm_qwen3-32b_tp8",
    "h100-sxm_qwen3-coder-30b-a3b-fp8_tp2",
    "h200-sxm_deepseek-v3_tp8",
    "h200-sxm_qwen3-32b_tp1",
]
# Expert kernels of uneven speed, see README.
MEDIAN_BOUND = {
    ("h100-sxm_deepseek-v3_tp16", "decode"): 0.035,
    ("h200-sxm_deepseek-v3_tp8", "prefill"): 0.04,
}
P95_BOUND = {("h200-sxm_deepseek-v3_tp8", "prefill"): 0.12}


def shipped_samples(name: str) -> Samples:
    return read_samples(Path(str(files("calib"))) / "samples" / f"{name}.parquet")


def test_these_are_shipped() -> None:
    assert shipped_profiles() == ["cpu_tiny", *NAMES]


def test_the_cpu_engine_is_predicted_within_a_tenth_on_steps_not_seen() -> None:
    profile, samples = load_profile("cpu_tiny"), shipped_samples("cpu_tiny")
    regressors = regressors_of(samples)
    is_held_out = regressors.is_held_out()
    step_s = samples.steps["step_s"].to_numpy()[is_held_out]
    regressors = regressors.where(is_held_out)
    errors = errors_by_regime(regressors, step_s, predicted_s(RooflineStepTime(profile), regressors))
    assert {regime for regime, error in errors.items() if error.median_ape <= 0.10} == set(REGIMES)


def test_a_run_of_the_cpu_engine_that_no_fit_has_seen_takes_the_predicted_time() -> None:
    samples = shipped_samples("cpu_tiny_run")
    assert set(samples.steps["phase"]) == {"run:cap6", "run:capnone"}
    predicted = predicted_s(RooflineStepTime(load_profile("cpu_tiny")), regressors_of(samples))
    assert predicted.sum() == pytest.approx(samples.steps["step_s"].sum(), rel=0.10)


@pytest.mark.parametrize("name", NAMES)
def test_held_out_errors_are_within_bounds_and_as_claimed(name: str) -> None:
    profile, samples = load_profile(name), shipped_samples(name)
    regressors = regressors_of(samples)
    is_held_out = regressors.is_held_out()
    step_s = samples.steps["step_s"].to_numpy()
    predicted = predicted_s(RooflineStepTime(profile), regressors)
    held_out = errors_by_regime(regressors.where(is_held_out), step_s[is_held_out], predicted[is_held_out])
    assert held_out["all"].num_steps > 100
    for regime, errors in held_out.items():
        assert errors.median_ape <= MEDIAN_BOUND.get((name, regime), 0.03), regime
        assert errors.p95_ape <= P95_BOUND.get((name, regime), 0.10), regime
        assert errors.model_dump() == pytest.approx(profile.held_out[regime].model_dump(), rel=1e-9)


@pytest.mark.parametrize(
    ("prefills", "decodes", "known_ms"),
    [(["4096@0"], [], 87.1), ([], ["1x4096"], 5.82), ([], ["32x4096"], 8.30), ([], ["128x4096"], 13.42)],
)
def test_known_steps_of_qwen3_on_eight_h100(prefills: list[str], decodes: list[str], known_ms: float) -> None:
    step = predict_step(load_profile("h100-sxm_qwen3-32b_tp8"), parse_batch(prefills, decodes))
    assert step.step_ms == pytest.approx(known_ms, rel=0.05)
    assert sum(step.parts_ms.values()) == pytest.approx(step.step_ms, rel=1e-12)
    assert not step.warnings


@pytest.mark.parametrize(
    ("name", "num_steps", "errors"),
    [("h100-sxm_qwen3-32b_tp2", 158, (0.013, 0.042)), ("h100-sxm_qwen3-32b_tp8", 65, (0.017, 0.026))],
)
def test_a_profile_holds_for_three_times_the_context_that_it_was_fitted_to(
    name: str, num_steps: int, errors: tuple[float, float]
) -> None:
    profile, wide = load_profile(name), shipped_samples(f"{name}_wide")
    contexts = wide.steps["decode_context_tokens"].map(sum)
    is_beyond = contexts > profile.domain.context_tokens[1]
    assert contexts.max() > 2.5 * profile.domain.context_tokens[1]
    beyond = Samples(wide.steps[is_beyond].reset_index(drop=True), wide.provenance)
    found = check_profile(profile, beyond)["all"]
    assert found.num_steps == num_steps
    assert (round(found.median_ape, 3), round(found.p95_ape, 3)) == errors


def test_memory_of_the_shipped_models() -> None:
    qwen, deepseek = load_profile("h100-sxm_qwen3-32b_tp8"), load_profile("h100-sxm_deepseek-v3_tp16")
    assert qwen.kv_bytes_per_token == 64 * 8 * 128 * 2 * 2
    assert qwen.weights_bytes == pytest.approx(2 * 32.76e9, rel=0.001)  # the model card's 32.8 B parameters
    assert deepseek.kv_bytes_per_token == 61 * (512 + 64) * 2
    assert deepseek.weights_bytes == pytest.approx(671e9, rel=0.01)  # 671 B parameters, almost all in fp8


def test_the_shipped_profile_is_what_its_samples_give() -> None:
    name = "h100-sxm_qwen3-32b_tp2"
    again = fit_step_time(shipped_samples(name), name=name).profile
    shipped = load_profile(name)
    batch = parse_batch(["700@9000"], ["20x3000"])
    assert predict_step(again, batch).step_ms == pytest.approx(predict_step(shipped, batch).step_ms, rel=1e-3)


def test_a_step_beyond_the_domain_is_warned_of() -> None:
    step = predict_step(load_profile("h100-sxm_qwen3-32b_tp8"), parse_batch([], ["600x100"]))
    assert any("decode_seqs = 600 is beyond the fitted 0 to 512" in warning for warning in step.warnings)
