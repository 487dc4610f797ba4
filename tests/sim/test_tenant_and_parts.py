"""Drift by hand: workloads in parts, and a tenant that takes blocks from behind the gate."""

from typing import Any

import pytest

from concur.sim.errors import ScenarioError
from concur.sim.scenario.build import build_workload
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate
from tests.helpers import make_agent, make_scenario, make_workload

SMALL = {"generator": "react", "num_agents": 5}
LARGE = {"generator": "react", "num_agents": 3, "output_median_tokens": 360, "start_s": 20.0}


def parts(*given: dict[str, Any], **more: Any) -> Workload:
    scenario = make_scenario(workload={"generator": None, "num_agents": 0, "parts": list(given)} | more)
    return build_workload(scenario)


def test_parts_follow_one_another_with_draws_of_their_own() -> None:
    workload = parts(SMALL, LARGE)
    assert [agent.index for agent in workload.agents] == list(range(8))
    assert [agent.arrival_s for agent in workload.agents] == [0.0] * 5 + [20.0] * 3
    assert len({agent.agent_id for agent in workload.agents}) == 8
    assert {agent.prefix_group for agent in workload.agents} == {"react-1200"}, "one prefix, one group"
    assert parts(SMALL).agents == workload.agents[:5], "a part does not see the others"
    assert parts(SMALL, SMALL).agents[5].steps != workload.agents[0].steps


def test_parts_of_other_prefixes_do_not_share_them() -> None:
    workload = parts(SMALL, SMALL | {"shared_prefix_tokens": 64}, SMALL | {"shared_prefix_tokens": 0})
    assert {agent.prefix_group for agent in workload.agents} == {"react-1200", "react-64", None}


def test_a_part_can_arrive_as_a_poisson_process_from_its_start_on() -> None:
    workload = parts(SMALL | {"start_s": 50.0, "arrival": {"process": "poisson", "rate_per_s": 1.0}})
    arrivals = [agent.arrival_s for agent in workload.agents]
    assert arrivals == sorted(arrivals)
    assert 50.0 < arrivals[0] < arrivals[-1]


def test_shuffle_mixes_the_same_agents_by_the_seed() -> None:
    straight, mixed = parts(SMALL, LARGE), parts(SMALL, LARGE, shuffle=True)
    assert [agent.index for agent in mixed.agents] == list(range(8))
    ids = [agent.agent_id for agent in mixed.agents]
    assert sorted(ids) == sorted(agent.agent_id for agent in straight.agents)
    assert ids != [agent.agent_id for agent in straight.agents]
    assert mixed == parts(SMALL, LARGE, shuffle=True)


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"parts": [SMALL]}, "exactly one of"),
        ({"generator": None, "parts": [SMALL]}, "belong to each of the"),
        ({"shuffle": True}, "there are none"),
        ({"generator": None, "num_agents": 0, "parts": [SMALL | {"mean_steps": 0}]}, "mean_steps = 0"),
        ({"generator": None, "num_agents": 0, "parts": [SMALL | {"speed": 1}]}, "speed"),
        ({"generator": None, "num_agents": 0, "parts": [{"generator": "x", "num_agents": 1}]}, "'x'"),
    ],
)
def test_parts_that_make_no_sense_are_refused(workload: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        make_scenario(workload=workload)


TENANT = {"num_requests": 2, "prompt_tokens": 6000, "output_tokens": 400, "start_s": 5.0, "end_s": 20.0}


def test_a_tenant_holds_blocks_while_it_is_there_and_is_not_in_the_tables() -> None:
    agents = make_workload(*[make_agent(n, [(100, 50)] * 12, wait_s=2.0) for n in range(4)])
    alone = simulate(make_scenario(), agents)
    beside = simulate(make_scenario(tenant=TENANT), agents)
    assert len(beside.requests) == len(alone.requests) == 48
    assert len(beside.agents) == 4
    pool_tokens = 2000 * 16
    usage = beside.timeline.set_index("t_s")["kv_cache_usage_frac"]
    assert usage.loc[:5.0].max() < 0.1
    assert usage.loc[8.0:18.0].median() >= 2 * 6000 / pool_tokens
    assert usage.loc[8.0:18.0].min() >= 6000 / pool_tokens, "one of two may just have begun again"
    assert usage.iloc[-1] < 0.1, "it ends"
    assert beside.timeline["prompt_tokens"].iloc[-1] >= alone.timeline["prompt_tokens"].iloc[-1] + 12_000
    assert beside.metrics["makespan_s"] > alone.metrics["makespan_s"], "it costs engine time"


def test_a_tenant_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"tenant\.prompt_tokens \+ output_tokens = 20400"):
        make_scenario(tenant=TENANT | {"prompt_tokens": 20_000})


@pytest.mark.parametrize(("engine", "busy"), [("all", [0, 1, 2]), (1, [1])])
def test_a_tenant_is_on_the_engine_of_a_fleet_that_it_names_or_on_all(
    engine: int | str, busy: list[int]
) -> None:
    scenario = make_scenario(tenant=TENANT | {"engine": engine}, fleet={"num_engines": 3})
    record = simulate(scenario, make_workload(make_agent(0, [(100, 50)] * 12, wait_s=2.0)))
    held = record.engines.groupby("engine_index")["kv_cache_usage_frac"].max()
    assert list(held[held > 2 * 6000 / (2000 * 16)].index) == busy
    assert record.run["scenario"]["tenant"]["engine"] == engine


def test_a_tenant_outlives_the_death_of_its_engine() -> None:
    fleet = {"num_engines": 2, "outages": [{"engine": 1, "at_s": 8.0, "until_s": 12.0}]}
    scenario = make_scenario(tenant=TENANT | {"engine": 1}, fleet=fleet)
    record = simulate(scenario, make_workload(make_agent(0, [(100, 50)] * 12, wait_s=2.0)))
    held = record.engines[record.engines["engine_index"] == 1].set_index("t_s")["kv_cache_usage_frac"]
    assert held.loc[7.0] > 0.3
    assert held.loc[8.5:11.5].max() == 0
    assert held.loc[14.0:18.0].max() > 0.3


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"tenant": {"engine": 1}}, r"tenant\.engine = 1 but must be below 1"),
        ({"tenant": {"engine": 2}, "fleet": {"num_engines": 2}}, r"tenant\.engine = 2 but must be below 2"),
        ({"tenant": {"engine": "some"}, "fleet": {"num_engines": 2}}, "engine"),
        (
            {
                "tenant": TENANT,
                "fleet": {
                    "engines": [{"count": 1}, {"engine": {"num_gpu_blocks": 301, "max_model_len": 4000}}]
                },
            },
            r"tenant\.prompt_tokens \+ output_tokens = 6400 but must be at most 4000",
        ),
    ],
)
def test_a_tenant_on_an_engine_that_is_not_there_or_too_small_is_refused(
    sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(ScenarioError, match=said):
        make_scenario(**sections)


def test_of_one_engine_nothing_is_written_of_where_a_tenant_is() -> None:
    assert "engine" not in make_scenario(tenant=TENANT).model_dump()["tenant"]
