"""Priorities: where they come from, and what they do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from concur.sim.errors import TraceError
from concur.sim.record.record import RunRecord
from concur.sim.scenario.build import build_workload
from concur.sim.traces.format import to_line
from concur.sim.traces.trace import read_trace
from concur.sim.workload.from_trace import TraceSelection, select_agents
from concur.sim.workload.spec import AgentSpec, Workload
from concur.sim.world.simulate import simulate
from tests.helpers import make_agent, make_scenario, make_workload

LINE = '{"agent_id": "a", "priority": %s, "steps": [{"new_prompt_tokens": 9, "output_tokens": 1}]}\n'


def run(policy: str, agents: Workload, **engine: Any) -> RunRecord:
    return simulate(make_scenario(engine=engine | {"scheduling_policy": policy}), agents)


def ranked(agent: AgentSpec, priority: int) -> AgentSpec:
    return replace(agent, priority=priority)


def test_a_trace_tells_the_priority_of_an_agent(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(LINE % -7)
    (agent,) = read_trace(path)
    (spec,), _ = select_agents([agent], TraceSelection())
    assert spec.priority == -7
    assert '"priority":-7' in to_line(agent)
    assert "priority" not in to_line(replace(agent, priority=0))


@pytest.mark.parametrize("value", ["0.5", '"high"', "1000001"])
def test_a_priority_that_is_none_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(LINE % value)
    with pytest.raises(TraceError, match=r"line 1.*priority"):
        read_trace(path)


def test_each_part_of_a_workload_may_have_its_own() -> None:
    parts = [
        {"generator": "react", "num_agents": 2, "priority": 5},
        {"generator": "react", "num_agents": 1},
    ]
    scenario = make_scenario(workload={"generator": None, "num_agents": 0, "parts": parts})
    assert [agent.priority for agent in build_workload(scenario).agents] == [5, 5, 0]


def test_the_least_is_served_first() -> None:
    agents = [ranked(make_agent(number, [(50, 20)]), priority) for number, priority in enumerate((2, 0, 1))]
    calls = run("priority", make_workload(*agents), max_num_seqs=1).requests
    assert calls.sort_values("scheduled_s")["agent_index"].tolist() == [1, 2, 0]


def test_the_greatest_makes_way_although_it_began_first() -> None:
    agents = make_workload(
        ranked(make_agent(0, [(60, 200)]), 1), ranked(make_agent(1, [(60, 200)], arrival_s=0.05), 0)
    )
    preempted = {
        policy: run(policy, agents, num_gpu_blocks=25).requests.set_index("agent_index")["num_preemptions"]
        for policy in ("fcfs", "priority")
    }
    assert preempted["fcfs"].to_dict() == {0: 0, 1: 1}
    assert preempted["priority"].to_dict() == {0: 1, 1: 0}


def test_first_come_first_served_looks_at_no_priority() -> None:
    agents = [make_agent(number, [(60, 80)] * 2) for number in range(8)]
    plain = run("fcfs", make_workload(*agents), num_gpu_blocks=25)
    told = run("fcfs", make_workload(*(ranked(each, -each.index) for each in agents)), num_gpu_blocks=25)
    assert plain.requests.equals(told.requests)
