"""Samples with a known law."""

from typing import Any

import numpy as np
import pandas as pd

from concur.calib.fit.samples import Provenance, Samples
from concur.sim.step_time.profile import RooflineCoefficients, StepDomain, StepTimeProfile
from concur.sim.step_time.roofline import RooflineStepTime
from concur.sim.step_time.step_time import StepBatch

DENSE = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "torch_dtype": "bfloat16",
}
QWEN3_32B = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_hidden_layers": 64,
    "hidden_size": 5120,
    "intermediate_size": 25_600,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
FP8_TOKENS = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
COEFFICIENTS = RooflineCoefficients(
    base_s=0.002,
    weights_s=0.012,
    per_gemm_token_s=6e-5,
    roofline_sharpness=4.0,
    per_token_s=2e-5,
    prefill_s=0.003,
    per_prefill_seq_s=4e-4,
    per_prefill_token_s=1e-5,
    per_prefill_context_token_s=5e-8,
    per_prefill_pair_s=3e-9,
    decode_s=0.0015,
    per_decode_seq_s=3e-5,
    per_context_token_s=6e-8,
)
WIDE = StepDomain(
    num_tokens=(1, 10**9),
    prefill_seqs=(0, 10**9),
    prefill_tokens=(0, 10**9),
    prefill_context_tokens=(0, 10**12),
    prefill_pairs=(0, 10**15),
    decode_seqs=(0, 10**9),
    context_tokens=(0, 10**12),
)


def with_compressed_tensors(**group: Any) -> dict[str, Any]:
    """Qwen3-32B as an FP8 checkpoint, a scale per channel; keywords change its group of layers."""
    weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights} | group}
    return QWEN3_32B | {
        "quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups}
    }


def make_provenance(**changes: Any) -> Provenance:
    known: dict[str, Any] = {
        "source": "synthetic",
        "engine": "none",
        "device": "none",
        "model_name": "tiny",
        "model": DENSE,
        "block_size": 16,
        "num_gpu_blocks": 1000,
        "max_num_batched_tokens": 8192,
        "max_num_seqs": 256,
        "cudagraph_capture_sizes": (1, 2, 4, 8, 16, 32, 64, 128),
        "date": "2026-01-01",
    }
    return Provenance(**(known | changes))


def make_profile(**changes: Any) -> StepTimeProfile:
    known: dict[str, Any] = {
        "name": "tiny",
        "coefficients": COEFFICIENTS,
        "cudagraph_capture_sizes": make_provenance().cudagraph_capture_sizes,
        "domain": WIDE,
        "held_out": {},
        "num_gpu_blocks": 1000,
        "block_size": 16,
        "provenance": {},
    }
    return StepTimeProfile(**(known | changes))


def make_samples(
    num_steps: int = 600, *, seed: int = 0, noise: float = 0.01, profile: StepTimeProfile | None = None
) -> Samples:
    """Draw steps of all regimes and time them by the profile's law, with log-normal noise."""
    rng = np.random.default_rng(seed)
    step_time = RooflineStepTime(profile or make_profile())
    rows = []
    for _ in range(num_steps):
        phase = rng.choice(["prefill", "decode", "mixed"])
        prefills = rng.integers(1, 9) if phase != "decode" else 0
        decodes = int(2 ** rng.uniform(0, 8)) if phase != "prefill" else 0
        tokens = [int(2 ** rng.uniform(0, 10)) for _ in range(prefills)]
        contexts = [int(2 ** rng.uniform(0, 15)) for _ in range(prefills)]
        decode_contexts = [int(2 ** rng.uniform(4, 15))] * decodes
        batch = StepBatch()
        for n, c in zip(tokens, contexts, strict=True):
            batch.add_prefill(n, c, 0)
        for c in decode_contexts:
            batch.add_decode(c)
        step_s = step_time(batch) * float(np.exp(noise * rng.standard_normal()))
        rows.append((0.0, step_s, phase, tokens, contexts, decode_contexts))
    columns = ["t_s", "step_s", "phase", "prefill_tokens", "prefill_context_tokens", "decode_context_tokens"]
    return Samples(pd.DataFrame(rows, columns=columns), make_provenance())
