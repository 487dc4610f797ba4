"""The law register on random worlds: starved and ample pools, shared prefixes, dropped histories, any gate.

L1 requests are conserved · L2 blocks are conserved · L3 referenced blocks are never evicted
L4 eviction in LRU order (see test_lru.py) · L5 times of a call are ordered
L6 a step starts after the one before and its tool wait · L7 the clock never decreases
L8 no idling while work waits · L9 the window is respected · L10 same seed, same run
L11 controllers see no hidden state (see sim/test_driver.py) · L12 AppLimited (see concur/test_controllers.py)
L13 nobody starves.
"""

import os
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from concur.orders import ORDERS
from sim.driver import simulate
from sim.record import RunRecord
from sim.scenario import Scenario
from sim.workload.spec import AgentSpec, StepSpec, Workload
from tests.helpers import make_scenario
from tests.laws.register import Watch, watching

waits_s = st.sampled_from([0.0, 0.01, 0.3, 2.0])
order_names = st.sampled_from(sorted(ORDERS))


@st.composite
def agent_specs(draw: st.DrawFn, index: int) -> AgentSpec:
    shared = draw(st.sampled_from([0, 10, 48, 100]))
    history = shared
    steps: list[StepSpec] = []
    for number in range(draw(st.integers(1, 5))):
        drops = number > 0 and draw(st.integers(0, 3)) == 0
        kept = draw(st.integers(0, history)) if drops else history
        step = StepSpec(kept, draw(st.integers(1, 150)), draw(st.integers(1, 40)), draw(waits_s))
        history = step.context_tokens
        steps.append(step)
    group = draw(st.sampled_from(["g", "h"])) if shared else None
    return AgentSpec(f"a{index}", index, group, shared, draw(waits_s), tuple(steps))


@st.composite
def controllers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["none", "request_cap", "agent_cap", "concur"]))
    interval = {"interval_s": draw(st.sampled_from([0.05, 0.5, 5.0]))}
    if "cap" in kind:
        return {"kind": kind, "cap": draw(st.integers(1, 6))} | interval
    if kind == "none":
        return {"kind": kind} | interval
    law = {
        "initial_window": draw(st.integers(1, 8)),
        "u_low_frac": 0.1,
        "u_high_frac": 0.3,
        "h_thresh_frac": draw(st.sampled_from([0.2, 0.9])),
        "wrappers": draw(st.sampled_from([[], ["app_limited"]])),
    }
    return {"kind": kind} | interval | law


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Scenario, Workload]:
    agents = tuple(draw(agent_specs(index)) for index in range(draw(st.integers(1, 8))))
    block_size = draw(st.sampled_from([4, 16, 32]))
    longest = max(-(-agent.peak_context_tokens // block_size) for agent in agents)
    max_num_seqs = draw(st.integers(1, 12))
    scenario = make_scenario(
        engine={
            "block_size": block_size,
            "num_gpu_blocks": 1 + longest + draw(st.integers(0, 2 * longest)),
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": draw(st.integers(max(64, max_num_seqs), 600)),
            "long_prefill_token_threshold": draw(st.sampled_from([0, 50])),
            "scheduler_reserve_full_isl": draw(st.booleans()),
            "watermark": draw(st.sampled_from([0.0, 0.05])),
            "enable_prefix_caching": True,
            "host_cache": {
                "capacity_tokens": draw(st.sampled_from([0, 500, 10_000])),
                "bandwidth_bytes_per_s": 1e9,
            },
        },
        gate={"admit": draw(order_names), "resume": draw(order_names), "pause": draw(order_names)},
        controller=draw(controllers()),
        record={"timeline_interval_s": 0.25},
    )
    return scenario, Workload(agents, source="random")


@given(worlds())
@settings(
    max_examples=int(os.environ.get("CONCUR_LAW_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_every_law_holds_in_a_random_world(world: tuple[Scenario, Workload]) -> None:
    scenario, workload = world
    watch = Watch()
    with watching(watch):
        record = simulate(scenario, workload)
    event(f"preempts: {watch.num_preemptions > 0}, evicts: {watch.num_evictions > 0}")
    assert watch.num_steps > 0
    assert watch.num_finished == watch.num_added == sum(len(agent.steps) for agent in workload.agents)
    assert len(record.agents) == len(workload.agents), "L13: every agent finishes"
    check_call_times(record, workload)
    if scenario.controller.kind != "none":
        check_window(record)


def check_call_times(record: RunRecord, workload: Workload) -> None:
    calls = record.requests.sort_values(["agent_index", "call_index"])
    stages = ["ready_s", "submitted_s", "scheduled_s", "first_token_s", "finished_s"]
    for before, after in pairwise(stages):
        assert (calls[before] <= calls[after]).all(), f"L5: {before} <= {after}"
    for agent, own in _by_agent(calls, workload):
        assert own["ready_s"].iloc[0] == pytest.approx(agent.arrival_s)
        finished = own["finished_s"].tolist()
        for step, end_s, ready_s in zip(agent.steps, finished, own["ready_s"].tolist()[1:], strict=False):
            assert ready_s == pytest.approx(end_s + step.tool_latency_s), "L6: after the tool wait"
        assert own["output_tokens"].tolist() == [step.output_tokens for step in agent.steps]
        assert (own["cached_tokens"] < own["prompt_tokens"]).all(), "the last token is always computed"
        assert (own["recomputed_tokens"] >= 0).all()


def check_window(record: RunRecord) -> None:
    """L9: between two decisions the window is constant: active agents fall to it, or grow up to it."""
    active_before = 0
    for active, window in record.ticks[["agents_active", "window_before"]].itertuples(index=False):
        assert active <= max(active_before, window), "L9"
        active_before = active


def _by_agent(calls: pd.DataFrame, workload: Workload) -> Iterable[tuple[AgentSpec, pd.DataFrame]]:
    for agent in workload.agents:
        yield agent, calls[calls["agent_index"] == agent.index]


@given(worlds())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_world_runs_the_same_way_twice(world: tuple[Scenario, Workload]) -> None:
    scenario, workload = world
    first, second = simulate(scenario, workload), simulate(scenario, workload)
    for name in ("requests", "agents", "ticks", "timeline"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))


def test_the_random_worlds_are_not_vacuous() -> None:
    """One starved world that preempts, evicts and recomputes, watched: the laws have something to hold."""
    steps = (StepSpec(0, 120, 60, 0.3), StepSpec(180, 120, 60, 0.3), StepSpec(100, 120, 60, 0.3))
    agents = tuple(AgentSpec(f"a{n}", n, None, 0, 0.0, steps) for n in range(8))
    scenario = make_scenario(engine={"num_gpu_blocks": 41, "max_num_batched_tokens": 512})
    watch = Watch()
    with watching(watch):
        record = simulate(scenario, Workload(agents, source="starved"))
    assert watch.num_preemptions > 5
    assert watch.num_evictions > 50
    assert record.metrics["recomputed_tokens"] > 500


@pytest.mark.parametrize("order", sorted(ORDERS))
def test_nobody_starves_under_a_window_of_one(order: str) -> None:
    steps = tuple(StepSpec(60 * n, 40, 20, 0.2) for n in range(4))
    agents = tuple(AgentSpec(f"a{n}", n, None, 0, 0.1 * n, steps) for n in range(12))
    scenario = make_scenario(
        controller={"kind": "agent_cap", "cap": 1}, gate={"admit": order, "resume": order, "pause": order}
    )
    record = simulate(scenario, Workload(agents, source="queue"))
    assert len(record.agents) == 12
