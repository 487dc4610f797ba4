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
from concur.calib.silicon.silicon_grid import _CHUNKS, StepShape, capture_sizes, step_shapes, uneven_sizes
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
        (
            {"quant_method": "gptq", "bits": 4},
            "quant_method = gptq is not supported; .*concur calibrate profile",
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "quant_algo = NVFP4"),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "NVFP4"}, "kv_cache_quant"),
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
    shapes = step_shapes(
        step_tokens=50_000, max_num_seqs=100, max_num_batched_tokens=2000, max_model_len=40_000
    )
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


def test_uneven_sizes_enclose_a_jump_and_leave_a_straight_line_alone() -> None:
    straight = uneven_sizes(lambda tokens: 1.0 + 0.01 * tokens, 4096, (1, 8, 512))
    jump = uneven_sizes(
        lambda tokens: (1.0 + 0.01 * tokens) * (1.3 if tokens > 1100 else 1.0), 4096, (1, 8, 512)
    )
    assert straight == [1, 8, 512, *(s for s in _CHUNKS if 512 < s <= 4096)]
    assert {1100, 1101} <= set(jump)
    assert len(jump) < len(straight) + 12


def test_prefills_are_asked_for_beside_each_uneven_size() -> None:
    limits: dict[str, Any] = {"max_num_seqs": 100, "max_num_batched_tokens": 2000, "max_model_len": 40_000}
    plain = step_shapes(step_tokens=50_000, **limits, chunks=())
    more = set(step_shapes(step_tokens=50_000, **limits, chunks=(1099, 2001))) - set(plain)
    assert {(shape.num_prefills, shape.prefill_tokens) for shape in more} == {(1, 1099)}
    assert {shape.prefill_context_tokens for shape in more} == {0, 1024, 8192, 32_768}


GPT_OSS_120B = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "num_hidden_layers": 36,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "sliding_window": 128,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "vocab_size": 201_088,
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
}


def test_gpt_oss_keeps_tokens_in_its_full_layers_and_packs_its_experts() -> None:
    memory = model_memory(GPT_OSS_120B, 2)
    assert memory.kv_bytes_per_token == 18 * 2 * 8 * 64 * 2
    experts = 36 * 128 * 3 * 2880 * 2880
    packed = experts // 2 + experts // 32
    attention = 36 * 2880 * 64 * (64 + 2 * 8 + 64)
    rest = 2 * 201_088 * 2880 + 36 * 128 * 2880 + 73 * 2880
    assert memory.weights_bytes == packed + 2 * (attention + rest)
    assert memory.weights_bytes == pytest.approx(65.2e9, rel=0.01)  # the published checkpoint's 60.8 GiB
    modes = kernel_modes(GPT_OSS_120B, "auto")
    assert (modes["gemm_quant_mode"], modes["moe_quant_mode"]) == ("bfloat16", "w4a16_mxfp4")


KIMI_K2 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "kimi_k2",
    "num_hidden_layers": 61,
    "first_k_dense_replace": 1,
    "hidden_size": 7168,
    "intermediate_size": 18_432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 384,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 163_840,
    "max_position_embeddings": 131_072,
}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
IGNORED = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|down)_proj.*"]


def with_int4(ignored: list[str], **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": INT4 | weights}
    raw = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ignored}
    return KIMI_K2 | {"quantization_config": raw}


def test_kimi_k2_in_16_bits_and_with_4_bit_experts() -> None:
    plain, packed = model_memory(KIMI_K2, 8), model_memory(with_int4(IGNORED), 8)
    experts = 60 * 384 * 3 * 7168 * 2048
    assert plain.weights_bytes == pytest.approx(2 * 1.026e12, rel=0.003)  # a trillion parameters
    assert plain.weights_bytes - packed.weights_bytes == 2 * experts - experts // 2 - 2 * experts // 32
    assert packed.kv_bytes_per_token == 61 * (512 + 64) * 2
    modes = kernel_modes(with_int4(IGNORED), "auto")
    assert (modes["gemm_quant_mode"], modes["moe_quant_mode"]) == ("bfloat16", "int4_wo")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_int4(["lm_head"]), r"self_attn\.kv_a_proj_with_mqa in 4 bits"),
        (with_int4([*IGNORED, "re:.*experts.*"]), r"mlp\.experts\.0\.gate_proj in 16 bits"),
        (with_int4(IGNORED, symmetric=False), "config_groups.weights"),
        (with_int4(IGNORED, group_size=64), "config_groups.weights"),
    ],
)
def test_4_bit_integers_are_taken_in_experts_alone(config: dict[str, Any], message: str) -> None:
    with pytest.raises(SiliconError, match=message):
        model_memory(config, 8)


@needs_database
def test_kimi_k2_is_timed_with_its_4_bit_experts(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(with_int4(IGNORED)), encoding="utf-8")
    database = KernelDatabase(str(path), "h200_sxm", "vllm", 8)
    assert database.memory.weights_bytes_per_gpu < 80e9
    assert 0.005 < database.step_s(StepShape(0, 0, 0, 16, 4096), capture_sizes(256)) < 0.1
    assert database.estimated_frac < 0.15


