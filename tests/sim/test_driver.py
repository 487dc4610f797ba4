"""Whole runs: time semantics by hand, the collapse and its cure, and the signals a controller sees."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from concur.controllers import make_controller
from concur.signals import UNLIMITED, Snapshot
from concur.sim.errors import ScenarioError
from concur.sim.record.phases import demand_over_time
from concur.sim.record.record import RunRecord
from concur.sim.record.tables import columns_of
from concur.sim.runs.policies import in_order
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.show.perfetto import trace_events
from concur.sim.workload.spec import StepSpec, Workload
from concur.sim.world.cores import reference_core_of
from concur.sim.world.simulate import simulate
from tests.helpers import make_agent, make_scenario, make_workload

STEP_TIME = {
    "base_s": 1.0,
    "per_prefill_token_s": 0.01,
    "per_decode_seq_s": 0.0,
    "per_context_token_s": 0.0,
    "per_prefill_pair_s": 0.0,
}


def run(*agents: object, **sections: object) -> RunRecord:
    scenario = make_scenario(**({"step_time": STEP_TIME} | sections))  # type: ignore[arg-type]
    return simulate(scenario, make_workload(*agents))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("is_told", "lease_s", "begins_s"), [(True, 600.0, 3), (False, 600.0, 603), (False, 60.0, 63)]
)
def test_who_ends_without_a_word_keeps_its_slot_until_its_lease_is_over(
    is_told: bool, lease_s: float, begins_s: float
) -> None:
    record = run(
        make_agent(0, [(100, 2)]),
        make_agent(1, [(100, 2)]),
        controller={"kind": "agent_cap", "cap": 1},
        gate={"are_ends_told": is_told, "lease_s": lease_s},
    )
    assert times(record, "submitted_s") == [0.0, begins_s]
    assert record.metrics["makespan_s"] == begins_s + 3


def times(record: RunRecord, column: str) -> list[float]:
    ordered = record.requests.sort_values(["agent_index", "call_index"])
    return [float(value) for value in ordered[column]]


def test_steps_run_back_to_back_and_tool_waits_start_at_the_end_of_a_step() -> None:
    # 100 new tokens: 1 + 1 s, then one decode of 1 s. The next prompt adds 50 tokens to 102 of history,
    # 96 of which are found: 56 tokens, 1.56 s.
    record = run(make_agent(0, [(100, 2), (50, 1)], wait_s=0.25))
    assert times(record, "scheduled_s") == pytest.approx([0.0, 3.25])
    assert times(record, "finished_s") == pytest.approx([3.0, 4.81])


def test_a_request_that_becomes_ready_during_a_step_joins_the_next_one() -> None:
    record = run(make_agent(0, [(100, 3)]), make_agent(1, [(100, 1)], arrival_s=0.5))
    assert times(record, "scheduled_s") == pytest.approx([0.0, 2.0])
    assert times(record, "finished_s") == pytest.approx([5.0, 4.0])


def test_a_request_ready_at_the_instant_a_step_ends_joins_the_next_one() -> None:
    record = run(make_agent(0, [(100, 3)]), make_agent(1, [(100, 1)], arrival_s=2.0))
    assert times(record, "scheduled_s") == pytest.approx([0.0, 2.0])


def test_those_that_joined_together_are_ordered_by_ready_time_then_agent() -> None:
    late, early, same = (
        make_agent(index, [(100, 1)], arrival_s=arrival_s)
        for index, arrival_s in ((0, 1.5), (1, 0.5), (2, 0.5))
    )
    first = make_agent(3, [(100, 1)])
    record = run(late, early, same, first, engine={"max_num_seqs": 1})
    assert record.requests["agent_index"].tolist() == [3, 1, 2, 0]


def test_a_finished_agents_slot_passes_on_at_that_instant() -> None:
    agents = [make_agent(index, [(100, 1)]) for index in range(3)]
    record = run(*agents, controller={"kind": "agent_cap", "cap": 1})
    assert times(record, "submitted_s") == pytest.approx([0.0, 2.0, 4.0])
    assert record.metrics["step_wait_s"]["max"] == pytest.approx(4.0)


def test_request_cap_lets_others_in_during_a_tool_wait_and_agent_cap_does_not() -> None:
    agents = [make_agent(index, [(100, 1), (100, 1)], wait_s=10.0) for index in range(2)]
    by_request = run(*agents, controller={"kind": "request_cap", "cap": 1})
    by_agent = run(*agents, controller={"kind": "agent_cap", "cap": 1})
    assert by_request.requests["agent_index"].tolist() == [0, 1, 0, 1]
    assert by_agent.requests["agent_index"].tolist() == [0, 0, 1, 1]


def test_the_batch_collapses_in_the_middle_and_a_cap_cures_it() -> None:
    engine = {"num_gpu_blocks": 1001}  # two fifths of what 16 agents need at their longest
    agents = [make_agent(index, [(150, 50)] * 12, wait_s=2.0, group="g", shared=200) for index in range(16)]
    none = run(*agents, engine=engine)
    capped = run(*agents, engine=engine, controller={"kind": "agent_cap", "cap": 3})
    phases = none.metrics["phases"]
    assert phases["middle"]["hit_rate"] < phases["warm_up"]["hit_rate_later_calls"] / 2
    assert capped.metrics["hit_rate"] > 0.9 * capped.metrics["ideal_hit_rate"]
    assert none.metrics["recomputed_tokens"] > 10 * capped.metrics["recomputed_tokens"]
    assert none.metrics["ideal_hit_rate"] == pytest.approx(capped.metrics["ideal_hit_rate"], abs=0.01)


def test_host_memory_saves_recompute_and_costs_transfer() -> None:
    agents = [make_agent(index, [(500, 20)] * 6, wait_s=2.0) for index in range(8)]
    engine = {"num_gpu_blocks": 401, "max_num_batched_tokens": 8192}
    slow = {"capacity_tokens": 100_000, "bandwidth_bytes_per_s": 1e6, "kv_bytes_per_token": 1000}
    fast = slow | {"bandwidth_bytes_per_s": 1e12}
    without = run(*agents, engine=engine)
    with_fast = run(*agents, engine=engine | {"host_cache": fast})
    with_slow = run(*agents, engine=engine | {"host_cache": slow})
    assert without.metrics["recomputed_tokens"] > 0
    assert with_fast.metrics["host_tokens"] > 0
    assert with_fast.metrics["recomputed_tokens"] < without.metrics["recomputed_tokens"]
    assert with_fast.metrics["makespan_s"] < with_slow.metrics["makespan_s"]


def test_without_prefix_caching_every_call_computes_its_whole_prompt() -> None:
    record = run(make_agent(0, [(100, 2)] * 3), engine={"enable_prefix_caching": False})
    assert record.metrics["hit_rate"] == 0.0
    assert record.metrics["recomputed_tokens"] == (102 - 1) + (204 - 1)


def test_a_controller_sees_only_what_a_live_engine_publishes() -> None:
    """L11: the snapshot's fields, by name; output lengths and future steps are not among them."""
    assert set(Snapshot.__dataclass_fields__) == {
        "time_s",
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_frac",
        "kv_cache_size_tokens",
        "kv_cache_resident_frac",
        "prefix_cache_queries_tokens",
        "prefix_cache_hits_tokens",
        "num_preemptions",
        "prompt_tokens",
        "generation_tokens",
        "num_gpu_blocks",
        "block_size",
        "agents_paused",
        "agents_waiting",
        "agents",
        "calls",
        "num_engine_steps",
        "external_prefix_cache_queries_tokens",
        "external_prefix_cache_hits_tokens",
        "departed",
    }


