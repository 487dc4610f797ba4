"""What a Hugging Face config says about memory: bytes of weights, and of keys and values per token.

Grouped-query attention stores K and V of every KV head; DeepSeek's multi-head latent attention (MLA,
arXiv:2405.04434, section 2.1) stores one latent of `kv_lora_rank` and one rotary key of `qk_rope_head_dim`
per token and layer, the same on every GPU of a tensor-parallel group. Left out: the multi-token-prediction
layers, which an engine loads only for speculative decoding.

gpt-oss has windows in every other layer. vLLM's hybrid KV cache gives both kinds of layers blocks from one
pool, so that a token takes those of the full layers alone, and each sequence besides those of its window:
about nine blocks of 16 for 128 tokens (`v1/core/kv_cache_utils.py`, `single_type_kv_cache_manager.py`). The
latter are not counted here: an engine with `kv_cache_groups` counts them. Every other kind of window, linear
attention, state-space layer or sparse index is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from concur.calib.errors import SiliconError
from concur.calib.silicon.quantization import kv_cache_bytes, read_quantization

_ARCHITECTURES: Final = (  # whose every weight and cache is counted below
    *(
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
    ),
    *("MixtralForCausalLM", "MiniMaxM2ForCausalLM", "DeepseekV3ForCausalLM", "GptOssForCausalLM"),
)
_OTHER_ATTENTION: Final = (  # fields of windows, linear attention, state-space layers, sparse indexes
    *("full_attention_interval", "linear_num_value_heads", "mamba_num_heads", "hybrid_override_pattern"),
    *("index_topk", "hybrid_layer_pattern", "block_configs", "attention_chunk_size"),
)
_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}


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


def model_memory(
    config: Mapping[str, Any], tensor_parallel_size: int, kv_cache_dtype: str = "auto"
) -> ModelMemory:
    """Return the bytes that a model's weights, keys and values take; `kv_cache_dtype` is vLLM's option.

    Raises
    ------
    SiliconError
        If the config lacks a field that decides them, or is of a kind that is left out.
    """
    _check_kind(config)
    try:
        shape = _Shape(config, kv_cache_dtype)
        return shape.memory(tensor_parallel_size)
    except KeyError as missing:
        raise SiliconError(
            f"the model's config has no {missing}; give the full Hugging Face config"
        ) from None


def num_experts(config: Mapping[str, Any]) -> int:
    """Return how many routed experts a layer has; 0 in a dense model."""
    keys = ("n_routed_experts", "num_experts", "num_local_experts")
    return next((int(config[key]) for key in keys if config.get(key)), 0)


def has_windows(config: Mapping[str, Any]) -> bool:
    """Tell whether layers with a window alternate with full ones, as in gpt-oss."""
    return config.get("model_type") == "gpt_oss"


def _check_kind(config: Mapping[str, Any]) -> None:
    name = next(iter(config.get("architectures") or ()), None)
    remedy = "choose another model, or measure a real engine with `concur calibrate profile`"
    if name is not None and name not in _ARCHITECTURES:
        raise SiliconError(
            f"the memory of architecture {name!r} is not known; known are {', '.join(_ARCHITECTURES)}; "
            f"{remedy}"
        )
    kinds = set(config.get("layer_types") or ()) - {"full_attention"}
    has_window = config.get("use_sliding_window", bool(config.get("sliding_window")))
    fields = [field for field in _OTHER_ATTENTION if config.get(field)]
    if fields or (not has_windows(config) and (has_window or kinds)):
        raise SiliconError(
            f"model type {config.get('model_type')!r} has windows or linear layers "
            f"({', '.join(fields or sorted(kinds) or ['sliding_window'])}); only full attention, MLA and "
            f"gpt-oss's alternating windows are supported; {remedy}"
        )
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise SiliconError(
            f"experts in some layers only (mlp_only_layers, decoder_sparse_step) are not counted; {remedy}"
        )


@dataclass(frozen=True, slots=True)
class _Linear:
    """Equal linear layers: the first one's name, how many, and the side that tensor parallelism divides."""

    name: str
    number: int
    inputs: int
    outputs: int
    divided: Literal["inputs", "outputs", "none"]
    is_expert: bool = False


