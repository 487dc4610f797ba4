"""The KV cache groups that vLLM makes of a model's layers, from its config."""

import copy
from typing import Any

import pytest

from concur.calib.silicon.cache_groups import kv_cache_groups
from concur.sim.errors import ScenarioError
from concur.sim.scenario.scenario import parse_scenario

GEMMA_3_27B = {"num_hidden_layers": 62, "sliding_window": 1024, "sliding_window_pattern": 6}
MODELS: dict[str, tuple[dict[str, Any], list[tuple[str, int, int]]]] = {
    "gpt-oss-120b": (
        {"layer_types": ["sliding_attention", "full_attention"] * 18, "sliding_window": 128},
        [("sliding_window", 128, 1), ("full", 0, 1)],
    ),
    "Gemma-3-27B": ({"text_config": GEMMA_3_27B}, [("sliding_window", 1024, 6), ("full", 0, 1)]),
    "almost as many": (
        {"layer_types": ["full_attention"] * 13 + ["sliding_attention"] * 12, "sliding_window": 128},
        [("full", 0, 1), ("sliding_window", 128, 1)],
    ),
    "windows alone": (
        {"layer_types": ["sliding_attention"] * 4, "sliding_window": 4096},
        [("sliding_window", 4096, 1)],
    ),
    "Qwen3-32B": ({"num_hidden_layers": 64}, []),
    "all full": ({"layer_types": ["full_attention"] * 4, "sliding_window": 128}, []),
    "linear": ({"layer_types": ["linear_attention", "full_attention"]}, []),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_split_into_groups_of_equal_size(name: str) -> None:
    config, expected = MODELS[name]
    found = [
        (group["kind"], group.get("sliding_window", 0), group.get("num_groups", 1))
        for group in kv_cache_groups(config)
    ]
    assert found == expected


@pytest.mark.vllm
@pytest.mark.parametrize("name", ["gpt-oss-120b", "Gemma-3-27B", "almost as many"])
def test_vllm_makes_the_same_groups(name: str) -> None:
    import torch
    from vllm.v1.core.kv_cache_utils import get_kv_cache_groups
    from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec

    from concur.calib.silicon.cache_groups import _layer_types
    from concur.validate.parity.vllm_scheduler import _base_config

    vllm_config = copy.copy(_base_config())
    vllm_config.cache_config = copy.copy(vllm_config.cache_config)
    vllm_config.cache_config.kv_cache_layout = "LBNHC"  # any will do; an engine core resolves it
    config = MODELS[name][0]
    config = config.get("text_config", config)
    shape: dict[str, Any] = {"block_size": 16, "num_kv_heads": 8, "head_size": 64, "dtype": torch.bfloat16}
    layers = {
        f"layer {number}": FullAttentionSpec(**shape)
        if kind == "full_attention"
        else SlidingWindowSpec(**shape, sliding_window=config["sliding_window"])
        for number, kind in enumerate(_layer_types(config))
    }
    specs = [group.kv_cache_spec for group in get_kv_cache_groups(vllm_config, layers)]
    windows = [getattr(spec, "sliding_window", None) or 0 for spec in specs]
    ours = [
        group.get("sliding_window", 0)
        for group in kv_cache_groups(config)
        for _ in range(int(group.get("num_groups", 1)))
    ]
    assert windows == ours


def test_a_profile_brings_the_groups_of_its_model() -> None:
    raw: dict[str, Any] = {
        "workload": {"generator": "react", "num_agents": 4},
        "step_time": {"profile": "h100-sxm_gpt-oss-120b_tp2"},
    }
    engine = parse_scenario(raw).vllm
    assert [group.kind for group in engine.kv_cache_groups] == ["sliding_window", "full"]
    assert engine.num_gpu_blocks == 147_593
    assert parse_scenario(raw | {"engine": {"kv_cache_groups": []}}).vllm.kv_cache_groups == ()
    with pytest.raises(ScenarioError, match=r"or kv_cache_groups = \[\]"):
        parse_scenario(raw | {"engine": {"host_cache": {"capacity_tokens": 10_000}}})
