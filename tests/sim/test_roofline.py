"""The calibrated step time: exact where leaps need it, and loud where a profile does not reach."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concur.sim.errors import ProfileError, ScenarioError
from concur.sim.scenario.scenario import load_scenario, parse_scenario
from concur.sim.step_time.make import make_step_time
from concur.sim.step_time.profile import StepTimeProfile, load_profile, shipped_profiles
from concur.sim.step_time.roofline import RooflineStepTime
from concur.sim.step_time.step_time import StepBatch, step_cost
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario

NAME = "h100-sxm_qwen3-32b_tp2"
chunks = st.tuples(st.integers(1, 4000), st.integers(0, 100_000), st.floats(0, 1))


def narrow(profile: StepTimeProfile, **limits: tuple[int, int]) -> StepTimeProfile:
    return profile.model_copy(update={"domain": profile.domain.model_copy(update=limits)})


@pytest.mark.parametrize("name", shipped_profiles())
@settings(max_examples=60)
@given(decodes=st.integers(1, 1100), context=st.integers(0, 10**8))
def test_the_duration_of_decodes_alone_is_the_same_to_the_bit(name: str, decodes: int, context: int) -> None:
    step_time = RooflineStepTime(load_profile(name))
    batch = StepBatch(decode_seqs=decodes, context_tokens=context)
    assert step_time.of_decodes(decodes)(context) == step_time(batch)
    assert RooflineStepTime(load_profile(name))(batch) == step_time(batch)


@settings(max_examples=60)
@given(st.lists(chunks, max_size=5), st.lists(st.integers(0, 90_000), max_size=40))
def test_the_split_adds_up_and_no_part_is_negative(
    prefills: list[tuple[int, int, float]], decodes: list[int]
) -> None:
    batch = StepBatch()
    for num_tokens, context, share in prefills:
        batch.add_prefill(num_tokens, context, int(share * num_tokens))
    for context in decodes:
        batch.add_decode(context)
    if batch.is_empty:
        return
    step_time = RooflineStepTime(load_profile(NAME))
    cost = step_cost(step_time, batch)
    assert cost.prefill_s + cost.recompute_s + cost.decode_s == pytest.approx(cost.total_s, abs=1e-12)
    assert min(cost.prefill_s, cost.recompute_s, cost.decode_s) >= -1e-12
    assert sum(step_time.parts_s(batch).values()) == pytest.approx(cost.total_s, rel=1e-12)


def test_prefills_that_are_all_recompute_are_counted_out() -> None:
    batch = StepBatch()
    batch.add_prefill(100, 50, 100)
    batch.add_prefill(100, 50, 30)
    batch.add_prefill(100, 50, 0)
    assert batch.prefill_seqs == 3
    assert batch.without_recompute().prefill_seqs == 2


def test_a_batch_is_padded_to_the_next_capture_size() -> None:
    step_time = RooflineStepTime(load_profile(NAME))
    per_token = [step_time.parts_s(StepBatch(decode_seqs=number))["per_token"] for number in (17, 24, 25, 32)]
    assert per_token[0] == per_token[1] < per_token[2] == per_token[3]


def test_steps_beyond_the_domain_are_counted_and_named() -> None:
    step_time = RooflineStepTime(narrow(load_profile(NAME), decode_seqs=(0, 10), context_tokens=(0, 1000)))
    step_cost(step_time, StepBatch(decode_seqs=10, context_tokens=1000))
    assert step_time.warnings() == []
    step_cost(step_time, StepBatch(decode_seqs=11, context_tokens=10))
    leap = step_time.of_decodes(2)
    for context in (999, 1000, 1001, 1002):
        leap(context)
    assert step_time.warnings() == [
        "about 3 steps were beyond the step-time profile's domain: decode_seqs 11 (fitted up to 10), "
        "context_tokens 1002 (fitted up to 1000)"
    ]


def scenario_of(**step_time: Any) -> dict[str, Any]:
    return {
        "workload": {"generator": "react", "num_agents": 3},
        "engine": {},
        "step_time": step_time,
    }


def test_the_pool_is_the_profiles_unless_the_scenario_says_otherwise() -> None:
    profile = load_profile(NAME)
    raw = scenario_of(profile=NAME)
    assert parse_scenario(raw).engine.num_gpu_blocks == profile.num_gpu_blocks
    half = parse_scenario(raw | {"engine": {"block_size": 32}}).engine
    assert half.num_gpu_blocks == profile.num_gpu_blocks // 2
    assert parse_scenario(raw | {"engine": {"num_gpu_blocks": 777}}).engine.num_gpu_blocks == 777
    host = parse_scenario(raw | {"engine": {"host_cache": {"capacity_tokens": 1600}}}).engine.host_cache
    assert host.kv_bytes_per_token == profile.kv_bytes_per_token
    with pytest.raises(ScenarioError, match=r"engine\.num_gpu_blocks is missing"):
        parse_scenario(scenario_of(kind="linear"))


def test_a_scenario_with_a_profile_parses_from_its_own_record() -> None:
    scenario = parse_scenario(scenario_of(profile=NAME))
    assert parse_scenario(scenario.model_dump(mode="json")) == scenario


@pytest.mark.parametrize(
    ("step_time", "message"),
    [
        ({"profile": "nope"}, f"no shipped profile is called 'nope'; there are .*{NAME}"),
        ({"profile": "nope.json"}, r"nope\.json: not readable"),
        ({"profile": NAME, "base_s": 1.0}, r"unknown key step_time\.base_s"),
        ({"base": 1.0}, r"unknown key step_time\.base"),
    ],
)
def test_a_wrong_step_time_is_one_clear_line(step_time: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse_scenario(scenario_of(**step_time) | {"engine": {"num_gpu_blocks": 900}})


def test_a_profile_beside_the_scenario_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(load_profile(NAME).to_json())
    toml = '[workload]\ngenerator = "react"\nnum_agents = 3\n[engine]\n[step_time]\nprofile = "mine.json"\n'
    (tmp_path / "s.toml").write_text(toml)
    scenario = load_scenario(tmp_path / "s.toml")
    assert scenario.engine.num_gpu_blocks == load_profile(NAME).num_gpu_blocks
    step_time = make_step_time(scenario.step_time)
    batch = StepBatch(decode_seqs=4, context_tokens=400)
    assert step_time(batch) == RooflineStepTime(load_profile(NAME))(batch)


def test_the_record_names_the_profile_by_its_hash() -> None:
    calibrated = simulate(make_scenario(step_time={"profile": NAME}))
    assert calibrated.run["profile_hash"] == load_profile(NAME).sha256
    assert not any("not calibrated" in warning for warning in calibrated.run["warnings"])
    assert simulate(make_scenario()).run["profile_hash"] is None


def test_another_content_is_another_hash() -> None:
    profile = load_profile(NAME)
    assert profile.sha256 != profile.model_copy(update={"num_gpu_blocks": 9}).sha256


def test_a_broken_profile_names_file_value_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(load_profile(NAME).to_json().replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(ProfileError, match=r"p\.json: schema_version = 7 .* reads up to 1; update concur"):
        load_profile(str(path))
    path.write_text("[]")
    with pytest.raises(ProfileError, match=r"p\.json: not a JSON object"):
        load_profile(str(path))