class _Shape:
    """The sizes of a decoder, by the names of its config."""

    def __init__(self, config: Mapping[str, Any], kv_cache_dtype: str) -> None:
        self.config = config
        self.num_layers = int(config["num_hidden_layers"])
        self.hidden = int(config["hidden_size"])
        self.num_heads = int(config["num_attention_heads"])
        self.num_kv_heads = int(config.get("num_key_value_heads", self.num_heads))
        self.head_dim = int(config.get("head_dim") or self.hidden // self.num_heads)
        self.dtype_bytes = _dtype_bytes(config)
        self.is_mla = "kv_lora_rank" in config
        self.quantization = read_quantization(config)
        self.kv_bytes = kv_cache_bytes(kv_cache_dtype, self.quantization, self.dtype_bytes)

    def memory(self, tp: int) -> ModelMemory:
        kv, kv_per_gpu = self._kv_bytes(tp)
        divided, replicated = self._weights()
        return ModelMemory(
            weights_bytes=divided + replicated,
            weights_bytes_per_gpu=round(divided / tp + replicated),
            kv_bytes_per_token=kv,
            kv_bytes_per_token_per_gpu=kv_per_gpu,
        )

    def _kv_bytes(self, tp: int) -> tuple[int, int]:
        kinds = (
            self.config["layer_types"] if has_windows(self.config) else ["full_attention"] * self.num_layers
        )
        per_layer = kinds.count("full_attention") * self.kv_bytes
        if self.is_mla:
            latent = per_layer * (self.config["kv_lora_rank"] + self.config["qk_rope_head_dim"])
            return latent, latent
        per_head = 2 * self.head_dim * per_layer  # K and V
        return self.num_kv_heads * per_head, max(1, self.num_kv_heads // tp) * per_head

    def _weights(self) -> tuple[int, int]:
        """Return the bytes that tensor parallelism divides, and those on every GPU."""
        config, hidden = self.config, self.hidden
        linears = [*self._attention(), *self._feed_forward()]
        layers = [f"model.layers.{layer}." for layer in range(self.num_layers)]
        self.quantization.check_ignored([layer + linear.name for layer in layers for linear in linears])
        embeddings = (1 if config.get("tie_word_embeddings") else 2) * config["vocab_size"] * hidden
        router = (self.num_layers - self._num_dense) * self._num_experts * hidden
        norms = (2 * self.num_layers + 1) * hidden
        divided, replicated = embeddings * self.dtype_bytes, (router + norms) * self.dtype_bytes
        for linear in linears:
            weights, scales = self._bytes(linear)
            divided += weights if linear.divided != "none" else 0
            replicated += weights if linear.divided == "none" else 0
            if self._is_scale_divided(linear):
                divided += scales
            else:
                replicated += scales
        return divided, replicated

    def _bytes(self, linear: _Linear) -> tuple[int, int]:
        each = linear.inputs * linear.outputs
        weights = self.quantization.weight_bytes(each, self.dtype_bytes, is_expert=linear.is_expert)
        scales = self.quantization.scale_bytes(linear.inputs, linear.outputs, is_expert=linear.is_expert)
        return linear.number * weights, linear.number * scales

    def _is_scale_divided(self, linear: _Linear) -> bool:
        """Scales per channel follow the outputs, those per block both sides, a tensor's neither."""
        return linear.divided == "outputs" or (
            linear.divided == "inputs" and self.quantization.weights in ("block", "mxfp4", "int4")
        )

    def _attention(self) -> Iterator[_Linear]:
        number, hidden, heads = self.num_layers, self.hidden, self.num_heads
        if not self.is_mla:
            size, kv_size = heads * self.head_dim, self.num_kv_heads * self.head_dim
            yield _Linear("self_attn.q_proj", number, hidden, size, "outputs")
            yield _Linear("self_attn.k_proj", number, hidden, kv_size, "outputs")
            yield _Linear("self_attn.v_proj", number, hidden, kv_size, "outputs")
            yield _Linear("self_attn.o_proj", number, size, hidden, "inputs")
            return
        config = self.config
        nope, rope, value = (config[f"{part}_head_dim"] for part in ("qk_nope", "qk_rope", "v"))
        kv_rank, q_rank = config["kv_lora_rank"], config.get("q_lora_rank")
        yield _Linear("self_attn.kv_a_proj_with_mqa", number, hidden, kv_rank + rope, "none")
        yield _Linear("self_attn.kv_b_proj", number, kv_rank, heads * (nope + value), "outputs")
        yield _Linear("self_attn.o_proj", number, heads * value, hidden, "inputs")
        if q_rank is None:
            yield _Linear("self_attn.q_proj", number, hidden, heads * (nope + rope), "outputs")
            return
        yield _Linear("self_attn.q_a_proj", number, hidden, q_rank, "none")
        yield _Linear("self_attn.q_b_proj", number, q_rank, heads * (nope + rope), "outputs")

    @property
    def _num_experts(self) -> int:
        return num_experts(self.config)

    @property
    def _num_dense(self) -> int:
        """Layers without experts: the first ones."""
        return int(self.config.get("first_k_dense_replace", 0)) if self._num_experts else self.num_layers

    def _feed_forward(self) -> Iterator[_Linear]:
        if self._num_dense:
            size = int(self.config.get("intermediate_size", 0))
            yield from self._gated("mlp", self._num_dense, size)
        if self._num_experts:
            number, size = self.num_layers - self._num_dense, self._expert_size
            yield from self._gated("mlp.experts.0", number * self._num_experts, size, is_expert=True)
            if shared := int(self.config.get("n_shared_experts") or 0):
                yield from self._gated("mlp.shared_experts", number, shared * size)

    @property
    def _expert_size(self) -> int:
        if "num_local_experts" in self.config:  # Mixtral, MiniMax and gpt-oss know one size
            return int(self.config["intermediate_size"])
        return int(self.config["moe_intermediate_size"])

    def _gated(self, name: str, number: int, size: int, *, is_expert: bool = False) -> Iterator[_Linear]:
        yield _Linear(f"{name}.gate_proj", number, self.hidden, size, "outputs", is_expert)
        yield _Linear(f"{name}.up_proj", number, self.hidden, size, "outputs", is_expert)
        yield _Linear(f"{name}.down_proj", number, size, self.hidden, "inputs", is_expert)


def _dtype_bytes(config: Mapping[str, Any]) -> int:
    dtype = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in _BYTES:
        raise SiliconError(f"torch_dtype = {dtype!r} is not supported; supported: {', '.join(_BYTES)}")
    return _BYTES[dtype]
