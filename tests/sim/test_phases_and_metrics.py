"""Phases and metrics against tables written by hand."""

from typing import Any

import numpy as np
import pytest

from concur.sim.record.latency import latency_metrics, quantiles, tpot_s
from concur.sim.record.metrics import compute_metrics, ideal_hit_rate, jain_fairness
from concur.sim.record.phases import demand_over_time, find_phases
from concur.sim.record.rows import AgentRow, RequestRow, TimelineRow
from concur.sim.record.tables import Columns, columns_of, table_of
from concur.sim.scenario.sections import SloConfig

Call = tuple[int, int, float, float, int, int, int]
"""agent, call, submitted_s, finished_s, prompt, output, cached"""


def requests(*calls: Call) -> Columns:
    rows = [
        RequestRow(
            agent_index=agent,
            call_index=call,
            ready_s=submitted_s - 0.5,
            submitted_s=submitted_s,
            scheduled_s=submitted_s,
            first_token_s=finished_s,
            finished_s=finished_s,
            prompt_tokens=prompt,
            kept_tokens=0 if call == 0 else prompt - 10,
            cached_tokens=cached,
            host_tokens=0,
            recomputed_tokens=1,
            output_tokens=output,
            num_preemptions=0,
        )
        for agent, call, submitted_s, finished_s, prompt, output, cached in calls
    ]
    return columns_of(table_of("requests", rows))


def agents(*ends: tuple[float, float], group: str | None = None, shared: int = 0) -> Columns:
    rows = [
        AgentRow(
            number,
            f"a{number}",
            group,
            shared,
            2,
            0,
            arrived_s,
            arrived_s,
            finished_s,
            0.0,
            1,
            None,
            None,
            None,
            0,
        )
        for number, (arrived_s, finished_s) in enumerate(ends)
    ]
    return columns_of(table_of("agents", rows))


def timeline(*samples: tuple[float, int, float]) -> Columns:
    rows = [
        TimelineRow(t_s, 0, 0, usage, None, 0, 0, 0, 0, 0, 0, 0, 1.0, 2.0, 3.0, active, 0, 0, 0, 9)
        for t_s, active, usage in samples
    ]
    return columns_of(table_of("timeline", rows))


TWO = requests(
    (0, 0, 0.0, 1.0, 100, 20, 0),
    (1, 0, 0.0, 2.0, 300, 20, 0),
    (0, 1, 3.0, 4.0, 200, 20, 120),
    (1, 1, 5.0, 10.0, 400, 20, 50),
)
TWO_AGENTS = agents((0.0, 4.0), (0.0, 10.0))


def demand(*args: Any) -> list[tuple[float, int]]:
    times_s, tokens = demand_over_time(*args)
    return list(zip(times_s.tolist(), tokens.tolist(), strict=True))


def test_demand_is_the_histories_of_the_living() -> None:
    expected = [(0.0, 400), (1.0, 420), (2.0, 440), (3.0, 520), (4.0, 320), (5.0, 400), (10.0, 0)]
    assert demand(TWO, TWO_AGENTS) == expected


def test_a_shared_prefix_counts_once_until_its_last_agent_is_gone() -> None:
    grouped = agents((0.0, 4.0), (0.0, 10.0), group="g", shared=50)
    expected = [(0.0, 350), (1.0, 370), (2.0, 390), (3.0, 470), (4.0, 320), (5.0, 400), (10.0, 0)]
    assert demand(TWO, grouped) == expected


def test_phases_follow_the_rule() -> None:
    warm_up, middle, cool_down = find_phases(TWO, TWO_AGENTS, pool_tokens=430, end_s=10.0)
    assert [(p.start_s, p.end_s) for p in (warm_up, middle, cool_down)] == [(0, 2), (2, 4), (4, 10)]
    assert warm_up.hit_rate == 0.0
    assert warm_up.hit_rate_later_calls is None
    assert middle.hit_rate == middle.hit_rate_later_calls == 120 / 200
    assert cool_down.hit_rate == 50 / 400
    assert [p.throughput_tokens_per_s for p in (warm_up, middle, cool_down)] == [20.0, 10.0, 20 / 6]


def test_a_run_that_always_fits_is_warm_up_throughout() -> None:
    phases = find_phases(TWO, TWO_AGENTS, pool_tokens=10_000, end_s=10.0)
    assert [phase.duration_s for phase in phases] == [10.0, 0.0, 0.0]


