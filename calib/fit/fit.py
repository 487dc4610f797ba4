"""Fit the coefficients of `concur.sim.step_time.roofline` to samples.

Residuals are log(predicted / measured): durations span three orders of magnitude, and relative error is
what a simulation hands on. Beyond 10 % a residual counts by its size, not its square (soft L1): an
interrupted step is slow by chance, not by law. Coefficients are bounded below by 0. The tile of matrix
kernels is structural: the fit takes the better of none and 64 tokens (Hopper's `wgmma` computes 64 rows: PTX
ISA, "asynchronous warpgroup level matrix instructions"). Terms that the engine cannot have are left out:
experts of a dense model, all-reduces of a single GPU, reads of a prefill's context where the database of
kernels has none.
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from scipy.optimize import nnls

from concur.calib.errors import FitError, SiliconError
from concur.calib.fit.corrections import fit_corrections
from concur.calib.fit.fit_result import Coefficient, StepTimeFit
from concur.calib.fit.law import vectorised_step_s
from concur.calib.fit.least_squares import Array, Minimum, minimise
from concur.calib.fit.regressors import Mask, Regressors, errors_by_regime, predicted_s, regressors_of
from concur.calib.fit.samples import Provenance, Samples
from concur.calib.silicon.cache_groups import kv_cache_groups
from concur.calib.silicon.hf_model import model_memory, num_experts
from concur.sim.step_time.corrections import Corrections
from concur.sim.step_time.profile import HostWork, RooflineCoefficients, StepTimeProfile
from concur.sim.step_time.roofline import RooflineStepTime

NO_HOST_WORK: Final = HostWork(
    per_step_s=0.0, source="assumed: the host's work is hidden behind the device's (async scheduling)"
)
_OUTLIER_SCALE: Final = 0.1  # of log(predicted / measured)
_TILES: Final = (1, 64)
_SHARPNESS: Final = (3.0, 8.0)  # starts
_SWITCH_TOKENS: Final = (32.0, 2048.0)  # starts
_MAX_SHARPNESS: Final = 12.0  # sharper than this is a plain maximum
_ALWAYS: Final = (
    *("base_s", "weights_s", "per_gemm_token_s", "roofline_sharpness", "per_token_s"),
    *("prefill_s", "per_prefill_seq_s", "per_prefill_token_s"),
    *("per_prefill_context_token_s", "per_prefill_pair_s"),
    *("decode_s", "per_decode_seq_s", "per_context_token_s"),
)
_SHAPES_PER_COEFFICIENT: Final = 3


@dataclass(frozen=True, slots=True)
class _Problem:
    regressors: Regressors
    step_s: Array
    num_tokens: Array  # padded to the capture sizes
    names: tuple[str, ...]


def fit_step_time(samples: Samples, *, name: str, host: HostWork | None = None) -> StepTimeFit:
    """Fit a step-time profile to samples; a fifth of the shapes is held out of the fit and judges it.

    `host` is the work between steps that samples of kernels lack; without it, none is assumed for them.

    Raises
    ------
    FitError
        If the samples have the host's work in them already, if there are too few shapes for the
        coefficients, or if a regime is missing that the formula needs.
    """
    is_kernels = samples.provenance.source == "silicon"
    if host and not is_kernels:
        raise FitError(f"{host.per_step_s} s of host work, but steps of an engine have theirs; leave it out")
    regressors = regressors_of(samples)
    step_s = samples.steps["step_s"].to_numpy(dtype=float)
    is_held_out = regressors.is_held_out()
    names = _coefficient_names(samples.provenance)
    _check(regressors, is_held_out, names)
    problem = _problem(regressors.where(~is_held_out), step_s[~is_held_out], samples.provenance, names)
    tile, start, best = _best(problem, samples.provenance)
    found = dict(zip(names, (float(value) for value in best.values), strict=True))
    coefficients = RooflineCoefficients(**found, gemm_tile_tokens=tile)
    corrections = None
    if is_kernels:  # an engine's steps scatter more than the law is off
        corrections = fit_corrections(coefficients, problem.regressors, problem.num_tokens, problem.step_s)
    profile = _profile(samples.provenance, regressors, coefficients, corrections, name)
    result = _result(profile, regressors, step_s, is_held_out, start, best, names)
    return result.with_host(host or NO_HOST_WORK) if is_kernels else result


def _coefficient_names(provenance: Provenance) -> tuple[str, ...]:
    names = list(_ALWAYS)
    if (
        not provenance.cudagraph_capture_sizes
    ):  # T = P + D exactly: per_token_s and per_decode_seq_s say it all
        names.remove("per_prefill_token_s")
    if provenance.source == "silicon":  # the database scales prefills by their pairs alone
        names.remove("per_prefill_context_token_s")
    if num_experts(provenance.model):
        names += ["experts_s", "experts_tokens"]
    if provenance.tensor_parallel_size > 1:
        names += ["per_allreduce_token_s", "allreduce_switch_s"]
    return tuple(names)


def _check(regressors: Regressors, is_held_out: Mask, names: tuple[str, ...]) -> None:
    fitted = regressors.where(~is_held_out)
    rows = np.stack(list(fitted.named().values()), axis=1)
    num_shapes, needed = len(np.unique(rows, axis=0)), _SHAPES_PER_COEFFICIENT * len(names)
    if num_shapes < needed:
        raise FitError(
            f"{num_shapes} shapes of steps are left to fit {len(names)} coefficients but at least {needed} "
            "are needed; measure more shapes of batches"
        )
    if not is_held_out.any():
        raise FitError("no shape fell among the held-out ones; measure more shapes of batches")
    for regime, remedy in (("prefill", "prompts of several lengths"), ("decode", "batches of several sizes")):
        seqs = fitted.prefill_seqs if regime == "prefill" else fitted.decode_seqs
        num_steps = int((seqs > 0).sum())
        if num_steps < 10:
            raise FitError(f"{num_steps} steps have a {regime} but at least 10 are needed; measure {remedy}")


def _problem(
    regressors: Regressors, step_s: Array, provenance: Provenance, names: tuple[str, ...]
) -> _Problem:
    sizes = np.array([*provenance.cudagraph_capture_sizes, np.inf])
    padded = sizes[np.searchsorted(sizes, regressors.num_tokens)]
    num_tokens = np.where(np.isfinite(padded), padded, regressors.num_tokens)
    return _Problem(regressors, step_s, num_tokens, names)


def _best(problem: _Problem, provenance: Provenance) -> tuple[int, Array, Minimum]:
    """Return the tile, the start and the minimum of the best fit from a few fixed starts."""
    fits = []
    for tile in _TILES:
        for sharpness, switch_tokens in product(_SHARPNESS, _SWITCH_TOKENS):
            start = _start(problem, provenance, sharpness, switch_tokens)
            fits.append((tile, start, _fit_from(problem, tile, start)))
    return min(fits, key=lambda fit: fit[2].cost)


def _fit_from(problem: _Problem, tile: int, start: Array) -> Minimum:
    def residuals(values: Array) -> Array:
        coefficients = dict(zip(problem.names, values, strict=True))
        predicted = vectorised_step_s(coefficients, tile, problem.regressors, problem.num_tokens)
        return np.asarray(np.log(np.maximum(predicted, 1e-300) / problem.step_s))

    low = [_LOWEST.get(name, 0.0) for name in problem.names]
    high = [_MAX_SHARPNESS if name == "roofline_sharpness" else math.inf for name in problem.names]
    return minimise(residuals, list(start), (low, high), outlier_scale=_OUTLIER_SCALE)


_LOWEST: Final = {"roofline_sharpness": 1.0, "experts_tokens": 1.0}


def _start(problem: _Problem, provenance: Provenance, sharpness: float, switch_tokens: float) -> Array:
    """Return a start: the best non-negative *linear* model, its constant and slope shared out.

    A coefficient that the linear model puts at 0 starts at a hundredth of the shortest step instead.
    """
    r, step_s = problem.regressors, problem.step_s
    has_prefill, has_decode = r.prefill_seqs > 0, r.decode_seqs > 0
    columns = {
        "base_s": np.ones_like(step_s),
        "per_token_s": problem.num_tokens,
        "prefill_s": has_prefill.astype(float),
        "per_prefill_seq_s": r.prefill_seqs,
        "per_prefill_token_s": r.prefill_tokens,
        "per_prefill_context_token_s": r.prefill_context_tokens,
        "per_prefill_pair_s": r.prefill_pairs,
        "decode_s": has_decode.astype(float),
        "per_decode_seq_s": r.decode_seqs,
        "per_context_token_s": r.context_tokens,
    }
    design = np.stack(list(columns.values()), axis=1) / step_s[:, None]
    norms = np.linalg.norm(design, axis=0)
    solved = nnls(design / norms, np.ones_like(step_s))[0] / norms
    small_s = 0.01 * float(step_s.min())
    start = {
        name: value if value > 0 else small_s / float(columns[name].max())
        for name, value in zip(columns, (float(v) for v in solved), strict=True)
    }
    experts, per_token = num_experts(provenance.model), int(provenance.model.get("num_experts_per_tok") or 1)
    start |= {
        "weights_s": 0.6 * start["base_s"],
        "experts_s": start["base_s"],
        "experts_tokens": -1.0 / math.log1p(-per_token / experts) if experts > per_token else 1.0,
        "per_gemm_token_s": 0.6 * start["per_token_s"],
        "per_allreduce_token_s": 0.4 * start["per_token_s"],
        "allreduce_switch_s": 0.4 * start["per_token_s"] * switch_tokens,
        "roofline_sharpness": sharpness,
    }
    start["base_s"] *= 0.4
    start["per_token_s"] *= 0.4
    return np.array([start[name] for name in problem.names])


def _result(
    profile: StepTimeProfile,
    regressors: Regressors,
    step_s: Array,
    is_held_out: Mask,
    start: Array,
    best: Minimum,
    names: tuple[str, ...],
) -> StepTimeFit:
    predicted = predicted_s(RooflineStepTime(profile), regressors)
    split = {
        which: errors_by_regime(regressors.where(mask), step_s[mask], predicted[mask])
        for which, mask in (("fitted", ~is_held_out), ("held_out", is_held_out))
    }
    fitted = tuple(
        Coefficient(key, float(value), float(error), float(begin), bool(at_bound))
        for key, value, error, begin, at_bound in zip(
            names, best.values, best.standard_errors, start, best.is_at_bound, strict=True
        )
    )
    return StepTimeFit.of(
        profile, fitted, best, split["fitted"], split["held_out"], regressors, step_s, predicted
    )


def _profile(
    provenance: Provenance,
    regressors: Regressors,
    coefficients: RooflineCoefficients,
    corrections: Corrections | None,
    name: str,
) -> StepTimeProfile:
    try:
        cache_dtype = str(provenance.flags.get("cache_dtype", "auto"))
        memory = model_memory(provenance.model, provenance.tensor_parallel_size, cache_dtype)
    except SiliconError:  # a profile of an engine does without; a simulation of a host cache does not
        memory = None
    return StepTimeProfile(
        name=name,
        coefficients=coefficients,
        corrections=corrections,
        cudagraph_capture_sizes=provenance.cudagraph_capture_sizes,
        domain=regressors.domain(),
        held_out={},
        kv_bytes_per_token=memory.kv_bytes_per_token if memory else None,
        kv_cache_groups=kv_cache_groups(provenance.model) or None,
        weights_bytes=memory.weights_bytes if memory else None,
        num_gpu_blocks=provenance.num_gpu_blocks,
        block_size=provenance.block_size,
        host_to_device_bytes_per_s=provenance.host_to_device_bytes_per_s,
        device_to_host_bytes_per_s=provenance.device_to_host_bytes_per_s,
        provenance=provenance.model_dump(mode="json"),
    )
