"""Samples without a GPU. What needs the database of measured kernels is skipped where it is not installed."""

import builtins
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from concur.calib.errors import SiliconError
from concur.calib.silicon.hf_model import model_memory
from concur.calib.silicon.kernels import KernelDatabase, kernel_modes
from concur.calib.silicon.silicon import SiliconRequest, num_blocks_that_fit, silicon_samples
from concur.calib.silicon.silicon_grid import StepShape, capture_sizes, step_shapes
from tests.calib.helpers import DENSE, FP8_TOKENS, QWEN3_32B, with_compressed_tensors

needs_database = pytest.mark.skipif(
    find_spec("aiconfigurator_core") is None, reason="needs the extra `silicon`"
)


QWEN3_LINEAR = 64 * (5120 * 128 * (64 + 2 * 8) + 64 * 128 * 5120 + 3 * 5120 * 25_600)  # q, k, v; o; the MLP
QWEN3_CHANNELS = 64 * ((64 + 2 * 8) * 128 + 5120 + 2 * 25_600 + 5120)  # outputs of those layers
QWEN3_REST = 2 * 151_936 * 5120 + (2 * 64 + 1) * 5120  # embeddings and head; norms


def test_bytes_of_a_small_model_counted_by_hand() -> None:
    memory = model_memory(DENSE, 1)
    attention = 64 * 64 * 2 + 64 * 32 * 2  # q and o; k and v
    params = 2 * 1000 * 64 + 2 * (attention + 3 * 64 * 256) + 5 * 64
    assert memory.weights_bytes == 2 * params
    assert memory.kv_bytes_per_token == 2 * (2 * 2 * 16) * 2  # layers, K and V of two heads of 16, bf16
    assert model_memory(DENSE, 4).kv_bytes_per_token_per_gpu == 2 * (2 * 1 * 16) * 2  # heads are replicated


H100_BYTES = 80 * 2**30


def test_a_checkpoint_of_8_bit_weights_is_counted_at_a_byte_each() -> None:
    request = SiliconRequest("Qwen3-32B", "h100_sxm")
    sixteen_bit = model_memory(QWEN3_32B, 1)
    assert sixteen_bit.weights_bytes == 2 * (QWEN3_LINEAR + QWEN3_REST)
    assert num_blocks_that_fit(request, QWEN3_32B, sixteen_bit, H100_BYTES) == 2_387
    weight_only = model_memory(with_compressed_tensors(), 1)
    assert weight_only.weights_bytes == QWEN3_LINEAR + 2 * QWEN3_CHANNELS + 2 * QWEN3_REST == 34_327_767_040
    assert num_blocks_that_fit(request, QWEN3_32B, weight_only, H100_BYTES) == 9_825
    both = model_memory(with_compressed_tensors(input_activations=FP8_TOKENS), 1)
    assert both.weights_bytes == QWEN3_LINEAR + 4 * QWEN3_CHANNELS + 2 * QWEN3_REST  # scales in float32
    assert num_blocks_that_fit(request, QWEN3_32B, both, H100_BYTES) == 9_823
    blocks = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    of_blocks = model_memory(QWEN3_32B | {"quantization_config": blocks}, 1)
    assert of_blocks.weights_bytes == QWEN3_LINEAR + 4 * QWEN3_LINEAR // 128**2 + 2 * QWEN3_REST


