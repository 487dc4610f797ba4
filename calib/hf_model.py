"""What a Hugging Face config says about memory: bytes of weights, and of keys and values per token.

Grouped-query attention stores K and V of every KV head; DeepSeek's multi-head latent attention (MLA,
arXiv:2405.04434, section 2.1) stores one latent of `kv_lora_rank` and one rotary key of `qk_rope_head_dim`
per token and layer, the same on every GPU of a tensor-parallel group. Left out: the multi-token-prediction
layers, which an engine loads only for speculative decoding, and linear or sliding-window attention.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from calib.errors import SiliconError

_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}
_FP8_SCALE_BYTES: Final = 4  # one float32 scale per block of quantised weights


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Bytes of one model under tensor parallelism.

    `kv_bytes_per_token`: of the model, every head once. `kv_bytes_per_token_per_gpu`: what each GPU of the
    group stores; replicas included (heads fewer than GPUs, or MLA). `weights_bytes_per_gpu`: likewise.
    """

    weights_bytes: int
    weights_bytes_per_gpu: int
    kv_bytes_per_token: int
    kv_bytes_per_token_per_gpu: int


def model_memory(config: Mapping[str, Any], tensor_parallel_size: int) -> ModelMemory:
    """Return the bytes that a model's weights, keys and values take.

    Raises
    ------
    SiliconError
        If the config lacks a field that decides them, or is of a kind that is left out.
    """
    if config.get("use_sliding_window") or set(config.get("layer_types") or ()) - {"full_attention"}:
        raise SiliconError(
            f"model type {config.get('model_type')!r} has windows or linear layers; only full attention is "
            "supported"
        )
    try:
        shape = _Shape(config)
        return shape.memory(tensor_parallel_size)
    except KeyError as missing:
        raise SiliconError(
            f"the model's config has no {missing}; give the full Hugging Face config"
        ) from None


class _Shape:
    """The sizes of a decoder, by the names of its config."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.num_layers = int(config["num_hidden_layers"])
        self.hidden = int(config["hidden_size"])
        self.num_heads = int(config["num_attention_heads"])
        self.dtype_bytes = _BYTES[config.get("torch_dtype") or config.get("dtype") or "bfloat16"]
        self.is_mla = "kv_lora_rank" in config
        quantization = config.get("quantization_config") or {}
        self.is_fp8 = quantization.get("quant_method") == "fp8"
        rows, columns = quantization.get("weight_block_size") or (128, 128)
        self.linear_bytes = 1 + _FP8_SCALE_BYTES / (rows * columns) if self.is_fp8 else self.dtype_bytes

    def memory(self, tp: int) -> ModelMemory:
        kv, kv_per_gpu = self._kv_bytes(tp)
        sharded, replicated = self._weights()
        return ModelMemory(
            weights_bytes=round(sharded + replicated),
            weights_bytes_per_gpu=round(sharded / tp + replicated),
            kv_bytes_per_token=kv,
            kv_bytes_per_token_per_gpu=kv_per_gpu,
        )

    def _kv_bytes(self, tp: int) -> tuple[int, int]:
        per_layer = self.num_layers * self.dtype_bytes
        if self.is_mla:
            latent = per_layer * (self.config["kv_lora_rank"] + self.config["qk_rope_head_dim"])
            return latent, latent
        num_kv_heads = int(self.config.get("num_key_value_heads", self.num_heads))
        per_head = 2 * self._head_dim() * per_layer  # K and V
        return num_kv_heads * per_head, max(1, num_kv_heads // tp) * per_head

    def _head_dim(self) -> int:
        return int(self.config.get("head_dim") or self.hidden // self.num_heads)

    def _weights(self) -> tuple[float, float]:
        """Return the bytes that tensor parallelism divides, and those on every GPU."""
        config, hidden = self.config, self.hidden
        embeddings = (1 if config.get("tie_word_embeddings") else 2) * config["vocab_size"] * hidden
        attention, replicated = self._mla_params() if self.is_mla else (self._gqa_params(), 0)
        num_experts = int(config.get("n_routed_experts") or config.get("num_experts") or 0)
        num_dense = int(config.get("first_k_dense_replace", 0)) if num_experts else self.num_layers
        linear = self.num_layers * attention + num_dense * 3 * hidden * int(
            config.get("intermediate_size", 0)
        )
        router = 0
        if num_experts:
            expert = 3 * hidden * int(config["moe_intermediate_size"])
            experts = num_experts + int(config.get("n_shared_experts") or 0)
            linear += (self.num_layers - num_dense) * experts * expert
            router = (self.num_layers - num_dense) * num_experts * hidden
        norms = (2 * self.num_layers + 1) * hidden
        sharded = embeddings * self.dtype_bytes + linear * self.linear_bytes
        on_every_gpu = (router + norms) * self.dtype_bytes + self.num_layers * replicated * self.linear_bytes
        return sharded, on_every_gpu

    def _gqa_params(self) -> int:
        num_kv_heads = int(self.config.get("num_key_value_heads", self.num_heads))
        return self.hidden * self._head_dim() * (2 * self.num_heads + 2 * num_kv_heads)

    def _mla_params(self) -> tuple[int, int]:
        """Return the parameters per layer that are divided, and those of the down-projections."""
        config, heads = self.config, self.num_heads
        nope, rope, value = (config[f"{part}_head_dim"] for part in ("qk_nope", "qk_rope", "v"))
        kv_rank, q_rank = config["kv_lora_rank"], config.get("q_lora_rank")
        up = kv_rank * heads * (nope + value) + heads * value * self.hidden
        down = self.hidden * (kv_rank + rope)
        if q_rank is None:
            return up + self.hidden * heads * (nope + rope), down
        return up + q_rank * heads * (nope + rope), down + self.hidden * q_rank
