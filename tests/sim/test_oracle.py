"""The oracle finds the best static cap, and no run is made twice for it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from concur.cli import main
from concur.sim.lab.oracle import search_cap, search_static_cap
from concur.sim.runs.compare import Runs
from concur.sim.scenario.policy_texts import parse_controllers
from tests.helpers import make_scenario


class Valley:
    """Makespans that fall to one best cap and rise after it; counts how often each is asked for."""

    def __init__(self, best: int) -> None:
        self.best = best
        self.asked: list[int] = []

    def __call__(self, caps: Sequence[int]) -> dict[int, float]:
        self.asked += caps
        return {cap: float(self.best / cap if cap < self.best else cap / self.best) for cap in caps}


@pytest.mark.parametrize("num_agents", [1, 2, 3, 7, 100, 1000])
def test_the_search_finds_the_bottom_of_any_valley_and_asks_for_no_cap_twice(num_agents: int) -> None:
    for best in {1, 2, 3, num_agents // 3, num_agents // 2 + 1, num_agents - 1, num_agents}:
        if 1 <= best <= num_agents:
            valley = Valley(best)
            assert search_cap(num_agents, valley) == best
            assert len(set(valley.asked)) == len(valley.asked)
            assert all(1 <= cap <= num_agents for cap in valley.asked)
            assert len(valley.asked) <= 45


def test_of_equally_good_caps_the_smallest_is_taken() -> None:
    assert search_cap(64, lambda caps: {cap: max(1.0, 20 / cap) for cap in caps}) == 20


def test_it_is_the_best_of_all_caps_on_these_seeds() -> None:
    scenario = make_scenario(workload={"num_agents": 12}, engine={"num_gpu_blocks": 1601})
    runs = Runs(scenario, [0, 1])
    configs = parse_controllers("agent_cap=1..12", scenario.controller)
    means_s = {
        config.parameters["cap"]: sum(run.metrics["makespan_s"] for run in runs.of(config).values())
        for config in configs
    }
    assert search_static_cap(runs) == min(means_s, key=lambda cap: (means_s[cap], cap))


def test_the_best_cap_is_by_the_metric_asked_for_in_its_direction() -> None:
    runs = Runs(make_scenario(workload={"num_agents": 6}, engine={"num_gpu_blocks": 1601}), [0])
    assert search_static_cap(runs, "mean_active_agents") == 1
    assert search_static_cap(runs, "mean_active_agents", is_higher_better=True) > 1


def test_each_policy_runs_once_however_often_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(scenario: object, pairs: list[object], *more: object) -> list[object]:
        made.append(len(pairs))
        return []

    scenario = make_scenario(workload={"num_agents": 4, "mean_steps": 2})
    runs = Runs(scenario, [0, 1])
    none, cap = (parse_controllers(text, scenario.controller)[0] for text in ("none", "agent_cap=2"))
    first = runs.of(none)
    monkeypatch.setattr("concur.sim.runs.compare.run_pairs", counted)
    assert runs.of(none) == first
    assert len(list(runs.run([none, cap, none]))) == 2
    assert made == [0, 2]


def test_compare_takes_the_oracle_for_the_cap_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.toml").write_text(
        '[workload]\ngenerator = "react"\nnum_agents = 6\nmean_steps = 3\n'
        "[engine]\nnum_gpu_blocks = 601\nmax_model_len = 8192\n[compare]\nseeds = [0, 1]\n"
    )
    arguments = ["compare", str(tmp_path / "s.toml"), "--controllers", "none", "oracle", "agent_cap=1..6"]
    monkeypatch.setattr(sys, "argv", ["concur", *arguments])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr()
    said = printed.err.split("oracle: ")[-1]
    assert "in hindsight (simulated, seed 0, 1)" in said
    found = said.partition(",")[0]
    assert found.startswith("agent_cap=")
    assert f"{found} *" in printed.out, "the best of the fine sweep is the oracle's"
