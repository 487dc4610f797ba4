"""A comparison runs each policy as it runs alone, whatever law the scenario itself names."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from concur.controllers import CATALOG
from concur.sim.errors import ScenarioError
from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import Runs, policies, run_policies
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.world.simulate import simulate
from tests.helpers import concur, make_scenario

TABLES = ("requests", "agents", "ticks", "timeline")
ODD: dict[str, dict[str, Any]] = {
    "none": {},
    "request_cap": {"cap": 3},
    "agent_cap": {"cap": 5},
    "concur": {"alpha": 7, "initial_window": 3},
    "ledger": {"tool_weight": 0.3, "initial_window": 9},
    "turnover": {"initial_window": 2},
    "vegas": {"probe_ticks": 3, "initial_window": 5},
    "gradient": {"initial_window": 4},
    "hybrid": {"window_s": 7.0, "initial_window": 6, "max_window": 11},
    "twin": {"plan_every_s": 7.0, "initial_window": 6},
    "fleet_twin": {"plan_every_s": 7.0, "initial_window": 6},
}


def text_of(kind: str) -> str:
    return f"{kind}=2" if "cap" in kind else kind


def scenario_under(kind: str, **controller: Any) -> Scenario:
    return make_scenario(
        workload={"num_agents": 10, "mean_steps": 4},
        engine={"num_gpu_blocks": 801},
        controller={"kind": kind} | controller,
    )


def alone(kind: str) -> Scenario:
    return scenario_under(kind, **({"cap": 2} if "cap" in kind else {}))


def assert_same_tables(one: RunRecord, other: RunRecord) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)


def test_the_odd_parameters_are_of_every_law() -> None:
    assert set(ODD) == set(CATALOG)


@pytest.mark.parametrize("interval_s", [0.7, 1.0, 5.0])
@pytest.mark.parametrize("base", list(CATALOG))
def test_no_parameter_of_the_scenarios_law_reaches_another(base: str, interval_s: float) -> None:
    scenario = scenario_under(base, interval_s=interval_s, **ODD[base])
    for kind in set(CATALOG) - {base}:
        (config,) = scenario.policies(text_of(kind))
        assert config == alone(kind).controller, f"{kind} beside {base}"


@pytest.mark.parametrize("base", ["hybrid", "concur"])
def test_every_run_of_a_comparison_is_the_run_alone_byte_for_byte(base: str) -> None:
    """Hybrid's interval is 1 s by itself, as nobody asked for it; 5 s, asked for, is concur's own."""
    scenario = scenario_under(base, **(ODD[base] if base == "hybrid" else {"interval_s": 5.0}))
    kinds = sorted(set(CATALOG) - {base})
    chosen = policies(scenario, [text_of(kind) for kind in kinds], num_agents=10)
    records = {record.label: record for record in run_policies(scenario, chosen)}
    assert set(records) == set(map(text_of, kinds))
    for kind in kinds:
        assert_same_tables(records[text_of(kind)], simulate(alone(kind)))


def test_parameters_of_the_scenarios_law_stay_with_it() -> None:
    scenario = scenario_under("concur", interval_s=2.0, **ODD["concur"])
    (guarded,) = scenario.policies("concur+app_limited")
    assert guarded.parameters == scenario.controller.parameters
    assert guarded.wrappers == ("app_limited",)


def test_one_interval_for_all_is_asked_for_in_compare_and_recorded() -> None:
    raw = scenario_under("hybrid", interval_s=3.0).model_dump()
    scenario = Scenario.model_validate(raw | {"compare": {"interval_s": 0.5}})
    configs = [config for kind in CATALOG for config in scenario.policies(text_of(kind))]
    assert {config.interval_s for config in configs} == {0.5}
    (record,) = run_policies(scenario, scenario.policies("concur"))
    assert record.run["scenario"]["controller"]["parameters"]["interval_s"] == 0.5
    assert record.ticks["t_s"].tolist()[:3] == [0.5, 1.0, 1.5]
    assert_same_tables(record, simulate(scenario_under("concur", interval_s=0.5)))


def test_an_interval_for_all_is_checked() -> None:
    with pytest.raises(ScenarioError, match=r"compare\.interval_s = 0\b"):
        make_scenario(compare={"interval_s": 0})


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["none", "none"], "none is named twice, by none;"),
        (["agent_cap=2,4,2"], "agent_cap=2 is named twice, by agent_cap=2,4,2;"),
        (
            ["agent_cap=2..8..2", "hybrid", "agent_cap=4"],
            "agent_cap=4 is named twice, by agent_cap=2..8..2 and",
        ),
        (["oracle", "oracle"], "oracle is named twice"),
        (["oracle", "none", "none"], "none is named twice"),
    ],
)
def test_a_policy_named_twice_is_refused_before_anything_runs(
    texts: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*args: object, **options: object) -> None:
        raise AssertionError("ran")

    (tmp_path / "s.toml").write_text(
        '[workload]\ngenerator = "react"\nnum_agents = 6\n'
        "[engine]\nnum_gpu_blocks = 601\nmax_model_len = 8192\n"
    )
    monkeypatch.setattr("concur.sim.runs.compare.run_pairs", never)
    out = tmp_path / "out"
    arguments = ["compare", str(tmp_path / "s.toml"), "--out", str(out), "--controllers", *texts]
    assert concur(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert not out.exists()


def test_the_policies_of_a_file_are_named_once_too() -> None:
    scenario = make_scenario(compare={"controllers": ["concur", "none", "concur"]})
    with pytest.raises(ScenarioError, match="concur is named twice"):
        policies(scenario, [], num_agents=8)


def test_variants_of_a_law_are_policies_of_their_own() -> None:
    chosen = policies(
        make_scenario(), ["concur", "concur+fresh", "agent_cap=2", "request_cap=2"], num_agents=8
    )
    assert [config.label for config in chosen] == ["concur", "concur+fresh", "agent_cap=2", "request_cap=2"]


def test_runs_are_kept_by_all_that_makes_them_not_by_their_label() -> None:
    runs = Runs(make_scenario(workload={"num_agents": 2, "mean_steps": 2}), [0])
    one, other = (ControllerConfig(kind="concur", parameters={"interval_s": each}) for each in (1.0, 2.0))
    assert one.label == other.label
    assert len(list(runs.run([one, other]))) == 2
