"""The report's page: it needs nothing but itself, says first what came of the runs, and shows all of them."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import by_policy
from concur.sim.runs.policies import of_one_workload
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.show.engines_table import engines_tables
from concur.sim.show.facts import facts, facts_of, planned
from concur.sim.show.front import seeds_verdict, verdict
from concur.sim.show.glossary import glossary
from concur.sim.show.pages import as_script, page_text, table_rows
from concur.sim.show.plot_data import plot_data, point_data
from concur.sim.show.report import write_report
from concur.sim.show.seeds_report import write_seeds_page
from concur.sim.show.tables import comparison_table, interval_table, phase_table
from concur.sim.world.simulate import simulate
from docs.check import loads_from_elsewhere
from tests.helpers import leave_figures_empty, make_scenario

MOST_BYTES = 2_000_000
TIGHT = {"engine": {"num_gpu_blocks": 801}, "workload": {"num_agents": 24}}


def runs_of(*policies: str, seed: int = 0) -> list[RunRecord]:
    scenario = make_scenario(seed=seed, **TIGHT)
    chosen = [each for policy in policies for each in parse_controllers(policy, scenario.controller)]
    return of_one_workload([simulate(scenario.with_controller(each)) for each in chosen])


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    return runs_of("none", "request_cap=4", "agent_cap=2,4,8", "concur", "twin")


@pytest.fixture(scope="module")
def page(records: list[RunRecord], tmp_path_factory: pytest.TempPathFactory) -> str:
    warned = [replace(record, run=record.run | {"warnings": ["a warning: 1"]}) for record in records]
    with pytest.MonkeyPatch.context() as monkeypatch:
        leave_figures_empty(monkeypatch)
        return write_report(warned, tmp_path_factory.mktemp("report")).read_text(encoding="utf-8")


def with_makespan(record: RunRecord, label: str, makespan_s: float) -> RunRecord:
    metrics = record.metrics | {"makespan_s": makespan_s}
    return replace(record, run=record.run | {"label": label, "metrics": metrics})


def test_the_page_loads_nothing(page: str) -> None:
    assert list(loads_from_elsewhere(page)) == []
    assert "http" not in page
    assert "data:image" not in page


def test_every_table_is_on_the_page(page: str, records: list[RunRecord]) -> None:
    headings = set(re.findall(r'<th scope="col">([^<]+)</th>', page))
    for table in (comparison_table(records), phase_table(records)):
        assert {str(column.header) for column in table.columns} <= headings
    assert {"useful prefill", "decode", "idle"} <= headings
    assert page.count("<table>") == 3


def test_a_run_of_a_fleet_says_what_each_engine_did(tmp_path: Path) -> None:
    record = simulate(make_scenario(**TIGHT, fleet={"num_engines": 2, "gate": "per_engine"}))
    page = write_report([record], tmp_path).read_text(encoding="utf-8")
    (table,) = engines_tables([record])
    rows = table_rows(table)
    assert [row[2] for row in rows] == [f"{each['num_requests']:,}" for each in record.metrics["engines"]]
    assert "<dd>2 x vLLM" in page
    assert 'aria-label="engines"' in page
    assert html.escape(str(table.caption)) in page
    assert not list(engines_tables([simulate(make_scenario())]))


def test_the_verdict_comes_first_and_one_warning_last(page: str) -> None:
    places = [
        page.index(words) for words in ('class="facts"', 'class="verdict"', "<table>", 'class="warning"')
    ]
    assert places == sorted(places)
    assert page.count("a warning: 1") == 1
    assert page.index("</main>") > places[-1] > page.rindex("</details>")


def test_all_policies_are_there_and_those_that_matter_are_on(records: list[RunRecord]) -> None:
    (group,) = plot_data({"0": records})
    assert [run["label"] for run in group["runs"]] == [record.label for record in records]
    on = {run["label"] for run in group["runs"] if run["on"]}
    assert {"none", "concur", "twin"} < on
    assert len(on) == 4, "and the best cap"
    assert len({run["colours"] for run in group["runs"]}) == len(records)


def test_a_line_ends_with_its_run_and_lies_on_the_samples(records: list[RunRecord]) -> None:
    (group,) = plot_data({"0": records})
    assert group["t"] == sorted(group["t"])
    for run, record in zip(group["runs"], records, strict=True):
        end_s = record.metrics["makespan_s"]
        known = [t for t, value in zip(group["t"], run["series"]["usage"], strict=True) if value is not None]
        assert known
        assert max(known) <= end_s + 0.01
        assert (
            max(run["series"]["active"], key=lambda value: value or 0)
            == record.timeline["agents_active"].max()
        )
        assert sum(run["split"].values()) == pytest.approx(end_s, abs=0.01)


def test_what_a_page_holds_stays_below_its_bound_whatever_is_compared(records: list[RunRecord]) -> None:
    many = [with_makespan(records[0], f"policy {number}", 100.0) for number in range(40)]
    runs = plot_data({f"{seed}": many for seed in range(5)})
    assert len(page_text("many", "", runs=runs).encode()) < MOST_BYTES


def test_a_grid_point_is_a_curve_over_caps_and_what_stands_beside_it() -> None:
    means = {"none": 90.0, "agent_cap=16": 50.126, "agent_cap=8": 70.0, "twin": None, "concur+fresh": 60.0}
    (point,) = point_data({"a point": means})
    assert point["caps"] == [(8, 70.0), (16, 50.13)]
    assert [(label, mean_s) for label, mean_s, _ in point["others"]] == [
        ("none", 90.0),
        ("concur+fresh", 60.0),
    ]
    assert point_data({"a point": {"none": 90.0, "agent_cap=8": 70.0}}) == [], "one cap is no curve"


def test_a_name_cannot_end_the_script_that_holds_it() -> None:
    text = as_script("runs", {"label": "</script><script>alert(1)</script>"})
    assert text.count("</script>") == 1
    (inner,) = re.findall(r">(.*)</script>", text)
    assert json.loads(inner)["label"].startswith("</script>")


@pytest.mark.parametrize(
    ("makespans", "words"),
    [
        (
            {"none": 100.0, "agent_cap=4": 50.0, "twin": 40.0},
            "the best static cap (agent_cap=4) takes 50 s (2.00",
        ),
        ({"none": 100.0, "agent_cap=4": 50.0, "twin": 40.0}, "twin takes 40 s (2.50 times as fast)"),
        ({"none": 100.0, "agent_cap=4": 99.0}, "leave control off"),
        ({"agent_cap=4": 99.0, "concur": 70.0}, "concur is the fastest: 70 s. No run was without control."),
    ],
)
def test_the_verdict_is_a_sentence(makespans: dict[str, float], words: str, records: list[RunRecord]) -> None:
    by_label = {record.label: record for record in records}
    assert words in verdict([with_makespan(by_label[name], name, each) for name, each in makespans.items()])


def test_the_verdict_of_one_run_says_when_histories_outgrew_the_pool(records: list[RunRecord]) -> None:
    assert "histories outgrew the pool from" in verdict(records[:1])


def test_an_incomplete_run_is_no_verdict(records: list[RunRecord]) -> None:
    broken = replace(records[0], run=records[0].run | {"complete": False})
    assert verdict([broken]) == "No run came to its end."


def test_the_facts_name_model_machine_and_pool() -> None:
    scenario = make_scenario(step_time={"profile": "h100-sxm_qwen3-32b_tp2"}, engine={"num_gpu_blocks": 2001})
    found = facts([simulate(scenario)])
    assert found["model"] == "Qwen/Qwen3-32B"
    assert found["engine"].startswith("vLLM 0.32")
    assert found["GPU"] == "2 x h100_sxm"
    assert found["pool"] == "32,000 tokens (2,001 blocks of 16)"
    assert found["agents"] == "8 of react"


@pytest.mark.parametrize(
    ("engine", "fleet", "told"),
    [
        (
            {"kind": "sglang", "max_total_num_tokens": 9000, "release": "0.5"},
            {},
            ("SGLang 0.5", "9,000 tokens"),
        ),
        (
            {"num_gpu_blocks": 100, "block_size": 16, "release": "0.33"},
            {"num_engines": 4},
            ("4 x vLLM 0.33", None),
        ),
        (
            {"num_gpu_blocks": 100, "kv_cache_groups": [{}, {}]},
            {},
            (None, "100 blocks for 2 groups of layers"),
        ),
    ],
)
def test_the_facts_know_other_engines(
    engine: dict[str, Any],
    fleet: dict[str, int],
    told: tuple[str | None, str | None],
    records: list[RunRecord],
) -> None:
    scenario = records[0].run["scenario"] | {"engine": engine, "fleet": fleet}
    found = facts([replace(records[0], run=records[0].run | {"scenario": scenario})])
    for name, expected in zip(("engine", "pool"), told, strict=True):
        assert expected is None or found[name] == expected


def test_the_facts_of_many_settings_name_what_differs_and_count_the_rest() -> None:
    plans = [
        run
        for blocks in (601, 701, 801, 901, 1001)
        for run in planned(
            make_scenario(engine={"num_gpu_blocks": blocks}),
            {
                seed: build_workload(make_scenario(seed=seed, workload={"num_agents": 4 + seed}))
                for seed in (0, 3)
            },
        )
    ]
    found = facts_of(plans)
    assert found["pool"].startswith("9,600 tokens (601 blocks of 16), 11,200 tokens")
    assert found["pool"].endswith("(901 blocks of 16) and 1 more")
    assert (found["agents"], found["seeds"], found["world"]) == ("4, 7 of react", "0, 3", "sim")
    assert found["engine"].startswith("vLLM 0.32")
    many = [run | {"metrics": {"num_agents": number}} for number, run in enumerate(plans, 1)]
    assert facts_of(many)["agents"] == "1 to 10 of react"


def test_every_heading_is_explained(records: list[RunRecord]) -> None:
    words = glossary()
    runs = by_policy(records)
    headings: set[Any] = set()
    for table in (comparison_table(records), interval_table(runs)):
        headings |= {str(column.header) for column in table.columns}
    assert headings <= set(words), headings - set(words)
    assert set(facts(records)) <= set(words)


def test_a_page_over_seeds_can_switch_between_them(tmp_path: Path) -> None:
    own = [record for seed in (0, 1) for record in runs_of("none", "agent_cap=4", seed=seed)]
    text = write_seeds_page(own, tmp_path / "r").read_text(encoding="utf-8")
    (inner,) = re.findall(r'id="runs">(.*?)</script>', text)
    assert [group["name"] for group in json.loads(inner)] == ["0", "1"]
    assert "the best static cap, agent_cap=4" in seeds_verdict(by_policy(own))
    assert "seeds 0, 1" in text