def test_an_fp8_kv_cache_takes_half_the_bytes_asked_for_or_brought_along() -> None:
    request = SiliconRequest("Qwen3-32B", "h100_sxm")
    asked = model_memory(with_compressed_tensors(), 1, "fp8")
    assert asked.kv_bytes_per_token == 64 * 8 * 128 * 2 * 1
    assert num_blocks_that_fit(request, QWEN3_32B, asked, H100_BYTES) == 2 * 9_825
    scheme = {"type": "float", "num_bits": 8, "strategy": "tensor", "symmetric": True}
    brings = with_compressed_tensors() | {}
    brings["quantization_config"] |= {"kv_cache_scheme": scheme}
    assert model_memory(brings, 1).kv_bytes_per_token == 64 * 8 * 128 * 2 * 1
    assert model_memory(brings, 1, "bfloat16").kv_bytes_per_token == 64 * 8 * 128 * 2 * 2
    with pytest.raises(SiliconError, match="kv_cache_dtype = 'int8' is not supported; choose auto or one of"):
        model_memory(QWEN3_32B, 1, "int8")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"quant_method": "awq", "bits": 4}, "quant_method = awq is not supported; supported: fp8 and"),
        ({"quant_method": "mxfp4"}, "quant_method = mxfp4"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, r"weight_block_size = \[64, 64\]"),
        ({"quant_method": "compressed-tensors"}, "config_groups = none"),
        ({"weights": {"num_bits": 4, "type": "int", "strategy": "group"}}, "config_groups.weights = .*'int'"),
        (
            {"weights": {"num_bits": 8, "type": "int", "strategy": "channel"}},
            "config_groups.weights = .*'int'",
        ),
        ({"targets": ["re:.*mlp.*"]}, "config_groups.targets"),
        ({"input_activations": {"num_bits": 8, "type": "int"}}, "config_groups.input_activations"),
    ],
)
def test_what_is_not_understood_of_a_quantised_checkpoint_is_refused(raw: Any, message: str) -> None:
    quantized = (
        QWEN3_32B | {"quantization_config": raw} if "quant_method" in raw else with_compressed_tensors(**raw)
    )
    with pytest.raises(SiliconError, match=message):
        model_memory(quantized, 1)


def test_layers_left_as_they_are_are_refused_but_those_that_never_are_quantised() -> None:
    config = with_compressed_tensors()
    for ignore in (["lm_head", "re:.*mlp.gate$", "model.layers.3.input_layernorm"], None):
        config["quantization_config"]["ignore"] = ignore
        assert model_memory(config, 1).weights_bytes == 34_327_767_040
    for pattern in ("re:.*self_attn.*", "model.layers.63.mlp.down_proj", "self_attn"):
        config["quantization_config"]["ignore"] = ["lm_head", pattern]
        with pytest.raises(SiliconError, match=r"leaves .* as it is, which is model\.layers"):
            model_memory(config, 1)


@pytest.mark.parametrize(
    ("raw", "cache", "gemm", "kv"),
    [
        (None, "auto", "bfloat16", "bfloat16"),
        (None, "fp8", "bfloat16", "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "auto", "fp8_block", "bfloat16"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "auto", "fp8_static", "bfloat16"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8", "fp8", "fp8"),
    ],
)
def test_the_kernels_are_of_the_types_that_are_counted(raw: Any, cache: str, gemm: str, kv: str) -> None:
    modes = kernel_modes(QWEN3_32B | {"quantization_config": raw}, cache)
    assert (modes["gemm_quant_mode"], modes["kvcache_quant_mode"]) == (gemm, kv)
    assert modes["fmha_quant_mode"] == "bfloat16"


def test_a_config_that_lacks_a_field_is_named() -> None:
    config: dict[str, Any] = {key: value for key, value in DENSE.items() if key != "vocab_size"}
    with pytest.raises(SiliconError, match="no 'vocab_size'"):
        model_memory(config, 1)
    with pytest.raises(SiliconError, match="windows"):
        model_memory(DENSE | {"layer_types": ["full_attention", "sliding_attention"]}, 1)


def test_a_model_too_large_for_the_memory_is_refused() -> None:
    request = SiliconRequest("tiny", "some_gpu")
    memory = model_memory(DENSE, 1)
    assert num_blocks_that_fit(request, DENSE, memory, 4 * 2**30) > 1000
    with pytest.raises(SiliconError, match="raise tensor_parallel_size"):
        num_blocks_that_fit(request, DENSE, memory, 2**30)


def test_capture_sizes_are_those_of_vllm() -> None:
    sizes = capture_sizes(256)
    assert sizes[:6] == (1, 2, 4, 8, 16, 24)
    assert sizes[-3:] == (480, 496, 512)
    assert capture_sizes(4) == (1, 2, 4, 8)


