"""Means over seeds and their intervals, against numbers from a book and by hand."""

import json
from pathlib import Path

import pytest

from concur.sim.runs.compare import Runs, by_policy
from concur.sim.runs.intervals import best_static_label, mean_interval, metric_interval, speed_up, summary
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.scenario.scenario import load_scenario
from concur.sim.show.tables import interval_table
from tests.helpers import make_scenario

FAMILIES = sorted((Path(__file__).parents[2] / "examples" / "families").glob("*.toml"))


def test_students_interval_of_a_known_sample() -> None:
    # mean 3, s = sqrt(2.5), n = 5; t(4) = 2.776 and t(59) = 2.001 are of printed tables
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert interval.mean == 3.0
    assert interval.half_width == pytest.approx(2.776 * (2.5 / 5) ** 0.5, rel=3e-4)
    assert mean_interval([7.0]).half_width is None
    assert mean_interval([0.0, 1.0] * 30).half_width == pytest.approx(2.001 * (15 / 59 / 60) ** 0.5, rel=3e-4)


def test_speed_ups_are_paired_by_seed() -> None:
    scenario = make_scenario(workload={"num_agents": 12}, engine={"num_gpu_blocks": 1601})
    configs = [
        config
        for text in ("none", "agent_cap=2..6..2", "hybrid")
        for config in parse_controllers(text, scenario.controller)
    ]
    runs = by_policy(Runs(scenario, [0, 1, 2]).run(configs))
    assert list(runs) == ["none", "agent_cap=2", "agent_cap=4", "agent_cap=6", "hybrid"]
    assert all(list(own) == [0, 1, 2] for own in runs.values())
    for seed in (0, 1, 2):
        assert len({run.metrics["generated_tokens"] for run in (own[seed] for own in runs.values())}) == 1
    makespans = {label: [run.metrics["makespan_s"] for run in own.values()] for label, own in runs.items()}
    ratios = [a / b for a, b in zip(makespans["none"], makespans["hybrid"], strict=True)]
    assert speed_up(runs["hybrid"], runs["none"]).mean == pytest.approx(sum(ratios) / 3)
    best = best_static_label(runs)
    assert sum(makespans[str(best)]) == min(sum(makespans[f"agent_cap={cap}"]) for cap in (2, 4, 6))
    interval = metric_interval(runs["none"], "agent_latency_s.p99")
    assert interval is not None
    assert interval.half_width is not None
    table = json.loads(json.dumps(summary(runs)))
    assert table[str(best)]["speed_up_over_best_static"] == {"mean": 1.0, "half_width": 0.0}
    assert interval_table(runs).row_count == 5


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.stem)
def test_the_families_load_and_fit(path: Path) -> None:
    scenario = load_scenario(path)
    assert "hybrid" in scenario.compare.controllers
    assert len(scenario.compare.seeds) == 10
    assert build_workload(scenario).agents