def test_every_metric_by_hand() -> None:
    metrics = compute_metrics(
        requests=TWO,
        agents=TWO_AGENTS,
        timeline=timeline((0.0, 2, 0.5), (6.0, 1, 0.25), (10.0, 0, 0.0)),
        pool_tokens=430,
        block_size=16,
        num_agents_skipped=3,
        num_engine_steps=7,
        slo=SloConfig(ttft_s=1.5, call_latency_s=3.0),
    )
    assert metrics["num_agents"] == 2
    assert metrics["num_agents_skipped"] == 3
    assert metrics["makespan_s"] == 10.0
    assert metrics["num_engine_steps"] == 7
    assert metrics["num_requests"] == 4
    assert metrics["prompt_tokens"] == 1000
    assert metrics["cached_tokens"] == 170
    assert metrics["hit_rate"] == 0.17
    assert metrics["recomputed_tokens"] == 4
    assert metrics["generated_tokens"] == 80
    assert metrics["throughput_tokens_per_s"] == 8.0
    assert metrics["recompute_time_fraction"] == 0.2
    assert metrics["idle_fraction"] == pytest.approx(0.4)
    assert metrics["mean_active_agents"] == pytest.approx((2 * 6 + 1 * 4) / 10)
    assert metrics["mean_kv_usage"] == pytest.approx((0.5 * 6 + 0.25 * 4) / 10)
    assert metrics["peak_kv_usage"] == 0.5
    assert metrics["agent_latency_s"]["max"] == 10.0
    assert metrics["agent_latency_s"]["p50"] == 7.0
    assert metrics["step_wait_s"] == {"p50": 0.5, "p99": 0.5, "max": 0.5}
    assert metrics["ttft_s"] == pytest.approx({"p50": 2.0, "p90": 4.6, "p95": 5.05, "p99": 5.41, "max": 5.5})
    assert metrics["call_latency_s"] == metrics["ttft_s"]  # their tokens come all at once
    assert metrics["tpot_s"]["max"] == 0.0
    assert metrics["slo_attainment"] == 0.5  # 2.5 s is too late for a first token
    assert metrics["goodput_calls_per_s"] == 0.2
    assert metrics["goodput_tokens_per_s"] == 4.0
    assert metrics["gate_pauses"] == 2
    shares = np.array([40 / 4, 40 / 10])
    assert metrics["jain_fairness"] == pytest.approx(shares.sum() ** 2 / (2 * (shares**2).sum()))


def test_what_a_live_engine_does_not_publish_is_none_not_zero() -> None:
    unknown = {**TWO, "cached_tokens": np.full(4, np.nan)}
    samples = {**timeline((0.0, 2, 0.5), (10.0, 1, 0.25)), "recompute_s": np.full(2, np.nan)}
    metrics = compute_metrics(
        requests=unknown,
        agents=TWO_AGENTS,
        timeline=samples,
        pool_tokens=430,
        block_size=16,
        num_agents_skipped=0,
        num_engine_steps=None,
        slo=SloConfig(),
    )
    names = ("cached_tokens", "hit_rate", "recompute_time_fraction", "idle_fraction", "num_engine_steps")
    assert [metrics[name] for name in names] == [None] * 5
    unstated = ("slo_attainment", "goodput_calls_per_s", "goodput_tokens_per_s")
    assert [metrics[name] for name in unstated] == [None] * 3


def test_latency_of_tokens_by_hand() -> None:
    calls = {
        "ready_s": np.array([0.0, 1.0, 2.0]),
        "first_token_s": np.array([2.0, 2.0, 3.0]),
        "finished_s": np.array([6.0, 2.0, 12.0]),
        "output_tokens": np.array([5, 1, 10]),
    }
    assert tpot_s(calls)[[0, 2]].tolist() == [1.0, 1.0]
    metrics = latency_metrics(calls, makespan_s=12.0, slo=SloConfig(tpot_s=0.9))
    assert metrics["tpot_s"]["p50"] == 1.0, "an answer of one token has none"
    assert metrics["slo_attainment"] == pytest.approx(1 / 3), "and keeps that limit"
    assert metrics["goodput_tokens_per_s"] == pytest.approx(1 / 12)
    all_limits = SloConfig(ttft_s=1.0, tpot_s=1.0, call_latency_s=9.0)
    assert latency_metrics(calls, makespan_s=12.0, slo=all_limits)["slo_attainment"] == pytest.approx(1 / 3)


def test_the_latency_of_calls_that_nobody_timed_is_none() -> None:
    unknown = np.full(3, np.nan)
    assert quantiles(unknown) == dict.fromkeys(("p50", "p90", "p95", "p99", "max"))


def test_ideal_hits_by_hand() -> None:
    # agent 0: 119 tokens computed, 112 in full blocks; agent 1: 319 computed, 304 in full blocks
    assert ideal_hit_rate(TWO, TWO_AGENTS, block_size=16) == (112 + 304) / 1000
    grouped = agents((0.0, 4.0), (0.0, 10.0), group="g", shared=50)
    with_prefix = {**TWO, "kept_tokens": np.array([50, 50, 190, 390])}
    # agent 1 now finds 48 tokens of the prefix that agent 0 has computed
    assert ideal_hit_rate(with_prefix, grouped, block_size=16) == (112 + 304 + 48) / 1000


def test_jain_is_one_when_equal_and_one_over_n_when_one_has_it_all() -> None:
    assert jain_fairness(np.array([3.0, 3.0, 3.0])) == pytest.approx(1.0)
    assert jain_fairness(np.array([3.0, 0.0, 0.0])) == pytest.approx(1 / 3)