def test_shapes_fit_the_limits() -> None:
    limits = {"max_num_seqs": 100, "max_num_batched_tokens": 2000, "max_model_len": 40_000}
    shapes = step_shapes(pool_tokens=50_000, **limits)
    assert {shape.phase for shape in shapes} == {"prefill", "decode", "mixed"}
    assert max(shape.kv_tokens for shape in shapes) <= 50_000
    assert max(shape.num_tokens for shape in shapes) <= 2000
    assert len(set(shapes)) == len(shapes)


def test_a_missing_database_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("aiconfigurator_core"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SiliconError, match=r"pip install 'concur-admission\[silicon\]'"):
        KernelDatabase("Qwen/Qwen3-32B", "h100_sxm", "vllm", 8)


@needs_database
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SiliconRequest("Qwen/Qwen3-32", "h100_sxm", 8), "neither a file nor a model"),
        (SiliconRequest("Qwen/Qwen3-32B", "h20", 8), "no system 'h20'; it has .*h100_sxm"),
        (SiliconRequest("deepseek-ai/DeepSeek-V3", "h100_sxm", 8), "raise tensor_parallel_size"),
        (SiliconRequest("Qwen/Qwen3-32B", "h100_sxm", 1, backend="nope"), "no nope data of h100_sxm"),
    ],
)
def test_what_the_database_lacks_is_said(request_: SiliconRequest, message: str) -> None:
    with pytest.raises(SiliconError, match=message):
        silicon_samples(request_, date="2026-01-01")


@needs_database
def test_8_bit_kernels_are_timed_for_8_bit_checkpoints(tmp_path: Path) -> None:
    times = {}
    for name, config, cache in (
        ("bf16", QWEN3_32B, "auto"),
        ("fp8", with_compressed_tensors(input_activations=FP8_TOKENS), "auto"),
        ("fp8 cache", QWEN3_32B, "fp8"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        database = KernelDatabase(str(tmp_path / "config.json"), "h100_sxm", "vllm", 2, cache)
        prefill = StepShape(num_prefills=1, prefill_tokens=4096)
        decode = StepShape(num_decodes=64, decode_context_tokens=4096)
        times[name] = [database.step_s(shape, capture_sizes(256)) for shape in (prefill, decode)]
    assert times["fp8"][0] < 0.85 * times["bf16"][0]  # faster products
    assert times["fp8"][1] < 0.85 * times["bf16"][1]  # half the bytes of weights
    assert times["fp8 cache"][0] == pytest.approx(times["bf16"][0], rel=0.02)  # attention stays in 16 bits
    assert times["fp8 cache"][1] < 0.9 * times["bf16"][1]  # half the bytes of context


@needs_database
def test_known_steps_come_out_of_the_database() -> None:
    samples = silicon_samples(SiliconRequest("Qwen/Qwen3-32B", "h100_sxm", 8), date="2026-01-01")
    steps = samples.steps
    of_4096 = steps[
        (steps["phase"] == "decode")
        & steps["decode_context_tokens"].map(lambda c: len(c) > 0 and c[0] == 4096)
    ]
    by_batch = dict(zip(of_4096["decode_context_tokens"].map(len), of_4096["step_s"], strict=True))
    assert 1e3 * by_batch[1] == pytest.approx(5.82, rel=0.005)
    assert 1e3 * by_batch[32] == pytest.approx(8.30, rel=0.005)
    assert 1e3 * by_batch[128] == pytest.approx(13.42, rel=0.005)
    prefills = steps[steps["phase"] == "prefill"]
    is_known = [
        list(t) == [4096] and list(c) == [0]
        for t, c in zip(prefills["prefill_tokens"], prefills["prefill_context_tokens"], strict=True)
    ]
    assert 1e3 * float(prefills["step_s"][is_known].iloc[0]) == pytest.approx(87.1, rel=0.005)
