"""Why a policy is off: each cause, made by hand in a copy of a simulated run, is the one that is named."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from concur.sim.record.record import RunRecord
from concur.sim.world.simulate import simulate
from concur.validate.confront.confront import confront
from concur.validate.confront.confront_report import confrontation_table
from concur.validate.confront.reasons import pace
from concur.validate.confront.verdicts import PolicyVerdict
from tests.helpers import make_agent, make_scenario, make_workload, with_frames

AGENTS = make_workload(*(make_agent(n, [(400, 20)] * 3, wait_s=0.5) for n in range(6)))


@pytest.fixture(scope="module")
def simulated() -> RunRecord:
    return simulate(make_scenario(engine={"num_gpu_blocks": 900}), AGENTS)


def live(
    record: RunRecord, *, steps: float = 1.0, pauses: float = 1.0, prefill: float = 1.0, **run: Any
) -> RunRecord:
    """The run again, with times of its calls stretched; `makespan` and `hits` go into the metrics."""
    rows = []
    for _, calls in record.requests.groupby("agent_index"):
        ready_s = 0.0
        for call in calls.sort_values("call_index").to_dict("records"):
            first_s = ready_s + prefill * (call["first_token_s"] - call["submitted_s"])
            finished_s = first_s + steps * (call["finished_s"] - call["first_token_s"])
            rows.append(call | dict.fromkeys(("ready_s", "submitted_s", "scheduled_s"), ready_s))
            rows[-1] |= {"first_token_s": first_s, "finished_s": finished_s}
            ready_s = finished_s + pauses * 0.5
    metrics = dict(record.metrics)
    metrics["makespan_s"] *= run.pop("makespan", 1.0)
    metrics["hit_rate"] = run.pop("hits", metrics["hit_rate"])
    metrics["ideal_hit_rate"] = run.pop("ideal", metrics["ideal_hit_rate"])
    changed = {"world": "live", "complete": True, "metrics": metrics, "engine": {"num_gpu_blocks": 900}}
    frame = pd.DataFrame(rows).astype(record.requests.dtypes)
    return with_frames(replace(record, run=record.run | changed | run), requests=frame)


def verdict(simulated: RunRecord, *runs: RunRecord) -> PolicyVerdict:
    (policy,) = confront([simulated], runs).policies
    return policy


def test_the_pace_is_that_of_the_calls(simulated: RunRecord) -> None:
    same, slow = pace(live(simulated)), pace(live(simulated, steps=3.0, pauses=2.0, prefill=4.0))
    assert slow.token_s == pytest.approx(3 * same.token_s)
    assert slow.between_s == pytest.approx(1.0)
    assert slow.first_token_s == pytest.approx(4 * same.first_token_s)
    assert same.token_s == pytest.approx(pace(simulated).token_s)


def test_slow_steps_are_named_with_the_remedy(simulated: RunRecord) -> None:
    (reason,) = verdict(simulated, live(simulated, steps=3.1, makespan=2.9)).reasons
    assert "steps took 3.10x the simulated time" in reason
    assert "recalibrate the step-time profile on this server, or quiet the machine" in reason


def test_fast_steps_ask_for_a_calibration_only(simulated: RunRecord) -> None:
    (reason,) = verdict(simulated, live(simulated, steps=0.5, makespan=0.6)).reasons
    assert "steps took 0.50x" in reason
    assert "quiet" not in reason


def test_a_slow_prefill_and_a_slow_client_are_told_apart(simulated: RunRecord) -> None:
    (reason,) = verdict(simulated, live(simulated, prefill=2.0, makespan=1.5)).reasons
    assert "2.00x the simulated time for their first token" in reason
    (reason,) = verdict(simulated, live(simulated, pauses=1.6, makespan=1.5)).reasons
    assert "agents took 1.60x the simulated time between calls" in reason


def test_fewer_hits_at_the_right_pace_are_the_caches(simulated: RunRecord) -> None:
    (reason,) = verdict(simulated, live(simulated, hits=0.1)).reasons
    assert "the cache gave 10.0 %" in reason
    assert "at the right pace" in reason
    assert "num_gpu_blocks 900" in reason


def test_a_cache_that_lost_nothing_is_larger_than_the_scenarios(simulated: RunRecord) -> None:
    ideal = simulated.metrics["ideal_hit_rate"]
    small = replace(simulated, run=simulated.run | {"metrics": simulated.metrics | {"hit_rate": 0.1}})
    (reason,) = verdict(small, live(simulated, hits=ideal)).reasons
    assert "it lost nothing, so its pool is larger" in reason


def test_fewer_hits_at_another_pace_follow_from_the_pace(simulated: RunRecord) -> None:
    reasons = verdict(simulated, live(simulated, steps=3.0, hits=0.1, makespan=3.0)).reasons
    assert len(reasons) == 2
    assert "steps took" in reasons[0]
    assert "first mend the pace" in reasons[1]


def test_other_callers_are_the_first_reason(simulated: RunRecord) -> None:
    foreign = {"prompt": 90_000, "generated": 400}
    reasons = verdict(simulated, live(simulated, steps=2.0, makespan=2.0, foreign_tokens=foreign)).reasons
    assert "someone else used the server: it counted 90,000 prompt" in reasons[0]


def test_repeats_that_do_not_meet_each_other_are_told(simulated: RunRecord) -> None:
    length_s = simulated.metrics["makespan_s"]
    off = verdict(simulated, live(simulated, makespan=1.5), live(simulated, makespan=2.0))
    assert f"{1.5 * length_s:,.1f} to {2 * length_s:,.1f} s" in off.reasons[0]
    right_by_luck = verdict(simulated, live(simulated, makespan=0.9), live(simulated, makespan=1.6))
    assert right_by_luck.is_right
    assert "the engine does not repeat itself" in right_by_luck.reasons[0]


def test_a_policy_that_is_right_needs_no_reason(simulated: RunRecord) -> None:
    assert verdict(simulated, live(simulated), live(simulated, makespan=1.04)).reasons == ()


def test_where_no_part_of_a_call_is_off_that_is_said(simulated: RunRecord) -> None:
    (reason,) = verdict(simulated, live(simulated, makespan=1.3)).reasons
    assert "call by call the worlds agree (per decoded token 1.00x" in reason


def test_reasons_stand_under_the_table(simulated: RunRecord) -> None:
    result = confront([simulated], [live(simulated, steps=3.1, makespan=2.9)])
    caption = str(confrontation_table(result).caption)
    assert "none: steps took 3.10x" in caption


def test_times_that_were_not_recorded_are_no_reason(simulated: RunRecord) -> None:
    run = live(simulated, makespan=1.3)
    unknown = run.requests.assign(first_token_s=float("nan"))
    (reason,) = verdict(simulated, with_frames(run, requests=unknown)).reasons
    assert "per decoded token not known" in reason
