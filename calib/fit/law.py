"""The formula of `concur.sim.step_time.roofline` for many steps at once: what the fit evaluates."""

from collections.abc import Mapping

import numpy as np

from concur.calib.fit.regressors import Array, Regressors


def vectorised_step_s(
    coefficients: Mapping[str, float], tile: int, regressors: Regressors, num_tokens: Array
) -> Array:
    """Return the law's durations without corrections, shape (num_steps,).

    `num_tokens` are padded already; absent coefficients are those of terms that are left out.
    """
    tokens_s, launch_s, pairs_s, decode_s = vectorised_parts_s(coefficients, tile, regressors, num_tokens)
    return tokens_s + (launch_s + pairs_s) + decode_s


def vectorised_parts_s(
    coefficients: Mapping[str, float], tile: int, regressors: Regressors, num_tokens: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the law's parts: of tokens, of prefills' launch and pairs, of decodes; each (num_steps,)."""
    c = coefficients
    read_s = c["weights_s"] + c.get("experts_s", 0.0) * -np.expm1(-num_tokens / c.get("experts_tokens", 1.0))
    compute_s = c["per_gemm_token_s"] * np.ceil(num_tokens / tile) * tile
    longer_s = np.maximum(np.maximum(read_s, compute_s), 1e-300)
    shorter = np.minimum(read_s, compute_s) / longer_s
    sharpness = c["roofline_sharpness"]
    tokens_s = c["base_s"] + longer_s * (1.0 + shorter**sharpness) ** (1.0 / sharpness)
    reduce_s = np.minimum(c.get("per_allreduce_token_s", 0.0) * num_tokens, c.get("allreduce_switch_s", 0.0))
    tokens_s = tokens_s + c["per_token_s"] * num_tokens + reduce_s
    launch_s = (
        c["prefill_s"]
        + c["per_prefill_seq_s"] * regressors.prefill_seqs
        + c.get("per_prefill_token_s", 0.0) * regressors.prefill_tokens
        + c.get("per_prefill_context_token_s", 0.0) * regressors.prefill_context_tokens
    )
    decode_s = (
        c["decode_s"]
        + c["per_decode_seq_s"] * regressors.decode_seqs
        + c["per_context_token_s"] * regressors.context_tokens
    )
    return (
        tokens_s,
        np.where(regressors.prefill_seqs > 0, launch_s, 0.0),
        c["per_prefill_pair_s"] * regressors.prefill_pairs,
        np.where(regressors.decode_seqs > 0, decode_s, 0.0),
    )
