"""Generators: seeded, independent per agent, and of the sizes that their sources give."""

from dataclasses import replace

import numpy as np
import pytest

from concur.sim.errors import ScenarioError
from concur.sim.scenario.build import build_workload
from concur.sim.workload.generators import Coding, React, generate_agents
from tests.helpers import make_scenario


def test_an_agent_does_not_depend_on_how_many_others_there_are() -> None:
    few = generate_agents(React(), name="react", num_agents=3, seed=7)
    many = generate_agents(React(), name="react", num_agents=30, seed=7)
    assert many[:3] == few
    assert generate_agents(React(), name="react", num_agents=3, seed=8) != few


def test_react_agents_end_near_the_papers_context() -> None:
    agents = generate_agents(React(), name="react", num_agents=2000, seed=0)
    peaks = np.array([agent.peak_context_tokens for agent in agents])
    steps = np.array([len(agent.steps) for agent in agents])
    assert abs(steps.mean() - 10) < 4 * steps.std() / len(agents) ** 0.5
    assert peaks.mean() == pytest.approx(5700, rel=0.06)


def test_coding_agents_have_the_medians_of_their_source_and_end_in_time() -> None:
    agents = generate_agents(Coding(), name="coding", num_agents=1000, seed=0)
    first = [agent.steps[0].new_prompt_tokens for agent in agents]
    outputs = [step.output_tokens for agent in agents for step in agent.steps]
    assert np.median(first) == pytest.approx(3680, rel=0.1)
    assert np.median(outputs) == pytest.approx(212, rel=0.05)
    assert max(agent.peak_context_tokens for agent in agents) <= 131_071


def test_poisson_arrivals_increase_at_the_given_rate_and_leave_the_agents_alone() -> None:
    batch = build_workload(make_scenario(workload={"num_agents": 500}))
    spread = build_workload(
        make_scenario(workload={"num_agents": 500, "arrival": {"process": "poisson", "rate_per_s": 2.0}})
    )
    arrivals = np.array([agent.arrival_s for agent in spread.agents])
    gaps = np.diff(arrivals)
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(0.5, abs=4 * 0.5 / 500**0.5)
    assert tuple(replace(agent, arrival_s=0.0) for agent in spread.agents) == batch.agents


def test_tool_waits_are_capped() -> None:
    workload = build_workload(
        make_scenario(workload={"max_tool_latency_s": 0.5, "tool_latency_median_s": 10.0})
    )
    waits = {step.tool_latency_s for agent in workload.agents for step in agent.steps}
    assert waits == {0.5}


def test_two_controllers_face_the_same_workload() -> None:
    one = make_scenario(controller={"kind": "none"})
    two = make_scenario(controller={"kind": "concur"})
    assert build_workload(one) == build_workload(two)


def test_an_agent_longer_than_the_model_or_the_pool_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"engine\.max_model_len = 4096; raise it"):
        build_workload(make_scenario(engine={"max_model_len": 4096}))
    with pytest.raises(ScenarioError, match=r"num_gpu_blocks = 100 holds 1584; set it to at least"):
        build_workload(make_scenario(engine={"num_gpu_blocks": 100}))
