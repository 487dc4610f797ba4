"""What the comparison of the two worlds concludes, from records made by hand."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from concur.sim.record.record import RunRecord, write_record
from concur.sim.show.pages import table_rows
from concur.sim.world.simulate import simulate
from concur.validate.confront.confront import confront, confrontation_json, read_confrontation
from concur.validate.confront.confront_report import confrontation_table, write_confrontation
from concur.validate.confront.overlay import caps_figure
from concur.validate.confront.verdicts import Figure
from concur.validate.errors import ConfrontError, OutOfScopeError
from concur.validate.live.live_runs import load_worlds, plan
from concur.validate.live.scope import check_both_worlds
from tests.helpers import make_agent, make_scenario, make_workload

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
    with pytest.raises(ConfrontError, match="different experiments"):
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


RESULTS = Path(__file__).parents[2] / "validate" / "results"


@pytest.mark.parametrize("name", ["cpu_tiny", "cpu_tiny_laws"])
def test_committed_results_are_what_is_concluded_from_their_runs_today(name: str) -> None:
    path = RESULTS / name / "confrontation.json"
    assert json.loads(path.read_text()) == json.loads(
        json.dumps(confrontation_json(read_confrontation(path)))
    )


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
    scenario = make_scenario(engine={"num_gpu_blocks": 200})
    (missing,) = plan(tmp_path, scenario, AGENTS, controllers, repeats=2)
    assert (missing.controller.label, missing.folder.name) == ("concur", "run-1")
    page = write_confrontation(confront(ours, theirs), ours, theirs, tmp_path / "report")
    text = page.read_text()
    assert text.count("<img") == 1
    assert len(text) < 2_000_000
    assert len(list((tmp_path / "report").glob("over_time_*.png"))) == len(POLICIES)
    places = [text.index(each) for each in ('class="facts"', 'class="verdict"', "<table>", 'id="over-time"')]
    assert places == sorted(places), "header, verdict, numbers, plots: as on every other page"
    assert "largest error in makespan is" in text
    assert '"name": "live, first runs"' in text.replace('"name":"', '"name": "')
    assert (tmp_path / "report" / "overlay.png").stat().st_size > 10_000


def without(records: list[RunRecord], label: str, *names: str) -> list[RunRecord]:
    """The records, those of one policy without some of their metrics."""
    unknown = dict.fromkeys(names)
    return [
        replace(each, run=each.run | {"metrics": each.metrics | unknown}) if each.label == label else each
        for each in records
    ]


def test_a_hit_rate_that_was_not_measured_is_not_judged_and_named(
    simulated: list[RunRecord], tmp_path: Path
) -> None:
    records = without(live(simulated), "agent_cap=3", "hit_rate")
    result = confront(simulated, records)
    assert result.ok
    assert [each.label for each in result.policies if each.not_judged] == ["agent_cap=3"]
    assert "hit_rate not judged, because it was not measured live: agent_cap=3" in result.notes
    table = confrontation_table(result)
    cells = {row[0]: row[1:] for row in table_rows(table)}
    assert cells["agent_cap=3"][4:] == ["-", "-", "-", "ok, not all judged"]
    assert "all that was judged is within tolerance" in str(table.caption)
    given = json.loads(json.dumps(confrontation_json(result)))
    assert given["policies"]["agent_cap=3"]["hit_rate"] is None
    assert given["policies"]["agent_cap=3"]["not_judged"] == ["hit_rate"]
    path = tmp_path / "confrontation.json"
    path.write_text(json.dumps(given))
    assert read_confrontation(path) == result
    assert caps_figure(result).axes


def test_a_makespan_that_is_off_is_off_with_or_without_a_hit_rate(simulated: list[RunRecord]) -> None:
    records = without(live(simulated, agent_cap_2=(1.3, 1.3)), "agent_cap=2", "hit_rate")
    assert not confront(simulated, records).ok


def test_repeats_that_know_a_figure_stand_for_those_that_do_not(simulated: list[RunRecord]) -> None:
    records = live(simulated)
    first = next(place for place, each in enumerate(records) if each.label == "none")
    records[first] = without(records[first : first + 1], "none", "hit_rate")[0]
    (none, *_) = confront(simulated, records).policies
    assert none.figures["hit_rate"].live == (0.2,)
    assert none.not_judged == ()


def test_where_nothing_can_be_judged_there_is_no_verdict(simulated: list[RunRecord], tmp_path: Path) -> None:
    records = without(live(simulated), "concur", "hit_rate", "makespan_s")
    with pytest.raises(ConfrontError, match="nothing of concur can be judged"):
        confront(simulated, records)
    path = tmp_path / "confrontation.json"
    for text, told in (
        ('{"policies": {}}', "no policy to judge"),
        ('{"policies": {"none": {}}}', "nothing of"),
    ):
        path.write_text(text)
        with pytest.raises(ConfrontError, match=told):
            read_confrontation(path)


def test_a_page_of_runs_without_any_hit_rate_is_drawn(simulated: list[RunRecord], tmp_path: Path) -> None:
    ours, theirs = simulated[:1], live(simulated[:1])
    page = write_confrontation(
        confront(ours, without(theirs, "none", "hit_rate")), ours, theirs, tmp_path / "report"
    )
    assert "hit_rate not judged" in page.read_text()


def in_rounds(records: list[RunRecord], label: str, makespans_s: dict[int, float]) -> list[RunRecord]:
    """Runs of one policy, with their rounds."""
    one = next(each for each in records if each.label == label)
    return [
        replace(one, run=one.run | {"round": n, "metrics": one.metrics | {"makespan_s": makespan_s}})
        for n, makespan_s in makespans_s.items()
    ]


def test_speed_ups_are_paired_by_round_and_not_by_rank(simulated: list[RunRecord]) -> None:
    """In a slow round both are slow. Sorted makespans would say 2.0 twice of repeats that stray apart."""
    ours = [each for each in simulated if each.label in ("none", "concur")]
    live_runs = [
        *in_rounds(ours, "none", {0: 100.0, 1: 200.0}),
        *in_rounds(ours, "concur", {1: 100.0, 0: 50.0}),
    ]
    assert confront(ours, live_runs).speed_ups["concur"].live == (2.0, 2.0)
    straying = [
        *in_rounds(ours, "none", {0: 100.0, 1: 120.0}),
        *in_rounds(ours, "concur", {0: 60.0, 1: 50.0}),
    ]
    assert confront(ours, straying).speed_ups["concur"].live == pytest.approx((100 / 60, 120 / 50))


def test_unequal_repeats_are_all_used(simulated: list[RunRecord]) -> None:
    ours = [each for each in simulated if each.label in ("none", "concur")]
    live_runs = [
        *in_rounds(ours, "none", {0: 100.0}),
        *in_rounds(ours, "concur", {0: 50.0, 1: 40.0, 2: 80.0}),
    ]
    assert sorted(confront(ours, live_runs).speed_ups["concur"].live) == [1.25, 2.0, 2.5]


def test_runs_are_read_in_the_order_of_their_rounds(simulated: list[RunRecord], tmp_path: Path) -> None:
    write_record(simulated[0], tmp_path / "sim" / "none")
    for number in (10, 2, 0):
        write_record(simulated[0], tmp_path / "live" / "none" / f"run-{number}")
    _, theirs = load_worlds(tmp_path)
    assert [each.run["round"] for each in theirs] == [0, 2, 10]


def test_policies_of_different_experiments_are_refused(simulated: list[RunRecord]) -> None:
    records = live(simulated)
    other = make_scenario(seed=5, engine={"num_gpu_blocks": 200}, controller=POLICIES["concur"])
    changed = [
        replace(each, run=each.run | {"scenario": other.model_dump(mode="json")})
        for each in (*simulated, *records)
        if each.label == "concur"
    ]
    rest = [each for each in records if each.label != "concur"]
    with pytest.raises(ConfrontError, match="not of one experiment, seed is 5 there, 0 here"):
        confront([*simulated[:-1], changed[0]], [*rest, *changed[1:]])
    with pytest.raises(ConfrontError, match="concur ran different experiments in the two worlds, seed"):
        confront(simulated, [*rest, *changed[1:]])


def test_a_live_engine_that_is_not_the_scenarios_is_refused(simulated: list[RunRecord]) -> None:
    records = live(simulated)
    records[0] = replace(
        records[0], run=records[0].run | {"engine": {"block_size": 8, "num_gpu_blocks": 540}}
    )
    with pytest.raises(ConfrontError, match="block_size is 8, the scenario's 16; num_gpu_blocks is 540"):
        confront(simulated, records)


def test_what_was_not_checked_and_what_runs_warn_of_is_noted(simulated: list[RunRecord]) -> None:
    records = [replace(each, run=each.run | {"engine": {"block_size": 16}}) for each in live(simulated)]
    records[0] = replace(records[0], run=records[0].run | {"warnings": ["2 attempts of calls were repeated"]})
    records[1] = replace(records[1], run=records[1].run | {"git_commit": "f" * 40})
    notes = confront(simulated, records).notes
    assert any("not checked" in note and "max_num_seqs" in note for note in notes)
    assert "live: none: 2 attempts of calls were repeated" in notes
    assert any(note.startswith("simulated: step time is not calibrated") for note in notes)
    assert any("several commits" in note for note in notes)


def test_a_scenario_with_a_tenant_is_for_the_simulator_alone() -> None:
    check_both_worlds(make_scenario())
    tenant = {"num_requests": 2, "prompt_tokens": 100, "output_tokens": 10}
    with pytest.raises(OutOfScopeError, match=r"tenant\.num_requests = 2"):
        check_both_worlds(make_scenario(tenant=tenant))
