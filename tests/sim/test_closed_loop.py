"""A closed loop keeps so many sessions running, trees and all, and begins none after its time."""

import pytest

from concur.sim.errors import ScenarioError
from concur.sim.record.record import RunRecord
from concur.sim.scenario.build import build_workload
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario

LOOP = {"process": "closed", "num_sessions": 3, "duration_s": 300.0}


def run(**arrival: float) -> RunRecord:
    return simulate(make_scenario(workload={"num_agents": 8, "arrival": LOOP | arrival}))


def test_as_one_ends_the_next_begins() -> None:
    agents = run(repeats=20).agents.sort_values("arrived_s")
    arrived_s, finished_s = agents["arrived_s"].tolist(), sorted(agents["finished_s"])
    assert arrived_s[:3] == [0, 0, 0]
    assert arrived_s[3:] == pytest.approx(finished_s[: len(arrived_s) - 3])
    assert 250 < arrived_s[-1] < 300 < finished_s[-1], "none begins later, and those that run end in peace"


def test_sessions_come_again_under_new_names_and_with_histories_of_their_own() -> None:
    record = run(repeats=20)
    assert {"react-0", "react-0~2"} <= set(record.agents["agent_id"])
    first_call = (
        record.requests[record.requests["call_index"] == 0].set_index("agent_index").to_dict("index")[8]
    )
    assert first_call["cached_tokens"] <= first_call["kept_tokens"]
    assert not any("closed loop" in each for each in record.run["warnings"])


def test_a_loop_that_runs_out_of_sessions_says_so() -> None:
    record = run(repeats=1, duration_s=3000.0)
    assert len(record.agents) == 8
    (said,) = (each for each in record.run["warnings"] if "closed loop" in each)
    assert "had no session left to begin" in said
    assert "raise workload.arrival.repeats" in said


def test_a_closed_loop_is_of_the_whole_workload() -> None:
    parts = [{"generator": "react", "num_agents": 2, "arrival": LOOP}]
    with pytest.raises(ScenarioError, match="of a whole workload, not of one of its"):
        build_workload(make_scenario(workload={"generator": None, "num_agents": 0, "parts": parts}))
