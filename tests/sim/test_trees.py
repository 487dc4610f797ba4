"""Agents that start agents: when they start, who waits for whom, what forks find, that nobody starves."""

from dataclasses import replace
from typing import Any

import pytest

from concur.controllers import CATALOG
from concur.signals import Prefix
from concur.sim.errors import ScenarioError
from concur.sim.record.record import RunRecord
from concur.sim.workload.families import Families
from concur.sim.workload.spec import AgentSpec, Workload
from concur.sim.world.cores import core_of, reference_core_of
from concur.sim.world.simulate import simulate
from tests.helpers import make_agent, make_scenario, make_workload

PARAMS: dict[str, dict[str, Any]] = {"request_cap": {"cap": 2}, "agent_cap": {"cap": 2}}
ADAPTIVE = ("initial_window", 2)


def child(index: int, steps: list[tuple[int, int]], parent: AgentSpec, step: int, **family: Any) -> AgentSpec:
    history = family.get("fork_tokens", 0)
    spec = make_agent(index, steps, shared=history)
    return replace(spec, shared_prefix_tokens=0, parent=parent.agent_id, parent_step=step, **family)


def times(record: RunRecord, spec: AgentSpec) -> list[tuple[float, float]]:
    calls = record.requests[record.requests["agent_index"] == spec.index].sort_values("call_index")
    return list(zip(calls["ready_s"].tolist(), calls["finished_s"].tolist(), strict=True))


def test_a_parent_waits_for_children_that_join_and_for_no_others() -> None:
    parent = make_agent(0, [(100, 10)] * 3, wait_s=0.5)
    joining = child(1, [(300, 200)], parent, 0, spawn_delay_s=0.25)
    beside = child(2, [(300, 400)], parent, 1, joins=False)
    record = simulate(make_scenario(), make_workload(parent, joining, beside))
    mine, theirs, others = (times(record, spec) for spec in (parent, joining, beside))
    assert theirs[0][0] == pytest.approx(mine[0][1] + 0.25)
    assert theirs[0][1] > mine[0][1] + 0.5, "or the wait is the tool's"
    assert mine[1][0] == pytest.approx(theirs[0][1])
    assert others[0][0] == pytest.approx(mine[1][1])
    assert mine[2][0] == pytest.approx(mine[1][1] + 0.5)
    assert others[0][1] > mine[2][1], "it outlives its parent"


def test_the_tool_wait_is_the_least_of_a_joined_wait() -> None:
    parent = make_agent(0, [(100, 10)] * 2, wait_s=50.0)
    record = simulate(make_scenario(), make_workload(parent, child(1, [(300, 20)], parent, 0)))
    mine = times(record, parent)
    assert mine[1][0] == pytest.approx(mine[0][1] + 50)


def test_who_joins_after_the_last_step_is_waited_for() -> None:
    parent = make_agent(0, [(100, 10)])
    joining = child(1, [(300, 20)], parent, 0)
    record = simulate(make_scenario(), make_workload(parent, joining))
    left_s = record.agents.set_index("agent_id")["finished_s"]
    assert left_s[parent.agent_id] == pytest.approx(left_s[joining.agent_id])


@pytest.mark.parametrize("core", [core_of, reference_core_of], ids=["fast", "reference"])
def test_a_fork_finds_its_parents_history_and_pays_for_the_rest(core: Any) -> None:
    parent = make_agent(0, [(1000, 24)] * 2)
    fork = child(1, [(500, 8)], parent, 0, fork_tokens=1024)
    part = child(2, [(500, 8)], parent, 0, fork_tokens=512)
    scenario = make_scenario()
    record = simulate(scenario, make_workload(parent, fork, part), core=core(scenario))
    cached = record.requests.set_index(["agent_index", "call_index"])["cached_tokens"]
    assert cached[1, 0] == 1008, "63 full blocks: the last sampled token was not computed"
    assert cached[2, 0] == 512
    assert cached[0, 1] == 1024, "the fork has computed it"
    assert record.metrics["ideal_hit_rate"] == record.metrics["hit_rate"]


