"""What a checkpoint's `quantization_config` says: how its linear layers and its KV cache are stored.

Understood are four methods, as vLLM 0.32.0 reads them (`model_executor/layers/quantization/`): `fp8`
(`fp8.py`), `compressed-tensors` with 8-bit float weights or 4-bit integer experts (`compressed_tensors/`),
`mxfp4` (`mxfp4.py`), which packs the experts alone, and ModelOpt's `FP8` (`modelopt.py`), one scale per
tensor found beforehand. Every other method is refused: counted as 16 bits it would give a wrong pool, and be
timed as kernels that do not run. AWQ and GPTQ are among them: the database has 4-bit kernels of experts only.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from concur.calib.errors import SiliconError

BLOCK: Final = 128  # rows and columns under one scale, in the strategy "block"
_SCALE_BYTES: Final = 4  # float32
_WEIGHT_ONLY_SCALE_BYTES: Final = 2  # vLLM's weight-only kernel keeps scales in the activations' type
_MXFP4_BLOCK: Final = 32  # 4-bit weights under one scale of 8 bits (OCP Microscaling Formats 1.0, table 1)
_SUPPORTED: Final = (
    "fp8 and compressed-tensors with 8-bit float weights, one scale per tensor, per channel or per block of "
    f"{BLOCK} x {BLOCK}, ModelOpt's FP8, and mxfp4 or 4-bit integer experts; take such a checkpoint or the "
    "16-bit one (the database has no kernels for AWQ, GPTQ and other 4-bit layers), or measure a real engine "
    "with `concur calibrate profile`"
)
_KV_CACHE_BYTES: Final = {"bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}


@dataclass(frozen=True, slots=True)
class Quantization:
    """How linear layers are stored; embeddings, output head, norms and router are never quantised.

    `weights`: "none", or what shares one scale. `activations`: "none" (with quantised weights: a weight-only
    kernel), or when their scales are found. `ignored`: modules that are left as they are. Of "mxfp4" and
    "int4" are the routed experts alone, `group` weights under a scale; every other layer is in 16 bits then.
    """

    weights: Literal["none", "tensor", "channel", "block", "mxfp4", "int4"] = "none"
    activations: Literal["none", "dynamic", "static"] = "none"
    has_fp8_kv_cache: bool = False
    ignored: tuple[str, ...] = ()
    group: int = 0

    @property
    def is_of_experts(self) -> bool:
        """Whether the routed experts alone are quantised, in 4 bits."""
        return self.weights in ("mxfp4", "int4")

    @property
    def is_weight_only(self) -> bool:
        """Whether 8-bit weights meet 16-bit activations."""
        return self.weights != "none" and not self.is_of_experts and self.activations == "none"

    @property
    def kernels(self) -> Literal["bfloat16", "fp8", "fp8_static", "fp8_block"]:
        """The kernel database's name of the matrix products."""
        if self.weights == "none" or self.is_of_experts:
            return "bfloat16"
        if self.weights == "block":
            return "fp8_block"
        return "fp8_static" if self.activations == "static" else "fp8"

    @property
    def expert_kernels(self) -> str:
        """The kernel database's name of the experts' products; it has no static ones."""
        if self.is_of_experts:
            return "w4a16_mxfp4" if self.weights == "mxfp4" else "int4_wo"
        return self.kernels.replace("fp8_static", "fp8")

    def weight_bytes(self, number: int, dtype_bytes: int, *, is_expert: bool) -> int:
        """Return the bytes of so many weights of linear layers, without scales."""
        if self.is_of_experts:
            return number // 2 if is_expert else number * dtype_bytes
        return number * (dtype_bytes if self.weights == "none" else 1)

    def scale_bytes(self, inputs: int, outputs: int, *, is_expert: bool = False) -> int:
        """Return the bytes of the scales of one linear layer; those per channel go by its outputs."""
        if self.is_of_experts:
            each = 1 if self.weights == "mxfp4" else _WEIGHT_ONLY_SCALE_BYTES
            return each * outputs * -(-inputs // self.group) if is_expert else 0
        if self.weights == "block":
            return _SCALE_BYTES * -(-inputs // BLOCK) * -(-outputs // BLOCK)
        if self.is_weight_only:  # one scale per tensor is spread over its channels
            return _WEIGHT_ONLY_SCALE_BYTES * outputs
        return {"none": 0, "tensor": _SCALE_BYTES, "channel": _SCALE_BYTES * outputs}[self.weights]

    def check_ignored(self, linear_layers: Iterable[str]) -> None:
        """Refuse a checkpoint that leaves some of these layers, given by full name, as they are.

        One of 4-bit experts must leave all others: the database has no 4-bit kernels for them.
        """
        if self.weights == "int4":
            self._check_experts_alone(linear_layers)
            return
        for pattern in self.ignored:
            name = next((name for name in linear_layers if _matches(pattern, name)), None)
            if name is not None:
                raise SiliconError(
                    f"quantization_config leaves {pattern!r} as it is, which is {name}; only checkpoints "
                    "whose layers are quantised throughout are counted (lm_head and router gates may be left)"
                )

    def _check_experts_alone(self, linear_layers: Iterable[str]) -> None:
        for name in linear_layers:
            is_ignored = any(_matches(pattern, name) for pattern in self.ignored)
            if is_ignored == (".mlp.experts." in name):
                raise SiliconError(
                    f"quantization_config has {name} in {16 if is_ignored else 4} bits; with 4-bit integers, "
                    "only checkpoints of 4-bit experts and everything else in 16 bits are counted"
                )


def read_quantization(config: Mapping[str, Any]) -> Quantization:
    """Return what a Hugging Face config says of its checkpoint's quantisation.

    Raises
    ------
    SiliconError
        If it is of a kind that is not understood.
    """
    if config.get("hf_quant_config"):  # ModelOpt's file of its own
        return _modelopt(config["hf_quant_config"].get("quantization") or {})
    raw = config.get("quantization_config") or config.get("compression_config")
    if not raw:
        return Quantization()
    method = raw.get("quant_method")
    if method == "fp8":
        return _fp8(raw)
    if method == "compressed-tensors":
        return _compressed_tensors(raw)
    if method == "mxfp4":  # only gpt-oss; what it leaves as it is are all layers but the experts
        return Quantization(weights="mxfp4", group=_MXFP4_BLOCK)
    if method == "modelopt":
        return _modelopt(raw)
    raise _unsupported("quant_method", method)


def kv_cache_bytes(cache_dtype: str, quantization: Quantization, dtype_bytes: int) -> int:
    """Return the bytes of one element of the KV cache under vLLM's `--kv-cache-dtype`.

    "auto" is the model's own type, or FP8 if the checkpoint brings scales for it (`attention.py`).

    Raises
    ------
    SiliconError
        If the type is none of those counted.
    """
    if cache_dtype == "auto":
        return 1 if quantization.has_fp8_kv_cache else dtype_bytes
    if cache_dtype not in _KV_CACHE_BYTES:
        raise SiliconError(
            f"kv_cache_dtype = {cache_dtype!r} is not supported; choose auto or one of "
            f"{', '.join(_KV_CACHE_BYTES)}"
        )
    return _KV_CACHE_BYTES[cache_dtype]


def _fp8(raw: Mapping[str, Any]) -> Quantization:
    block = raw.get("weight_block_size")
    if block not in (None, [BLOCK, BLOCK]):
        raise _unsupported("weight_block_size", block)
    activations = raw.get("activation_scheme", "dynamic")
    if activations not in ("dynamic", "static"):
        raise _unsupported("activation_scheme", activations)
    return Quantization(
        weights="tensor" if block is None else "block",
        activations=activations,
        ignored=tuple(raw.get("ignored_layers") or raw.get("modules_to_not_convert") or ()),
    )


def _modelopt(raw: Mapping[str, Any]) -> Quantization:
    if raw.get("quant_algo") != "FP8":
        raise _unsupported("quant_algo", raw.get("quant_algo"))
    cache = raw.get("kv_cache_quant_algo")
    if cache not in (None, "FP8"):
        raise _unsupported("kv_cache_quant_algo", cache)
    ignored = tuple(raw.get("exclude_modules") or raw.get("ignore") or ())
    return Quantization("tensor", "static", cache == "FP8", ignored)


def _compressed_tensors(raw: Mapping[str, Any]) -> Quantization:
    groups = list((raw.get("config_groups") or {}).values())
    if len(groups) == 1 and _is_int4(groups[0]):
        size = int(groups[0]["weights"]["group_size"])
        return Quantization(weights="int4", ignored=tuple(raw.get("ignore") or ()), group=size)
    schemes = {_scheme(group) for group in (raw.get("config_groups") or {}).values()}
    if len(schemes) != 1:
        raise _unsupported("config_groups", f"{len(schemes)} schemes" if schemes else "none")
    for key in ("sparsity_config", "transform_config"):
        if raw.get(key) and raw[key].get("format") != "dense":
            raise _unsupported(key, raw[key])
    kv_cache = raw.get("kv_cache_scheme")
    if kv_cache and not _is_fp8(kv_cache):
        raise _unsupported("kv_cache_scheme", kv_cache)
    ((weights, activations),) = schemes
    return Quantization(weights, activations, bool(kv_cache), tuple(raw.get("ignore") or ()))


def _scheme(
    group: Mapping[str, Any],
) -> tuple[Literal["tensor", "channel", "block"], Literal["none", "dynamic", "static"]]:
    if group.get("targets", ["Linear"]) != ["Linear"]:
        raise _unsupported("config_groups.targets", group["targets"])
    weights, inputs = group.get("weights") or {}, group.get("input_activations")
    strategy = weights.get("strategy")
    if not _is_fp8(weights) or strategy not in ("tensor", "channel", "block"):
        raise _unsupported("config_groups.weights", weights)
    if strategy == "block" and weights.get("block_structure") not in ([BLOCK, BLOCK], f"{BLOCK}x{BLOCK}"):
        raise _unsupported("config_groups.weights.block_structure", weights.get("block_structure"))
    if inputs is None:
        return strategy, "none"
    if not _is_fp8(inputs) or group.get("output_activations"):
        raise _unsupported("config_groups.input_activations", inputs)
    return strategy, "dynamic" if inputs.get("dynamic") else "static"


def _is_fp8(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("num_bits") == 8 and arguments.get("type") == "float"


def _is_int4(group: Mapping[str, Any]) -> bool:
    """Tell whether a group has symmetric 4-bit integers, scaled by groups, and 16-bit activations."""
    weights = group.get("weights") or {}
    wanted = {"num_bits": 4, "type": "int", "strategy": "group", "symmetric": True}
    is_plain = group.get("input_activations") is None and weights.get("group_size") in (32, 128)
    return is_plain and all(weights.get(key) == value for key, value in wanted.items())


def _matches(pattern: str, name: str) -> bool:
    """Tell whether an entry of an ignore list (part of a path, or `re:` and an expression) covers a layer."""
    if pattern.startswith("re:"):
        return re.match(pattern.removeprefix("re:"), name) is not None
    return f".{pattern}." in f".{name}."


def _unsupported(key: str, value: Any) -> SiliconError:
    return SiliconError(
        f"quantization_config: {key} = {str(value)[:120]} is not supported; supported: {_SUPPORTED}"
    )
