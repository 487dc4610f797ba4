"""What the comparison of the two worlds concludes, from records made by hand."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sim.driver import simulate
from sim.record import RunRecord, write_record
from tests.helpers import make_agent, make_scenario, make_workload
from validate.confront import Figure, confront, confrontation_json, read_confrontation
from validate.confront_report import write_confrontation
from validate.errors import ConfrontError, OutOfScopeError
from validate.live_runs import load_worlds, plan
from validate.overlay import caps_figure
from validate.scope import check_both_worlds

AGENTS = make_workload(*(make_agent(n, [(400, 20)] * 3, wait_s=0.5) for n in range(6)))
POLICIES: dict[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "agent_cap=2": {"kind": "agent_cap", "cap": 2},
    "agent_cap=3": {"kind": "agent_cap", "cap": 3},
    "agent_cap=5": {"kind": "agent_cap", "cap": 5},
    "concur": {"kind": "concur"},
}
MAKESPANS_S = {"none": 100.0, "agent_cap=2": 80.0, "agent_cap=3": 50.0, "agent_cap=5": 70.0, "concur": 60.0}
HIT_RATES = {"none": 0.2, "agent_cap=2": 0.8, "agent_cap=3": 0.8, "agent_cap=5": 0.5, "concur": 0.7}


def record(label: str, *, world: str = "sim", makespan_s: float, hit_rate: float) -> RunRecord:
    real = simulate(make_scenario(engine={"num_gpu_blocks": 200}, controller=POLICIES[label]), AGENTS)
    run = copy.deepcopy(real.run) | {"world": world, "complete": True}
    run["metrics"] |= {"makespan_s": makespan_s, "hit_rate": hit_rate}
    return replace(real, run=run)


@pytest.fixture(scope="module")
def simulated() -> list[RunRecord]:
    return [record(label, makespan_s=MAKESPANS_S[label], hit_rate=HIT_RATES[label]) for label in POLICIES]


def live(simulated: list[RunRecord], **factors: tuple[float, ...]) -> list[RunRecord]:
    """Two repeats of each policy, whose makespans are the simulated ones times the factors (1.0 and 1.02)."""
    records = []
    for each in simulated:
        for factor in factors.get(each.label.replace("=", "_"), (1.0, 1.02)):
            run = copy.deepcopy(each.run) | {"world": "live"}
            run["metrics"]["makespan_s"] *= factor
            records.append(replace(each, run=run))
    return records


def test_worlds_that_agree_are_ok(simulated: list[RunRecord]) -> None:
    result = confront(simulated, live(simulated))
    assert result.ok
    assert result.knees == (3, 3)
    assert [each.label for each in result.policies] == list(POLICIES)
    assert result.speed_ups["agent_cap=3"].simulated == pytest.approx(2.0)
    assert set(result.speed_ups) == {"agent_cap=3", "concur"}


def test_a_makespan_off_by_more_than_a_tenth_is_off_unless_the_engine_itself_strays_as_far(
    simulated: list[RunRecord],
) -> None:
    off = confront(simulated, live(simulated, agent_cap_2=(1.12, 1.13)))
    assert [each.label for each in off.policies if not each.is_right] == ["agent_cap=2"]
    assert not off.ok
    assert confront(simulated, live(simulated, agent_cap_2=(0.99, 1.3))).ok


def test_a_hit_rate_off_by_more_than_three_points_is_off(simulated: list[RunRecord]) -> None:
    records = live(simulated)
    for each in records:
        if each.label == "concur":
            each.run["metrics"]["hit_rate"] += 0.031
    result = confront(simulated, records)
    assert [each.label for each in result.policies if not each.is_right] == ["concur"]


def test_an_opposite_order_is_named_where_the_repeats_leave_no_doubt(simulated: list[RunRecord]) -> None:
    result = confront(simulated, live(simulated, agent_cap_3=(1.3, 1.3)))  # 65 s, behind concur's 60
    assert result.misranked == (("agent_cap=3", "concur"),)
    assert confront(simulated, live(simulated, agent_cap_3=(0.9, 1.3))).misranked == ()


def test_the_knee_may_be_at_a_neighbour_but_no_farther(simulated: list[RunRecord]) -> None:
    neighbour = confront(simulated, live(simulated, agent_cap_5=(0.6, 0.6)))
    assert neighbour.knees == (3, 5)
    assert neighbour.is_knee_right
    factors = {"agent_cap_2": (0.5, 0.5), "agent_cap_5": (0.6, 0.6)}  # live, cap 2 is best, then 5, then 3
    swapped = confront(simulated, live(simulated, **factors | {"agent_cap_3": (0.9, 0.9)}))
    assert swapped.knees == (3, 2)
    assert swapped.is_knee_right
    at_the_end = confront(
        [*simulated[:1], *live(simulated[1:2], agent_cap_2=(0.5,)), *simulated[2:]],
        live(simulated, agent_cap_5=(0.6, 0.6)),
    )
    assert at_the_end.knees == (2, 5)
    assert not at_the_end.is_knee_right


def test_a_speed_up_off_by_more_than_a_tenth_is_not_ok(simulated: list[RunRecord]) -> None:
    result = confront(simulated, live(simulated, none=(0.92, 0.92), agent_cap_3=(1.08, 1.08)))
    assert all(each.is_right for each in result.policies)
    assert not result.ok


def test_what_cannot_be_compared_is_refused(simulated: list[RunRecord]) -> None:
    records = live(simulated)
    with pytest.raises(ConfrontError, match="no live run"):
        confront(simulated, [])
    with pytest.raises(ConfrontError, match="none ran live but was not simulated"):
        confront(simulated[1:], records)
    records[0].run["complete"] = False
    with pytest.raises(ConfrontError, match="is not complete"):
        confront(simulated, records)
    records = live(simulated)
    records[0].run["workload"] = {"source": "other", "sha256": None}
    with pytest.raises(ConfrontError, match="different workloads"):
        confront(simulated, records)


def test_the_json_names_both_worlds_and_a_top_level_ok(simulated: list[RunRecord]) -> None:
    result = json.loads(json.dumps(confrontation_json(confront(simulated, live(simulated)))))
    assert result["ok"] is True
    makespan = result["policies"]["none"]["makespan_s"]
    assert makespan["simulated"] == 100.0
    assert makespan["live"] == pytest.approx(101.0)
    assert makespan["live_runs"] == [100.0, 102.0]
    assert result["knee"] == {"simulated": 3, "live": 3, "ok": True}


def test_a_written_result_is_read_back_and_drawn(simulated: list[RunRecord], tmp_path: Path) -> None:
    result = confront(simulated, live(simulated))
    path = tmp_path / "confrontation.json"
    path.write_text(json.dumps(confrontation_json(result)))
    assert read_confrontation(path) == result
    assert [len(ax.get_lines()) for ax in caps_figure(read_confrontation(path)).axes] == [4 + 2 * 3] * 2
    for text in ("{", "[]", "{}", '{"policies": {"none": {"makespan_s": 3}}}'):
        path.write_text(text)
        with pytest.raises(ConfrontError, match="not a confrontation"):
            read_confrontation(path)


def test_an_error_of_nothing_is_no_error() -> None:
    assert Figure(0.0, (0.0, 0.0)).error_frac == 0.0
    assert Figure(1.0, (0.0,)).error_frac == 1.0


def test_records_are_found_planned_and_drawn(simulated: list[RunRecord], tmp_path: Path) -> None:
    with pytest.raises(ConfrontError, match="no record in sim"):
        load_worlds(tmp_path)
    for each in simulated:
        write_record(each, tmp_path / "sim" / each.label)
    records = live(simulated)
    for number, each in enumerate(records[:-1]):  # the last one is still missing
        write_record(each, tmp_path / "live" / each.label / f"run-{number % 2}")
    ours, theirs = load_worlds(tmp_path)
    assert (len(ours), len(theirs)) == (5, 9)
    controllers = [make_scenario(controller=policy).controller for policy in POLICIES.values()]
    (missing,) = plan(tmp_path, controllers, repeats=2)
    assert (missing.controller.label, missing.folder.name) == ("concur", "run-1")
    page = write_confrontation(confront(ours, theirs), ours, theirs, tmp_path / "report")
    assert page.read_text().count("<img") == 1 + len(POLICIES)
    assert (tmp_path / "report" / "overlay.png").stat().st_size > 10_000


def test_a_scenario_with_a_tenant_is_for_the_simulator_alone() -> None:
    check_both_worlds(make_scenario())
    tenant = {"num_requests": 2, "prompt_tokens": 100, "output_tokens": 10}
    with pytest.raises(OutOfScopeError, match=r"tenant\.num_requests = 2"):
        check_both_worlds(make_scenario(tenant=tenant))
