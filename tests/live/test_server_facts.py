"""What is learnt of a server that runs already, in its development mode and outside it."""

from pathlib import Path
from typing import Any

import pytest

from concur.validate.confront import same_engine
from concur.validate.confront.same_engine import check_server, differences
from concur.validate.errors import EngineDiffersError, ServerError
from concur.validate.live.fake_server import FakeEngine, FakeServer
from concur.validate.live.server import FLAGS, Server, ServerOptions, attach, server_flags
from concur.validate.live.server_facts import card_facts, published_facts, resolved_facts
from tests.helpers import make_agent, make_scenario, make_workload

AGENTS = make_workload(make_agent(0, [(400, 20)] * 3))
SCENARIO = make_scenario(engine={"num_gpu_blocks": 101, "max_num_seqs": 32, "max_model_len": 4096})
SAME: dict[str, Any] = {
    "cache_config": {"block_size": 16, "num_gpu_blocks": 101, "enable_prefix_caching": True},
    "scheduler_config": {
        "max_num_seqs": 32,
        "max_num_batched_tokens": 8192,
        "long_prefill_token_threshold": 0,
        "scheduler_reserve_full_isl": True,
        "watermark": 0.0,
        "async_scheduling": False,
        "policy": "fcfs",
        "enable_chunked_prefill": True,
    },
    "model_config": {"max_model_len": 4096, "dtype": "torch.bfloat16", "enforce_eager": True},
    "parallel_config": {"tensor_parallel_size": 1, "data_parallel_size": 1},
    "device_config": {"device": "cpu"},
    "speculative_config": None,
    "kv_transfer_config": None,
}


def resolved(section: str, **changes: Any) -> dict[str, Any]:
    return SAME | {section: (SAME[section] or {}) | changes}


def of_config(config: dict[str, Any]) -> dict[str, Any]:
    return resolved_facts({"vllm_config": config})


def facts_of(engine: FakeEngine) -> dict[str, Any]:
    with FakeServer(engine).in_thread() as server:
        return attach(server.url).facts


def test_in_development_mode_everything_is_known() -> None:
    facts = facts_of(FakeEngine(resolved=SAME, max_model_len=4096))
    assert set(FLAGS) <= set(facts)
    assert facts["vllm"] == "0.32.0"
    assert (facts["dtype"], facts["device"], facts["num_engines"]) == ("bfloat16", "cpu", 1)
    assert differences(SCENARIO.engine.model_dump(), facts) == []


def test_outside_it_the_metrics_page_and_the_model_card_still_tell_the_pool() -> None:
    facts = facts_of(FakeEngine(block_size=8, num_gpu_blocks=540, is_dev=False, max_model_len=2048))
    assert (facts["block_size"], facts["num_gpu_blocks"], facts["max_model_len"]) == (8, 540, 2048)
    assert "max_num_seqs" not in facts, "unknown is not a value"
    (note,) = same_engine.notes(SCENARIO.model_dump(), facts)
    assert "not checked, because the server does not say: max_num_seqs" in note
    assert "VLLM_SERVER_DEV_MODE=1" in note


def test_what_metrics_publish_stands_over_what_the_front_end_resolved() -> None:
    stale = resolved("cache_config", num_gpu_blocks=None)
    assert facts_of(FakeEngine(num_gpu_blocks=101, resolved=stale))["num_gpu_blocks"] == 101


def test_a_configuration_in_another_form_is_no_configuration() -> None:
    config: object
    for config in ("VllmConfig(model='x')", {}, [], {"cache_config": 3}):
        assert resolved_facts({"vllm_config": config}) == {}
    assert resolved_facts("text") == {}
    assert of_config({"cache_config": {"block_size": 32}}) == {"block_size": 32}


def test_a_metrics_page_tells_words_and_engines() -> None:
    labels = 'block_size="16",num_gpu_blocks="2,000",enable_prefix_caching="False",cache_dtype="fp8"'
    page = "".join(f'vllm:cache_config_info{{engine="{n}",{labels}}} 1.0\n' for n in range(2))
    facts = published_facts(page.replace("2,000", "2000"))
    assert facts == {
        "block_size": 16,
        "num_gpu_blocks": 2000,
        "enable_prefix_caching": False,
        "cache_dtype": "fp8",
        "num_engines": 2,
    }
    assert published_facts('vllm:cache_config_info{num_gpu_blocks="None"} 1.0\n') == {"num_engines": 1}
    assert published_facts("") == {}


def test_a_model_is_named_without_the_folders_of_its_machine() -> None:
    assert card_facts({"id": "m", "root": "/data/models/qwen3-8b/"}) == {"model": "qwen3-8b"}
    assert card_facts({"id": "Qwen/Qwen3-8B", "root": None}) == {"model": "Qwen/Qwen3-8B"}


