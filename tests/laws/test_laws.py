"""The law register on random worlds: starved and ample pools, shared prefixes, dropped histories, any gate.

L1 requests are conserved · L2 blocks are conserved · L3 referenced blocks are never evicted
L4 eviction in LRU order (see test_lru.py) · L5 times of a call are ordered
L6 a step starts after the one before, its tool wait and the children that join it, a child after its
parent's step and its delay · L7 the clock never decreases
L8 no idling while work waits · L9 the window is respected · L10 same seed, same run
L11 controllers see no hidden state (see sim/test_driver.py) · L12 AppLimited (see concur/test_controllers.py)
L13 nobody starves.
"""

import os
from collections.abc import Iterable
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import HealthCheck, event, given, settings

from concur.orders import ORDERS
from concur.sim.record.record import RunRecord
from concur.sim.workload.families import Families
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload
from concur.sim.world.cores import reference_core_of
from concur.sim.world.simulate import simulate
from concur.validate.parity.worlds import World, worlds
from tests.helpers import make_agent, make_scenario, make_workload
from tests.laws.register import Watch, watching


@given(worlds(with_host_cache=True))
@settings(
    max_examples=int(os.environ.get("CONCUR_LAW_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_every_law_holds_in_a_random_world(world: World) -> None:
    scenario, workload = world
    watch = Watch()
    with watching(watch):
        record = simulate(scenario, workload, core=reference_core_of(scenario))
    event(f"preempts: {watch.num_preemptions > 0}, evicts: {watch.num_evictions > 0}")
    assert watch.num_steps > 0
    assert watch.num_finished == watch.num_added == sum(len(agent.steps) for agent in workload.agents)
    assert len(record.agents) == len(workload.agents), "L13: every agent finishes"
    check_call_times(record, workload)
    if scenario.controller.kind != "none":
        check_window(record)


def test_a_prompt_that_a_tier_brings_back_whole_keeps_the_laws() -> None:
    agents = make_workload(
        make_agent(0, [(0, 2)], group="g", shared=16),
        make_agent(1, [(40, 2)], arrival_s=1.0),
        make_agent(2, [(0, 2)], group="g", shared=16, arrival_s=2.0),
    )
    engine = {"block_size": 4, "num_gpu_blocks": 13, "host_cache": {"capacity_tokens": 400}}
    record = simulate(make_scenario(engine=engine), agents)
    assert record.requests["cached_tokens"].iloc[-1] == record.requests["prompt_tokens"].iloc[-1] == 16
    check_call_times(record, agents)


def check_call_times(record: RunRecord, workload: Workload) -> None:
    calls = record.requests.sort_values(["agent_index", "call_index"])
    stages = ["ready_s", "submitted_s", "scheduled_s", "first_token_s", "finished_s"]
    for before, after in pairwise(stages):
        assert (calls[before] <= calls[after]).all(), f"L5: {before} <= {after}"
    families = Families(workload)
    left_s = record.agents.set_index("agent_id")["finished_s"]
    ended_s = calls.set_index(["agent_index", "call_index"])["finished_s"].to_dict()
    for agent, own in _by_agent(calls, workload):
        parent, start_s = families.parent(agent), agent.arrival_s
        if parent is not None:
            start_s = ended_s[parent.index, agent.parent_step or 0] + agent.spawn_delay_s
        assert own["ready_s"].iloc[0] == pytest.approx(start_s), "L6: after its parent's step"
        finished = own["finished_s"].tolist()
        for number, ready_s in enumerate(own["ready_s"].tolist()[1:]):
            children = families.started_after(agent.agent_id, number)
            waits_s = [finished[number] + agent.steps[number].tool_latency_s]
            waits_s += [left_s[child.agent_id] for child in children if child.joins]
            assert ready_s == pytest.approx(max(waits_s)), "L6: after the tool wait and the children"
        assert own["output_tokens"].tolist() == [step.output_tokens for step in agent.steps]
        computed = own["prompt_tokens"] - own["cached_tokens"]
        least = (own["host_tokens"].fillna(0) == 0).astype(int)  # what a tier brings back counts whole
        assert (computed >= least).all(), "the last token is always computed"
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


@given(worlds(with_host_cache=True))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_world_runs_the_same_way_twice(world: World) -> None:
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
        record = simulate(scenario, Workload(agents, source="starved"), core=reference_core_of(scenario))
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