def test_experts_that_know_one_size_are_counted_by_it() -> None:
    mixtral = {
        "architectures": ["MixtralForCausalLM"],
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "vocab_size": 32_000,
        "sliding_window": None,
    }
    assert model_memory(mixtral, 1).weights_bytes == pytest.approx(2 * 46.7e9, rel=0.001)  # the model card's


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["Qwen3NextForCausalLM"]}, "'Qwen3NextForCausalLM' is not known; known are Llama"),
        ({"architectures": ["Glm4MoeForCausalLM"]}, "'Glm4MoeForCausalLM' is not known"),
        ({"architectures": ["KimiK25ForConditionalGeneration"]}, "concur calibrate profile"),
        ({"full_attention_interval": 4}, "full_attention_interval"),
        ({"index_topk": 2048}, "index_topk"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"sliding_window": 4096, "use_sliding_window": True}, "sliding_window"),
        ({"mlp_only_layers": [0, 1]}, "experts in some layers only"),
        ({"decoder_sparse_step": 2}, "experts in some layers only"),
    ],
)
def test_a_model_whose_memory_is_not_counted_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(SiliconError, match=message):
        model_memory(QWEN3_32B | changes, 1)


def test_a_window_that_is_switched_off_is_none() -> None:
    off = QWEN3_32B | {"sliding_window": 4096, "use_sliding_window": False}
    assert model_memory(off, 1) == model_memory(QWEN3_32B, 1)


@pytest.mark.parametrize("is_own_file", [True, False])
def test_modelopts_fp8_has_a_scale_per_tensor_and_brings_its_cache(is_own_file: bool) -> None:
    raw = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    field = (
        {"hf_quant_config": {"producer": {}, "quantization": raw}}
        if is_own_file
        else {"quantization_config": {"quant_method": "modelopt"} | raw}
    )
    memory = model_memory(QWEN3_32B | field, 1)
    assert memory.weights_bytes == QWEN3_LINEAR + 64 * 7 * 4 + 2 * QWEN3_REST
    assert memory.kv_bytes_per_token == 64 * 8 * 128 * 2
    assert kernel_modes(QWEN3_32B | field, "auto")["gemm_quant_mode"] == "fp8_static"


@needs_database
@pytest.mark.parametrize("backend", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("model", "system", "tp"),
    [
        ("Qwen/Qwen3-8B", "a100_sxm", 1),
        ("Qwen/Qwen3-30B-A3B", "h100_sxm", 2),
        ("Qwen/Qwen3-235B-A22B-FP8", "h200_sxm", 4),
        ("openai/gpt-oss-120b", "b200_sxm", 1),
        ("openai/gpt-oss-120b", "h100_sxm", 2),
        ("MiniMaxAI/MiniMax-M2.5", "h200_sxm", 4),
        ("Qwen/Qwen3-8B", "l40s", 1),
    ],
)
def test_what_people_run_is_timed_by_measured_kernels(model: str, system: str, tp: int, backend: str) -> None:
    database = KernelDatabase(model, system, backend, tp)
    sizes = capture_sizes(256)
    one_s, many_s = (database.step_s(StepShape(0, 0, 0, number, 4096), sizes) for number in (1, 64))
    short_s, long_s = (database.step_s(StepShape(1, tokens), sizes) for tokens in (256, 4096))
    assert 0.001 < one_s < many_s < 0.3
    assert 2 * short_s < long_s < 2.0
    assert database.estimated_frac < 0.15


@needs_database
def test_both_attentions_of_gpt_oss_are_timed() -> None:
    database = KernelDatabase("openai/gpt-oss-120b", "h100_sxm", "vllm", 2)
    few_s, many_s = (
        database.step_s(StepShape(0, 0, 0, 64, context), capture_sizes(256)) for context in (8192, 65_536)
    )
    read_s = 64 * (65_536 - 8192) * 18 * 2 * 4 * 64 * 2 / 3.35e12  # four KV heads per GPU, at its bandwidth
    assert read_s < many_s - few_s < 2.5 * read_s


@needs_database
def test_what_a_gpu_cannot_compute_is_refused() -> None:
    with pytest.raises(SiliconError, match=r"a100_sxm.*fp8"):
        KernelDatabase("Qwen/Qwen3-32B-FP8", "a100_sxm", "vllm", 4)


@needs_database
def test_the_kernels_are_those_of_the_engine_that_is_asked_for() -> None:
    samples = silicon_samples(
        SiliconRequest("Qwen/Qwen3-8B", "h100_sxm", 1, backend="sglang"), date="2026-01-01"
    )
    assert samples.provenance.engine.startswith("sglang ")
    assert any("memory rule and scheduler are vLLM's" in note for note in samples.provenance.notes)


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