@pytest.mark.parametrize(
    ("section", "changes", "told", "remedy"),
    [
        ("scheduler_config", {"max_num_seqs": 8}, "max_num_seqs is 8", "--set engine.max_num_seqs=8"),
        (
            "scheduler_config",
            {"async_scheduling": True},
            "async_scheduling is True",
            "--set engine.async_scheduling=true, or start it with --no-async-scheduling",
        ),
        (
            "scheduler_config",
            {"policy": "priority"},
            "scheduling_policy is priority, the scenario's fcfs",
            "--set engine.scheduling_policy=priority, or start it with --scheduling-policy fcfs",
        ),
        ("scheduler_config", {"watermark": 0.02}, "watermark is 0.02", "--watermark 0.0"),
        ("parallel_config", {"data_parallel_size": 4}, "num_engines is 4", "--data-parallel-size 1"),
        ("speculative_config", {"method": "ngram"}, "speculative_method is ngram", "--speculative-config"),
        (
            "kv_transfer_config",
            {"kv_connector": "LMCache"},
            "kv_connector is LMCache",
            "--kv-transfer-config",
        ),
        ("cache_config", {"kv_offloading_size": 4.0}, "kv_connector is offloading", "--kv-offloading-size"),
    ],
)
def test_what_decides_a_run_and_differs_is_refused_with_both_remedies(
    section: str, changes: dict[str, Any], told: str, remedy: str
) -> None:
    facts = of_config(resolved(section, **changes))
    with pytest.raises(EngineDiffersError) as refused:
        check_server(SCENARIO, AGENTS, Server("http://there", "m", facts))
    assert told in str(refused.value)
    assert remedy in str(refused.value)


def test_the_issues_server_is_refused_by_both_its_sizes() -> None:
    server = Server("http://there", "m", {"block_size": 8, "num_gpu_blocks": 270})
    with pytest.raises(EngineDiffersError) as refused:
        check_server(SCENARIO, AGENTS, server)
    for part in (
        "block_size is 8, the scenario's 16; num_gpu_blocks is 270, the scenario's 101",
        "--set engine.block_size=8 --set engine.num_gpu_blocks=270",
        "--block-size 16 --num-gpu-blocks-override 101",
    ):
        assert part in str(refused.value)


def test_a_model_that_is_too_short_is_refused_and_one_that_is_longer_is_not() -> None:
    check_server(SCENARIO, AGENTS, Server("http://there", "m", {"max_model_len": 1_000_000}))
    with pytest.raises(EngineDiffersError, match=r"max_model_len is 500 .*workload\.max_context_tokens=500"):
        check_server(SCENARIO, AGENTS, Server("http://there", "m", {"max_model_len": 500}))


def test_a_host_cache_that_the_server_has_not_is_refused() -> None:
    scenario = make_scenario(engine={"num_gpu_blocks": 101, "host_cache": {"capacity_tokens": 10_000}})
    facts = of_config(SAME) | {"max_num_seqs": 256}
    with pytest.raises(EngineDiffersError, match="it has no host cache"):
        check_server(scenario, AGENTS, Server("http://there", "m", facts))


def test_a_profile_of_another_engine_is_noted() -> None:
    scenario = make_scenario(step_time={"profile": "cpu_tiny"}).model_dump()
    alike = of_config(SAME) | {"model": "tiny", "vllm": "0.32.0"}
    assert list(same_engine.notes(scenario, alike)) == []
    other = alike | {"model": "Qwen/Qwen3-8B", "vllm": "0.31.0", "tensor_parallel_size": 2}
    notes = list(same_engine.notes(scenario, other | {"device": "cuda"}))
    assert [note.split(",")[0].removeprefix("the step-time profile is of ") for note in notes] == [
        "model tiny",
        "vLLM 0.32.0",
        "device cpu",
        "tensor_parallel_size 1",
    ]
    gone = scenario | {"step_time": {"kind": "profile", "profile": "gone.json"}}
    assert list(same_engine.notes(gone, alike)) == []


def test_every_deciding_key_has_its_flag_on_a_server_that_is_started() -> None:
    flags = server_flags(ServerOptions(model="tiny", engine=SCENARIO.vllm))
    for name, flag in FLAGS.items():
        value = getattr(SCENARIO.engine, name)
        if isinstance(value, bool):
            assert f"--{'' if value else 'no-'}{flag}" in flags
        else:
            assert flags[flags.index(f"--{flag}") + 1] == str(value)


def test_a_server_without_its_development_mode_is_one_clear_line() -> None:
    with FakeServer(FakeEngine(is_dev=False)).in_thread() as fake, pytest.raises(ServerError) as refused:
        attach(fake.url).reset_prefix_cache()
    assert "has no /reset_prefix_cache; start it with VLLM_SERVER_DEV_MODE=1" in str(refused.value)


def test_the_first_words_of_a_slow_start_are_heard(tmp_path: Path) -> None:
    from concur.validate.live.server import started

    script = tmp_path / "python"
    line = "(APIServer pid=12) INFO 11-26 03:47:53 [x.py:3] loading weights"
    script.write_text(f"#!/bin/sh\necho '{line}'\nexec sleep 600\n")
    script.chmod(0o755)
    heard: list[tuple[float, str]] = []
    options = ServerOptions(model="tiny", engine=SCENARIO.vllm, python=str(script), start_s=3.0)
    with (
        pytest.raises(ServerError, match="not ready"),
        started(options, tmp_path, on_wait=lambda waited_s, line: heard.append((waited_s, line))),
    ):
        pass
    waits = [waited_s for waited_s, _ in heard]
    assert waits == sorted(waits)
    assert "[x.py:3] loading weights" in {line for _, line in heard}
