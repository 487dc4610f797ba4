"""Models by their geometry alone: a step's duration does not depend on the values of the weights.

Source of the fields: `config.json` of Qwen/Qwen3-8B and Qwen/Qwen3-32B on the Hugging Face hub. `tiny` is of
nobody: six layers that a CPU runs in milliseconds.
"""

import json
from pathlib import Path
from typing import Any, Final

from concur.validate.errors import ServerError

_COMMON: Final = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GEOMETRIES: Final[dict[str, dict[str, Any]]] = {
    "tiny": _COMMON
    | {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 2048,
    },
    "qwen3-8b": _COMMON
    | {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
    "qwen3-32b": _COMMON
    | {
        "hidden_size": 5120,
        "intermediate_size": 25600,
        "num_hidden_layers": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
}


def model_folder(model: str, scratch: Path) -> Path:
    """Return a folder with the model's `config.json`; that of a built-in geometry is written below `scratch`.

    Raises
    ------
    ServerError
        If `model` is neither a built-in geometry nor a folder with (or the path of) a `config.json`.
    """
    if model in GEOMETRIES:
        folder = scratch / model
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(GEOMETRIES[model], indent=1))
        return folder
    path = Path(model)
    folder = path.parent if path.name == "config.json" else path
    if not (folder / "config.json").is_file():
        raise ServerError(
            f"model = {model!r} is neither a folder with config.json nor one of {sorted(GEOMETRIES)}; "
            "download the model's config.json (weights are not needed with --load-format dummy)"
        )
    return folder
