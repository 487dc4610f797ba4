"""Agents and workloads made by hand: what no engine could run is refused when it is put together."""

from dataclasses import replace
from typing import Any

import pytest

from concur.sim.errors import ScenarioError
from concur.sim.workload.spec import StepSpec
from concur.sim.world.simulate import simulate
from tests.helpers import make_agent, make_scenario, make_workload

GOOD = make_agent(3, [(50, 5), (20, 5)], group="g", shared=40)


def test_two_agents_of_one_name_or_number_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"two agents have agent_id 'agent-3'; give each its own"):
        make_workload(GOOD, replace(GOOD, index=4))
    with pytest.raises(ScenarioError, match=r"two agents have index 3; give each its own"):
        make_workload(GOOD, replace(GOOD, agent_id="other"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"agent_id": ""}, "agent_id is empty"),
        ({"index": -1}, "index = -1"),
        ({"prefix_group": ""}, "prefix_group is empty; name the group, or give None"),
        ({"shared_prefix_tokens": -1}, "shared_prefix_tokens = -1"),
        ({"arrival_s": float("nan")}, "arrival_s = nan"),
        ({"arrival_s": float("inf")}, "arrival_s = inf"),
        ({"steps": ()}, "has no steps"),
    ],
)
def test_an_agent_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        replace(GOOD, **change)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (StepSpec(96, 10, 5, 0.0), "step 1: kept_tokens = 96 but the history so far is 95"),
        (StepSpec(95, -1, 5, 0.0), "step 1: new_prompt_tokens = -1"),
        (StepSpec(0, 0, 5, 0.0), "step 1: new_prompt_tokens = 0"),
        (StepSpec(95, 10, 0, 0.0), "step 1: output_tokens = 0"),
        (StepSpec(95, 10, 5, float("nan")), "step 1: tool_latency_s = nan"),
    ],
)
def test_a_call_that_no_engine_could_serve_is_refused_before_the_run(step: StepSpec, said: str) -> None:
    agent = replace(GOOD, steps=(GOOD.steps[0], step, StepSpec(0, 1, 1, 0.0)))
    with pytest.raises(ScenarioError, match=said):
        simulate(make_scenario(), make_workload(agent))
