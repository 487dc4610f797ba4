"""Samples without a GPU. What needs the database of measured kernels is skipped where it is not installed."""

import builtins
from importlib.util import find_spec
from typing import Any

import pytest

from calib.errors import SiliconError
from calib.hf_model import model_memory
from calib.kernels import KernelDatabase
from calib.silicon import SiliconRequest, num_blocks_that_fit, silicon_samples
from calib.silicon_grid import capture_sizes, step_shapes
from tests.calib.helpers import DENSE

needs_database = pytest.mark.skipif(
    find_spec("aiconfigurator_core") is None, reason="needs the extra `silicon`"
)


def test_bytes_of_a_small_model_counted_by_hand() -> None:
    memory = model_memory(DENSE, 1)
    attention = 64 * 64 * 2 + 64 * 32 * 2  # q and o; k and v
    params = 2 * 1000 * 64 + 2 * (attention + 3 * 64 * 256) + 5 * 64
    assert memory.weights_bytes == 2 * params
    assert memory.kv_bytes_per_token == 2 * (2 * 2 * 16) * 2  # layers, K and V of two heads of 16, bf16
    assert model_memory(DENSE, 4).kv_bytes_per_token_per_gpu == 2 * (2 * 1 * 16) * 2  # heads are replicated


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