def test_gauges_hold_the_end_of_the_last_step_and_counters_add_up() -> None:
    record = run(*[make_agent(index, [(200, 5)] * 3, wait_s=1.0) for index in range(4)])
    last = record.timeline.iloc[-1]
    assert last["num_requests_running"] == 0
    assert last["kv_cache_usage_frac"] == 0.0
    assert last["generation_tokens"] == record.metrics["generated_tokens"]
    assert last["prompt_tokens"] == record.metrics["prompt_tokens"]
    assert last["prefix_cache_hits_tokens"] == record.metrics["cached_tokens"]
    assert last["recomputed_tokens"] == record.metrics["recomputed_tokens"]
    busy_s = last["prefill_s"] + last["recompute_s"] + last["decode_s"]
    assert busy_s <= record.metrics["makespan_s"] * (1 + 1e-12)
    assert record.timeline["window"].eq(UNLIMITED).all()


def test_a_controller_sees_the_end_of_the_last_step_and_nothing_of_the_one_in_flight() -> None:
    record = run(make_agent(0, [(100, 3)]), controller={"kind": "none", "interval_s": 0.75})
    during_first, during_second = record.ticks.iloc[0], record.ticks.iloc[2]
    assert (during_first["prefix_cache_queries_tokens"], during_first["num_requests_running"]) == (0, 0)
    assert (during_second["prefix_cache_queries_tokens"], during_second["num_requests_running"]) == (100, 1)
    assert during_second["generation_tokens"] == 1


