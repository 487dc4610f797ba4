"""The shipped profiles: as good as they claim, on steps that their fit has not seen."""

from importlib.resources import files
from pathlib import Path

import pytest

from concur.calib.fit.check import parse_batch, predict_step
from concur.calib.fit.fit import fit_step_time
from concur.calib.fit.regressors import errors_by_regime, predicted_s, regressors_of
from concur.calib.fit.samples import Samples, read_samples
from concur.sim.step_time.profile import REGIMES, load_profile, shipped_profiles
from concur.sim.step_time.roofline import RooflineStepTime

LAW_ALONE = [  # what runs with these gave is recorded, so they stay as they were fitted
    "h100-sxm_deepseek-v3_tp16",
    "h100-sxm_qwen3-32b_tp2",
    "h100-sxm_qwen3-32b_tp8",
    "h100-sxm_qwen3-coder-30b-a3b-fp8_tp2",
    "h200-sxm_deepseek-v3_tp8",
]
CORRECTED = [
    "a100-sxm_qwen3-32b_tp4",
    "b200-sxm_qwen3-32b_tp1",
    "h100-sxm_gpt-oss-120b_tp2",
    "h100-sxm_llama-3.1-70b_tp4",
    "h100-sxm_qwen3-30b-a3b_tp2",
    "h100-sxm_qwen3-8b_tp1",
    "h200-sxm_qwen3-235b-a22b-fp8_tp4",
    "h200-sxm_qwen3-32b_tp1",
    "l40s_qwen3-8b_tp1",
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
    assert shipped_profiles() == sorted(["cpu_tiny", *LAW_ALONE, *CORRECTED])


@pytest.mark.parametrize("name", CORRECTED)
def test_every_step_held_out_of_the_fit_is_predicted_within_a_twentieth(name: str) -> None:
    profile, samples = load_profile(name), shipped_samples(name)
    assert profile.corrections is not None
    assert profile.host is not None
    regressors = regressors_of(samples)
    is_held_out = regressors.is_held_out()
    device = RooflineStepTime(profile.model_copy(update={"host": None}))
    errors = predicted_s(device, regressors) / samples.steps["step_s"].to_numpy() - 1.0
    assert abs(errors[is_held_out]).max() < 0.05
    assert abs(errors[is_held_out]).max() == pytest.approx(profile.held_out["all"].worst_ape, rel=1e-9)


@pytest.mark.parametrize("name", CORRECTED)
def test_a_profile_reaches_beyond_its_pool_for_prefixes_that_are_shared(name: str) -> None:
    profile = load_profile(name)
    pool_tokens = profile.num_gpu_blocks * profile.block_size
    assert profile.domain.context_tokens[1] > 2.5 * pool_tokens
    assert profile.domain.decode_seqs[1] == 1024
    assert profile.domain.prefill_seqs[1] == 512


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


@pytest.mark.parametrize("name", [*LAW_ALONE, *CORRECTED])
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
        claimed = profile.held_out[regime].model_dump()
        assert {name: errors.model_dump()[name] for name in claimed} == pytest.approx(claimed, rel=1e-9)


@pytest.mark.parametrize(
    ("prefills", "decodes", "known_ms"),
    [(["4096@0"], [], 87.1), ([], ["1x4096"], 5.82), ([], ["32x4096"], 8.30), ([], ["128x4096"], 13.42)],
)
def test_known_steps_of_qwen3_on_eight_h100(prefills: list[str], decodes: list[str], known_ms: float) -> None:
    step = predict_step(load_profile("h100-sxm_qwen3-32b_tp8"), parse_batch(prefills, decodes))
    assert step.step_ms == pytest.approx(known_ms, rel=0.05)
    assert sum(step.parts_ms.values()) == pytest.approx(step.step_ms, rel=1e-12)
    assert not step.warnings


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
    known, found = shipped.coefficients.model_dump(), again.coefficients.model_dump()
    assert found == pytest.approx(known, rel=0.02, abs=1e-12)


def test_a_step_beyond_the_domain_is_warned_of() -> None:
    step = predict_step(load_profile("h100-sxm_qwen3-32b_tp8"), parse_batch([], ["1100x100"]))
    assert any("decode_seqs = 1,100 is beyond the fitted 0 to 1,024" in warning for warning in step.warnings)
