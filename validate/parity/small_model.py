"""A model for engines that are there to schedule: a Hugging Face configuration of one dense layer."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

_SMALL_MODEL: Final[dict[str, Any]] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "vocab_size": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 1 << 24,
}
"""Scheduling does not depend on it."""


def small_model_folder(**more: Any) -> TemporaryDirectory[str]:
    """Write the model, with `more` in its configuration, into a folder that goes when the object does."""
    folder = TemporaryDirectory(prefix="concur-model-")
    Path(folder.name, "config.json").write_text(json.dumps(_SMALL_MODEL | more))
    return folder
