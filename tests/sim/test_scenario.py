"""Scenario files: every key out of range is one clear line, and overrides do what they say."""

from pathlib import Path
from typing import Any

import pytest

from concur.sim.errors import ScenarioError
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.scenario.scenario import load_scenario, parse_scenario
from tests.helpers import make_scenario

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENARIOS = sorted(set(EXAMPLES.glob("*.toml")) - {EXAMPLES / "sweep.toml"})


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("workload", {"generator": "poker"}, "generator = 'poker' but must be one of react, coding"),
        ("workload", {"generator": None}, "exactly one of trace"),
        ("workload", {"trace": "t.jsonl"}, "exactly one of trace"),
        ("workload", {"num_agents": -1}, "workload.num_agents = -1"),
        ("workload", {"num_agents": 0}, "num_agents = 0"),
        ("workload", {"max_context_tokens": 1}, "workload.max_context_tokens = 1"),
        ("workload", {"max_tool_latency_s": -1.0}, "workload.max_tool_latency_s = -1.0"),
        ("workload", {"default_tool_latency_s": -1.0}, "workload.default_tool_latency_s"),
        ("workload", {"fresh_only": "perhaps"}, "workload.fresh_only = 'perhaps'"),
        ("workload", {"arrival": "burst"}, "workload.arrival"),
        ("workload", {"arrival": {"process": "poisson", "rate_per_s": 0}}, "rate_per_s = 0"),
        ("workload", {"mean_steps": 0.5}, "workload.mean_steps = 0.5"),
        ("workload", {"output_sigma": -1}, "workload.output_sigma = -1"),
        ("workload", {"colour": "red"}, "unknown key workload.colour"),
        ("engine", {"block_size": 0}, "engine.block_size = 0"),
        ("engine", {"num_gpu_blocks": 1}, "engine.num_gpu_blocks = 1"),
        ("engine", {"num_gpu_blocks": "many"}, "engine.num_gpu_blocks = 'many'"),
        ("engine", {"max_num_seqs": 0}, "engine.max_num_seqs = 0"),
        ("engine", {"max_num_batched_tokens": 0}, "engine.max_num_batched_tokens = 0"),
        ("engine", {"max_num_batched_tokens": 8}, "must be at least max_num_seqs"),
        ("engine", {"max_model_len": 1}, "engine.max_model_len = 1"),
        ("engine", {"enable_prefix_caching": 3}, "engine.enable_prefix_caching = 3"),
        ("engine", {"async_scheduling": "maybe"}, "engine.async_scheduling = 'maybe'"),
        ("engine", {"long_prefill_token_threshold": -1}, "engine.long_prefill_token_threshold = -1"),
        ("engine", {"scheduler_reserve_full_isl": "no way"}, "engine.scheduler_reserve_full_isl"),
        ("engine", {"watermark": 1.0}, "engine.watermark = 1.0"),
        ("engine", {"watermark": float("nan")}, "engine.watermark = nan"),
        ("engine", {"host_cache": {"capacity_tokens": -1}}, "engine.host_cache.capacity_tokens = -1"),
        ("engine", {"host_cache": {"bandwidth_bytes_per_s": 0}}, "bandwidth_bytes_per_s = 0"),
        ("engine", {"host_cache": {"kv_bytes_per_token": 0}}, "kv_bytes_per_token = 0"),
        ("engine", {"enable_prefix_caching": False, "host_cache": {"capacity_tokens": 9}}, "needs"),
        ("engine", {"speculative_tokens": 3}, "unknown key engine.speculative_tokens"),
        ("engine", {"speculative_config": {}}, "engine.speculative_config is not simulated"),
        ("engine", {"enable_lora": True}, "engine.enable_lora is not simulated"),
        ("engine", {"kv_transfer_config": {}}, "engine.kv_transfer_config is not simulated"),
        ("step_time", {"kind": "cubic"}, "step_time.kind = 'cubic'"),
        ("step_time", {"base_s": -1}, "step_time.base_s = -1"),
        ("step_time", {"per_prefill_token_s": float("inf")}, "step_time.per_prefill_token_s = inf"),
        ("step_time", {"per_decode_seq_s": -1}, "step_time.per_decode_seq_s"),
        ("step_time", {"per_context_token_s": -1}, "step_time.per_context_token_s"),
        ("step_time", {"per_prefill_pair_s": -1}, "step_time.per_prefill_pair_s"),
        ("step_time", {"base_s": 0, "per_prefill_token_s": 0}, "must take time"),
        ("gate", {"admit": "loudest"}, "order = 'loudest'"),
        ("gate", {"resume": "loudest"}, "order = 'loudest'"),
        ("gate", {"pause": "loudest"}, "order = 'loudest'"),
        ("gate", {"max_wait_s": 0}, "gate.max_wait_s = 0"),
        ("controller", {"kind": "magic"}, "kind = 'magic' but must be one of"),
        ("controller", {"kind": "agent_cap"}, "needs cap"),
        ("controller", {"kind": "concur", "alpha": -2}, "alpha = -2"),
        ("controller", {"interval_s": 0}, "interval_s = 0"),
        ("controller", {"wrappers": ["luck"]}, "wrapper = 'luck'"),
        ("record", {"timeline_interval_s": 0}, "record.timeline_interval_s = 0"),
        ("workload", {"parameters": 5}, "workload.parameters = 5"),
        ("workload", {"output_sigma": float("inf")}, "workload.output_sigma = inf"),
        ("workload", {"output_sigma": 1000}, "workload.output_sigma = 1000"),
        ("workload", {"mean_steps": 1e30}, "workload.mean_steps = 1e+30"),
        ("workload", {"generator": "coding", "end_at_context_tokens": 99}, "end_at_context_tokens = 99"),
        ("controller", {"parameters": 5}, "controller.parameters = 5"),
        ("controller", {"interval_s": float("inf")}, "interval_s = inf"),
        ("step_time", {"base_s": 1e308}, "step_time.base_s = 1e+308"),
        ("engine", {"host_cache": {"capacity_tokens": 3}}, "must be 0 or at least block_size = 16"),
        ("seed", -1, "seed = -1"),
        ("seed", 10**25, "must be less than or equal to 9223372036854775807"),
        (
            "workload",
            {"num_agents": 10**8},
            "num_agents = 100000000 but must be less than or equal to 1000000",
        ),
        ("workload", {"max_context_tokens": 10**25}, "must be less than or equal to 1000000000;"),
        ("engine", {"num_gpu_blocks": 10**25}, "must be less than or equal to 50000000;"),
        ("engine", {"block_size": 10**25}, "must be less than or equal to 1000000;"),
        ("engine", {"max_num_seqs": 10**25}, "must be less than or equal to 1000000;"),
        ("engine", {"max_num_batched_tokens": 10**25}, "must be less than or equal to 1000000000;"),
        ("engine", {"max_model_len": 10**25}, "must be less than or equal to 1000000000;"),
        ("engine", {"long_prefill_token_threshold": 10**25}, "must be less than or equal to 1000000000;"),
        ("engine", {"host_cache": {"capacity_tokens": 10**25}}, "must be less than or equal to 1000000000;"),
        ("engine", {"host_cache": {"bandwidth_bytes_per_s": 1e30}}, "must be less than or equal to"),
        ("engine", {"host_cache": {"kv_bytes_per_token": 10**25}}, "must be less than or equal to"),
        ("tenant", {"prompt_tokens": 10**25}, "must be less than or equal to 1000000000;"),
        ("compare", {"seeds": [10**25]}, "must be less than or equal to 9223372036854775807"),
        (
            "workload",
            {
                "generator": None,
                "num_agents": 0,
                "parts": [{"generator": "react", "num_agents": 600_000}] * 2,
            },
            "the [[workload.parts]] have 1200000 agents in all but may have at most 1000000",
        ),
        ("seed", "x", "seed = 'x'"),
        ("weather", {"wind": 3}, "unknown key weather"),
    ],
)
def test_a_key_out_of_range_is_one_line_with_the_value(section: str, change: Any, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        make_scenario(**{section: change})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_names_the_remedy() -> None:
    with pytest.raises(ScenarioError, match=r"--set engine\.num_gpu_blocks=VALUE"):
        parse_scenario({"workload": {"generator": "react", "num_agents": 1}, "engine": {}})


def test_a_scenario_from_its_own_record_is_the_same_scenario() -> None:
    scenario = make_scenario(
        controller={"kind": "concur", "alpha": 3, "wrappers": ["app_limited"]}, workload={"mean_steps": 4}
    )
    assert parse_scenario(scenario.model_dump(mode="json")) == scenario


def test_defaults_of_the_law_are_written_out() -> None:
    parameters = make_scenario(controller={"kind": "concur"}).controller.parameters
    assert {"alpha", "beta", "initial_window", "rounding", "usage_counts", "interval_s"} <= set(parameters)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_examples_load(path: Path) -> None:
    assert load_scenario(path).compare.controllers


def test_overrides_take_toml_values_and_bare_text() -> None:
    scenario = load_scenario(
        EXAMPLES / "react.toml",
        ["engine.num_gpu_blocks=99", "controller.kind=agent_cap", "controller.cap=3", "seed=5"],
    )
    assert (scenario.vllm.num_gpu_blocks, scenario.controller.label, scenario.seed) == (
        99,
        "agent_cap=3",
        5,
    )


def test_a_trace_in_the_file_is_relative_to_the_file_and_in_an_override_to_the_working_folder() -> None:
    path = EXAMPLES / "claude_code.toml"
    assert load_scenario(path).workload.trace == str(EXAMPLES / "traces" / "weka.jsonl.gz")
    assert load_scenario(path, ["workload.trace=x.jsonl"]).workload.trace == "x.jsonl"


@pytest.mark.parametrize("override", ["engine.num_gpu_blocks", "=3", "seed.deep=3"])
def test_overrides_that_are_none(override: str) -> None:
    with pytest.raises(ScenarioError, match="--set"):
        load_scenario(EXAMPLES / "react.toml", [override])


def test_files_that_are_no_scenarios(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such scenario"):
        load_scenario(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("seed = ")
    with pytest.raises(ScenarioError, match="not readable as TOML"):
        load_scenario(tmp_path / "broken.toml")


def test_policies_on_the_command_line() -> None:
    base = make_scenario(controller={"kind": "concur", "alpha": 4, "interval_s": 2.0}).controller
    labels = [config.label for config in parse_controllers("agent_cap=8,16", base)]
    assert labels == ["agent_cap=8", "agent_cap=16"]
    sweep = [config.parameters["cap"] for config in parse_controllers("agent_cap=2..4,10..21..5", base)]
    assert sweep == [2, 3, 4, 10, 15, 20]
    (adaptive,) = parse_controllers("concur+app_limited", base)
    assert adaptive.label == "concur+app_limited"
    assert adaptive.parameters["alpha"] == 4
    intervals_s = [parse_controllers(text, base)[0].interval_s for text in ("concur", "none", "hybrid")]
    assert intervals_s == [2.0, 5.0, 1.0], "what [controller] says is of its own kind"
    (hybrid,) = parse_controllers("hybrid", base, interval_s=3.0)
    assert hybrid.interval_s == 3.0, "what [compare] says is of all"
    for bad in (
        "magic",
        "agent_cap",
        "agent_cap=0",
        "agent_cap=a",
        "agent_cap=4..2",
        "agent_cap=1..a",
        "agent_cap=0..3",
        "agent_cap=1..1000000000000000000000000",
        "none=3",
        "concur+luck",
    ):
        with pytest.raises(ScenarioError, match="--controllers"):
            parse_controllers(bad, base)
