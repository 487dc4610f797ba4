"""The calibrated step time: exact where leaps need it, and loud where a profile does not reach."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concur.sim.errors import ProfileError, ScenarioError
from concur.sim.scenario.scenario import load_scenario, parse_scenario
from concur.sim.step_time.corrections import Corrections, SizeFactors, TokenFactors
from concur.sim.step_time.make import make_step_time
from concur.sim.step_time.profile import HostWork, StepTimeProfile, load_profile, shipped_profiles
from concur.sim.step_time.roofline import RooflineStepTime
from concur.sim.step_time.step_time import StepBatch, step_cost
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario

NAME = "h100-sxm_qwen3-32b_tp2"
CORRECTED = "h200-sxm_qwen3-32b_tp1"
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


@pytest.mark.parametrize("name", [NAME, CORRECTED])
@settings(max_examples=60)
@given(st.lists(chunks, max_size=5), st.lists(st.integers(0, 90_000), max_size=40))
def test_the_split_adds_up_and_no_part_is_negative(
    name: str, prefills: list[tuple[int, int, float]], decodes: list[int]
) -> None:
    batch = StepBatch()
    for num_tokens, context, share in prefills:
        batch.add_prefill(num_tokens, context, int(share * num_tokens))
    for context in decodes:
        batch.add_decode(context)
    if batch.is_empty:
        return
    step_time = RooflineStepTime(load_profile(name))
    cost = step_cost(step_time, batch)
    assert cost.prefill_s + cost.recompute_s + cost.decode_s == pytest.approx(cost.total_s, abs=1e-12)
    assert min(cost.prefill_s, cost.recompute_s, cost.decode_s) >= -1e-12
    assert sum(step_time.parts_s(batch).values()) == pytest.approx(cost.total_s, rel=1e-12)


FLAT = SizeFactors(first=(1, 2), second=(1, 2), factors=((1.0, 1.0), (1.0, 1.0)))
ONES = Corrections(
    tokens=TokenFactors(num_tokens=(1, 2), factors=(1.0, 1.0)), launch=FLAT, pairs=FLAT, decode=FLAT
)


def corrected(**changes: Any) -> RooflineStepTime:
    corrections = ONES.model_copy(update=changes)
    bare = load_profile(NAME).model_copy(update={"cudagraph_capture_sizes": ()})
    return RooflineStepTime(bare.model_copy(update={"corrections": corrections}))


def test_a_corrections_factor_lies_on_the_line_between_its_knots_and_stays_beyond_them() -> None:
    step = corrected(tokens=TokenFactors(num_tokens=(100, 200), factors=(1.0, 3.0)))
    plain = corrected()
    for decodes, factor in ((50, 1.0), (100, 1.0), (125, 1.5), (200, 3.0), (900, 3.0)):
        parts, bare = (s.parts_s(StepBatch(decode_seqs=decodes, context_tokens=10)) for s in (step, plain))
        assert parts["gemm"] == pytest.approx(factor * bare["gemm"], rel=1e-12)
        assert parts["decode_attention"] == bare["decode_attention"]


def test_each_correction_acts_on_its_own_part_by_its_own_sizes() -> None:
    batch = StepBatch(decode_seqs=7, context_tokens=7 * 511)
    batch.add_prefill(31, 224, 0)  # 255 tokens at its end: half way, in octaves, from 15 to 4,095
    batch.add_prefill(31, 224, 0)
    plain = corrected().parts_s(batch)
    halves = ((1.0, 1.0), (1.0, 5.0))
    decode = SizeFactors(first=(1, 31), second=(127, 2047), factors=halves)  # each half way: a quarter of 4
    assert corrected(decode=decode).parts_s(batch)["decode_attention"] == pytest.approx(
        2.0 * plain["decode_attention"], rel=1e-12
    )
    pairs = SizeFactors(first=(1, 2), second=(15, 4095), factors=halves)
    launch = SizeFactors(first=(1, 62), second=(15, 4095), factors=halves)
    pairs_s, launch_s = (
        corrected(**{name: factors}).parts_s(batch)["prefill_attention"] - plain["prefill_attention"]
        for name, factors in (("pairs", pairs), ("launch", launch))
    )
    assert pairs_s == pytest.approx(
        2.0 * load_profile(NAME).coefficients.per_prefill_pair_s * batch.prefill_pairs, rel=1e-9
    )
    assert pairs_s + launch_s == pytest.approx(2.0 * plain["prefill_attention"], rel=1e-9)


def test_where_less_takes_longer_the_more_pays_nothing() -> None:
    step_time = corrected(tokens=TokenFactors(num_tokens=(30, 31), factors=(3.0, 0.1)))
    batch = StepBatch(decode_seqs=30, context_tokens=300)
    batch.add_prefill(5, 0, 3)
    cost = step_cost(step_time, batch)
    assert step_time(batch.decodes_only()) > cost.total_s == step_time(batch)
    assert (cost.prefill_s, cost.recompute_s, cost.decode_s) == (0.0, 0.0, cost.total_s)
    only = StepBatch()
    only.add_prefill(31, 0, 1)
    cost = step_cost(step_time, only)
    assert step_time(only.without_recompute()) > cost.total_s
    assert (cost.prefill_s, cost.recompute_s) == (cost.total_s, 0.0)


def test_host_work_is_a_part_of_every_step_and_its_absence_leaves_the_hash() -> None:
    bare = load_profile(NAME).model_copy(update={"host": None, "corrections": None})
    host = HostWork(per_step_s=0.0015, source="measured on a bench")
    slower = bare.model_copy(update={"host": host})
    for batch in (StepBatch(decode_seqs=5, context_tokens=100), StepBatch(3, 0, 0, 6, prefill_seqs=1)):
        extra_s = RooflineStepTime(slower)(batch) - RooflineStepTime(bare)(batch)
        assert extra_s == pytest.approx(0.0015, rel=1e-9)
        assert RooflineStepTime(slower).parts_s(batch)["host"] == 0.0015
    assert slower.sha256 != bare.sha256
    assert '"host"' not in bare.to_json()
    assert '"corrections"' not in bare.to_json()
    assert StepTimeProfile.model_validate_json(slower.to_json()) == slower


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": (2, 1)}, "first must be two or more numbers that rise strictly"),
        ({"second": (1,)}, "second must be two or more numbers"),
        ({"factors": ((1.0, 1.0),)}, "factors must be 2 rows of 2"),
        ({"factors": ((1.0, 1.0), (-1.0, 1.0))}, "greater than or equal to 0"),
    ],
)
def test_an_impossible_table_of_corrections_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SizeFactors(**({"first": (1, 2), "second": (1, 2), "factors": ((1.0, 1.0), (1.0, 1.0))} | changes))


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
    assert parse_scenario(raw).vllm.num_gpu_blocks == profile.num_gpu_blocks
    half = parse_scenario(raw | {"engine": {"block_size": 32}}).vllm
    assert half.num_gpu_blocks == profile.num_gpu_blocks // 2
    assert parse_scenario(raw | {"engine": {"num_gpu_blocks": 777}}).vllm.num_gpu_blocks == 777
    host = parse_scenario(raw | {"engine": {"host_cache": {"capacity_tokens": 1600}}}).vllm.host_cache
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
    assert scenario.vllm.num_gpu_blocks == load_profile(NAME).num_gpu_blocks
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