def test_groups_within_groups_share_their_part_each() -> None:
    def agent(index: int, task: str) -> AgentSpec:
        spec = make_agent(index, [(64, 8)], arrival_s=float(index), group=task, shared=960)
        return replace(spec, outer_prefixes=(Prefix("system", 640),))

    record = simulate(make_scenario(), make_workload(agent(0, "t0"), agent(1, "t0"), agent(2, "t1")))
    assert record.requests.sort_values("agent_index")["cached_tokens"].tolist() == [0, 960, 640]
    assert record.metrics["ideal_hit_rate"] == record.metrics["hit_rate"]
    assert record.agents["outer_prefixes"].tolist() == ['[["system", 640]]'] * 3


def deep_trees(num_trees: int) -> Workload:
    """Each root waits for two children, and each of those for a grandchild and forks another beside it."""
    agents: list[AgentSpec] = []
    for _ in range(num_trees):
        root = make_agent(len(agents), [(900, 60), (300, 60), (300, 60)], wait_s=1.0)
        agents.append(root)
        for _ in range(2):
            middle = child(len(agents), [(900, 60), (300, 60)], root, 0)
            agents.append(middle)
            agents.append(child(len(agents), [(600, 60)], middle, 0, spawn_delay_s=0.1))
            agents.append(child(len(agents), [(100, 60)], middle, 0, joins=False, fork_tokens=960))
    return make_workload(*agents)


@pytest.mark.parametrize("num_gpu_blocks", [140, 600, 4001])
@pytest.mark.parametrize("kind", CATALOG)
def test_no_law_lets_a_tree_starve(kind: str, num_gpu_blocks: int) -> None:
    parameters = PARAMS.get(kind, {})
    scenario = make_scenario(
        controller={"kind": kind, "interval_s": 1.0, **parameters}, engine={"num_gpu_blocks": num_gpu_blocks}
    )
    workload = deep_trees(8)
    record = simulate(scenario, workload)
    assert len(record.agents) == len(workload.agents) == 56
    assert record.metrics["makespan_s"] < 600, "nobody waited for a lease or a starvation bound"


def test_a_cap_of_one_serves_whole_trees() -> None:
    scenario = make_scenario(controller={"kind": "agent_cap", "cap": 1, "interval_s": 1.0})
    record = simulate(scenario, deep_trees(3))
    assert len(record.agents) == 21
    calls = record.requests.sort_values("submitted_s")
    assert (calls["submitted_s"].to_numpy()[1:] >= calls["finished_s"].to_numpy()[:-1]).all()


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ({"parent": "nobody"}, "nobody starts it after step 0 of 'nobody'"),
        ({"parent_step": 7}, "nobody starts it after step 7"),
        ({"parent": "agent-1"}, "nobody starts it"),
        ({"fork_tokens": 111}, "fork_tokens = 111 but agent-0 has 110 tokens"),
        ({"spawn_delay_s": -1.0}, r"spawn_delay_s = -1.0 but must be finite"),
        ({"arrival_s": 3.0}, "parent_step needs a parent and no arrival_s"),
        ({"parent_step": None, "fork_tokens": 5}, "without a parent_step"),
        ({"fork_tokens": 5, "shared_prefix_tokens": 5}, "a fork has its parent's prefix"),
        ({"outer_prefixes": (Prefix("g", 5),)}, "outer prefixes of 5 tokens but prefix_group None"),
    ],
)
def test_families_that_cannot_be_are_refused(family: dict[str, Any], said: str) -> None:
    parent = make_agent(0, [(100, 10)])
    good = child(1, [(300, 20)], parent, 0)
    with pytest.raises(ScenarioError, match=said):
        make_workload(parent, replace(good, **family))


def test_who_starts_whom() -> None:
    families = Families(deep_trees(1))
    (root,) = families.roots()
    first, second = families.started_after(root.agent_id, 0)
    assert families.started_after(root.agent_id, 1) == []
    grandchild, fork = families.started_after(first.agent_id, 0)
    assert [each.agent_id for each in families.ancestors(grandchild)] == [first.agent_id, root.agent_id]
    assert families.is_forked(first.agent_id)
    assert not families.is_forked(root.agent_id)
    assert families.parent(fork) == first
    assert families.parent(root) is None
    assert second != first