def test_a_decision_is_taken_every_interval() -> None:
    record = run(make_agent(0, [(100, 30)]), controller={"kind": "none", "interval_s": 4.0})
    assert record.ticks["t_s"].tolist() == [4.0 * n for n in range(1, len(record.ticks) + 1)]
    assert len(record.ticks) == 7


def test_a_workload_that_is_handed_in_must_fit_the_engine_too() -> None:
    with pytest.raises(ScenarioError, match="num_gpu_blocks"):
        run(make_agent(0, [(2000, 1)]), engine={"num_gpu_blocks": 65})
    with pytest.raises(ScenarioError, match="no agent"):
        run()


class AlwaysTwo:
    """A law of somebody else's: the methods of the protocol, and nothing of ours."""

    reads_agents = False

    def __init__(self) -> None:
        self.window = 2

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        assert active <= self.window
        return self.window

    def log_state(self) -> dict[str, float | int | str | None]:
        return {"window": self.window}


def test_a_law_from_outside_the_catalog_decides_and_the_record_says_so() -> None:
    scenario = make_scenario(controller={"kind": "none", "interval_s": 2.0})
    foreign = simulate(scenario, law=AlwaysTwo)
    ours = simulate(make_scenario(controller={"kind": "agent_cap", "cap": 2, "interval_s": 2.0}))
    pd.testing.assert_frame_equal(foreign.requests, ours.requests)
    assert foreign.timeline["agents_active"].max() == 2
    assert foreign.label == "AlwaysTwo"
    controller = {"kind": "AlwaysTwo", "wrappers": [], "parameters": {"interval_s": 2.0}}
    assert foreign.run["scenario"]["controller"] == controller
    assert "AlwaysTwo is not in the catalog" in foreign.run["warnings"][-1]
    assert foreign.ticks["state"].unique().tolist() == ['{"window": 2}']
    with pytest.raises(ScenarioError, match="AlwaysTwo"):
        parse_scenario(foreign.run["scenario"])
    assert [record.label for record in in_order([foreign, ours])] == ["agent_cap=2", "AlwaysTwo"]


class Impatient(AlwaysTwo):
    """The same, but it says how often it wants to decide."""

    interval_s = 0.5


def test_a_law_from_outside_that_has_an_interval_decides_at_its_own() -> None:
    scenario = make_scenario(controller={"kind": "none", "interval_s": 2.0})
    foreign = simulate(scenario, law=Impatient)
    assert foreign.ticks["t_s"].tolist()[:3] == [0.5, 1.0, 1.5]
    assert foreign.run["scenario"]["controller"]["parameters"] == {"interval_s": 0.5}
    hybrid = simulate(scenario, law=lambda: make_controller("hybrid"))
    ours = simulate(make_scenario(controller={"kind": "hybrid"}))
    pd.testing.assert_frame_equal(hybrid.ticks, ours.ticks)


@pytest.mark.parametrize(
    ("workload", "at_most"),
    [
        ({"num_agents": 400}, 1.15),  # all at once: what the start at 16 agents costs
        ({"num_agents": 400, "arrival": {"process": "poisson", "rate_per_s": 10}}, 1.01),
        # Gone within a fraction of an interval: hardly one of them is in any reading.
        (
            {
                "num_agents": 600,
                "output_median_tokens": 8,
                "arrival": {"process": "poisson", "rate_per_s": 60},
            },
            1.01,
        ),
    ],
)
def test_agents_of_one_call_are_not_held_back_by_the_hybrid(
    workload: dict[str, object], at_most: float
) -> None:
    given: dict[str, Any] = {
        "workload": {"mean_steps": 1} | workload,
        "engine": {"num_gpu_blocks": 3001},
        "step_time": {"profile": "h100-sxm_qwen3-32b_tp2"},
    }
    none = simulate(make_scenario(**given))
    hybrid = simulate(make_scenario(**given, controller={"kind": "hybrid"}))
    assert hybrid.metrics["makespan_s"] <= at_most * none.metrics["makespan_s"]
    assert hybrid.ticks["window"].max() > 100


