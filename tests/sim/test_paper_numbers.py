"""The printed numbers, the rule of the verdicts, and the settings: arithmetic only, no batch is run."""

import math
from dataclasses import replace

import pytest

from concur.sim.paper import settings
from concur.sim.paper.numbers import NUMBERS, PAPER_KV_BYTES_PER_TOKEN, Kind, Printed, printed
from concur.sim.paper.settings import READINGS, deepseek, qwen, with_hicache, without_cache
from concur.sim.paper.verdict import INPUT, NOT_REPRODUCED, REPRODUCED, RIGHT_TREND, judge
from concur.sim.runs.intervals import Interval
from concur.sim.step_time.profile import load_profile


def number(value: float, kind: Kind) -> Printed:
    return Printed(key="x", where="Table 0", value=value, kind=kind, grade="A")


@pytest.mark.parametrize(
    ("quotient", "of", "over", "digits"),
    [
        ("table1.qwen_tp8.concur", "table1.qwen_tp8.none_s", "table1.qwen_tp8.concur_s", 2),
        (
            "table1.deepseek_tp16_40.concur",
            "table1.deepseek_tp16_40.none_s",
            "table1.deepseek_tp16_40.concur_s",
            2,
        ),
        ("fig6.agent_cap_64", "fig6.none_s", "fig6.agent_cap_64_s", 2),
        ("fig6.concur", "fig6.none_s", "fig6.concur_s", 2),
    ],
)
def test_a_printed_ratio_is_the_quotient_of_the_printed_seconds(
    quotient: str, of: str, over: str, digits: int
) -> None:
    assert printed(quotient).value == pytest.approx(
        printed(of).value / printed(over).value, abs=0.6 * 10**-digits
    )


def test_every_key_is_named_once_and_every_rate_is_one() -> None:
    assert len({known.key for known in NUMBERS}) == len(NUMBERS) > 20
    assert all(0 < known.value <= 1 for known in NUMBERS if known.kind == "rate")


def test_the_papers_bytes_per_token_give_its_6_67_gb_in_gib() -> None:
    assert round(4096 * PAPER_KV_BYTES_PER_TOKEN / 2**30, 2) == 6.67
    mla = load_profile("h100-sxm_deepseek-v3_tp16").kv_bytes_per_token
    assert mla is not None
    assert 24 < PAPER_KV_BYTES_PER_TOKEN / mla < 26


@pytest.mark.parametrize(
    ("value", "kind", "ours", "half_width", "verdict"),
    [
        (2.0, "speed_up", 2.29, None, REPRODUCED),
        (2.0, "speed_up", 2.31, None, RIGHT_TREND),
        (2.0, "speed_up", 1.2, 0.1, RIGHT_TREND),
        (2.0, "speed_up", 1.2, 0.3, NOT_REPRODUCED),  # its interval reaches below 1
        (2.0, "speed_up", 0.9, None, NOT_REPRODUCED),
        (0.34, "speed_up", 0.8, 0.1, RIGHT_TREND),
        (4.0, "speed_up", 1.2, None, NOT_REPRODUCED),  # less than a third
        (0.8, "rate", 0.6, 0.05, RIGHT_TREND),
        (0.8, "rate", 0.6, 0.15, NOT_REPRODUCED),
        (0.49, "rate", 0.001, None, NOT_REPRODUCED),
        (100.0, "amount", 115.0, 90.0, REPRODUCED),
        (100.0, "amount", 310.0, None, RIGHT_TREND),
        (100.0, "amount", 32.0, None, RIGHT_TREND),
        (100.0, "amount", 320.0, None, NOT_REPRODUCED),
    ],
)
def test_the_verdict_follows_the_stated_rule(
    value: float, kind: Kind, ours: float, half_width: float | None, verdict: str
) -> None:
    assert judge(number(value, kind), Interval(ours, half_width)) == verdict


def test_agreement_with_a_number_that_ours_was_set_from_is_no_reproduction() -> None:
    assert judge(replace(number(1.0, "amount"), is_input=True), Interval(1.0, None)) == INPUT


def test_pools_are_as_stated() -> None:
    assert qwen(8, "as printed").pool_tokens == pytest.approx(2.06e6, rel=0.005)
    assert qwen(2, "as printed").pool_tokens == pytest.approx(0.33e6, rel=0.02)
    assert deepseek(16, 40, "as printed").pool_tokens == pytest.approx(453e3, rel=0.005)
    assert deepseek(16, 40, "lengthened").pool_tokens == pytest.approx(291e3, rel=0.005)
    assert deepseek(8, 40, "as printed").pool_tokens == pytest.approx(713e3, rel=0.005)
    assert deepseek(8, 40, "lengthened").pool_tokens == pytest.approx(229e3, rel=0.005)


def test_a_pool_in_the_papers_bytes_is_the_memory_that_the_engine_leaves_free() -> None:
    profile = load_profile("h100-sxm_deepseek-v3_tp16")
    assert profile.kv_bytes_per_token is not None
    free_bytes = 16 * profile.num_gpu_blocks * profile.block_size * profile.kv_bytes_per_token
    used_bytes = deepseek(16, 40, "lengthened").num_gpu_blocks * 16 * PAPER_KV_BYTES_PER_TOKEN
    assert 0 <= free_bytes - used_bytes < 16 * PAPER_KV_BYTES_PER_TOKEN


def test_deepseeks_weights_do_not_fit_eight_h100() -> None:
    weights = load_profile("h100-sxm_deepseek-v3_tp16").weights_bytes
    assert weights is not None
    assert weights > 8 * 80e9


@pytest.mark.parametrize("reading", READINGS)
def test_every_setting_is_a_scenario_and_its_variants_differ_in_one_thing(reading: settings.Reading) -> None:
    for setting in (qwen(8, reading), qwen(2, reading), deepseek(16, 40, reading), deepseek(8, 16, reading)):
        plain, tiered = setting.scenario(), with_hicache(setting).scenario()
        assert plain.engine.pool_tokens == setting.pool_tokens
        assert tiered.vllm.host_cache.capacity_tokens == pytest.approx(2 * setting.pool_tokens, abs=1)
        assert tiered.vllm.model_copy(update={"host_cache": plain.vllm.host_cache}) == plain.vllm
        assert not without_cache(setting).scenario().vllm.enable_prefix_caching


def test_the_link_carries_what_fig_1c_prints() -> None:
    took_s = 8 * 4096 * PAPER_KV_BYTES_PER_TOKEN / settings.LINK_BYTES_PER_S
    assert math.isclose(took_s, 1.1)