def test_indices_need_not_follow_one_another() -> None:
    engine = {"num_gpu_blocks": 101}
    tenant = {"num_requests": 1, "prompt_tokens": 20, "output_tokens": 5, "end_s": 20.0}
    steps = [(150, 50)] * 4
    close, apart = (
        run(
            *(
                replace(make_agent(number, steps, wait_s=1.0, group="g", shared=40), index=index)
                for number, index in enumerate(indices)
            ),
            engine=engine,
            tenant=tenant,
            controller={"kind": "agent_cap", "cap": 2},
        )
        for indices in ((0, 1, 2), (4, 7, 1000))
    )
    assert apart.metrics == close.metrics | {"wall_clock_s": apart.metrics["wall_clock_s"]}
    assert apart.agents["agent_index"].tolist() == [4, 7, 1000]
    pd.testing.assert_frame_equal(apart.requests.assign(agent_index=0), close.requests.assign(agent_index=0))
    assert len(list(trace_events(apart))) == len(list(trace_events(close)))


def test_a_background_tenant_comes_after_all_agents_whatever_their_indices() -> None:
    """Of calls that are ready together an agent's goes first; a tenant must not take an agent's number."""
    tenant = {"num_requests": 1, "prompt_tokens": 100, "output_tokens": 1, "start_s": 0.0, "end_s": 0.5}
    agent = replace(make_agent(0, [(100, 1)]), index=9)
    record = run(agent, tenant=tenant, engine={"max_num_seqs": 1})
    assert times(record, "scheduled_s") == [0.0]


def test_a_shared_prefix_without_a_group_is_the_agents_own() -> None:
    own, none = (
        run(*(make_agent(number, [(60, 4), (30, 4)], group=group, shared=64) for number in range(3)))
        for group in (None, "g")
    )
    assert own.metrics["cached_tokens"] < none.metrics["cached_tokens"]
    assert own.metrics["hit_rate"] == pytest.approx(own.metrics["ideal_hit_rate"], abs=0.001)
    _, demand = demand_over_time(columns_of(own.tables["requests"]), columns_of(own.tables["agents"]))
    assert demand.max() >= 3 * (64 + 60)


def duplicate_worlds() -> dict[str, tuple[Scenario, Workload, str]]:
    prefixed = [make_agent(n, [(60, 4), (30, 4)], group="g", shared=400) for n in range(4)]
    together = make_scenario(engine={"long_prefill_token_threshold": 50, "max_num_batched_tokens": 1024})
    first = make_agent(0, [(64, 40)] * 2, wait_s=1.0)
    again = make_agent(1, [(256, 16)], wait_s=1.0)
    steps = (*again.steps, StepSpec(256, 0, 8, 0.0))
    return {
        "together": (
            together,
            make_workload(*prefixed),
            "call 0 of agent 'agent-0' computed blocks of a shared prefix that another call was computing "
            "too, as engine.long_prefill_token_threshold = 50 lets them",
        ),
        "whole": (
            make_scenario(),
            make_workload(first, replace(again, steps=steps)),
            "call 1 of agent 'agent-1' sent a prompt of whole blocks that was cached to its end, and its "
            "last block is computed again",
        ),
    }


@pytest.mark.parametrize("name", ["together", "whole"])
def test_a_run_that_starts_again_block_by_block_says_so(name: str) -> None:
    scenario, workload, why = duplicate_worlds()[name]
    progress: list[int] = []
    said: list[str] = []
    record = simulate(
        scenario, workload, on_progress=lambda done, _all: progress.append(done), on_warning=said.append
    )
    (warning,) = (line for line in record.run["warnings"] if "block by block" in line)
    assert warning.startswith(
        "simulated block by block from its start, with the same result but up to 50 times"
    )
    assert warning.endswith(why)
    assert said == [warning]
    assert progress == list(range(1, len(workload.agents) + 1)), "time never runs backwards"
    reference = simulate(scenario, workload, core=reference_core_of(scenario))
    pd.testing.assert_frame_equal(record.requests, reference.requests)
    assert not any("block by block" in line for line in reference.run["warnings"])


def test_a_law_that_is_not_made_anew_for_a_run_that_starts_again_is_refused() -> None:
    scenario, workload, _ = duplicate_worlds()["whole"]
    used = AlwaysTwo()
    with pytest.raises(ScenarioError, match="let it make a new one whenever it is called"):
        simulate(scenario, workload, law=lambda: used)
    assert simulate(scenario, workload, law=AlwaysTwo).label == "AlwaysTwo"
