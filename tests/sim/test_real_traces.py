"""The shipped traces: they keep to the format, their README says what is in them, and they thrash."""

import pytest

from concur.sim.scenario.scenario import load_scenario
from concur.sim.traces.trace import read_trace
from concur.sim.workload.describe import QUANTILES, describe_trace
from concur.sim.world.simulate import simulate
from tests.helpers import ROOT, TRACES

FILES = ["lmcache_miniswe", "react_hotpotqa", "sweagent_demos", "tau_airline", "weka", "weka_trees"]


def test_the_traces_are_shipped_with_their_notices() -> None:
    assert sorted(path.name for path in TRACES.glob("*.gz")) == [f"{name}.jsonl.gz" for name in FILES]
    notice = (TRACES / "NOTICE").read_text(encoding="utf-8")
    assert all(f"{name}.jsonl.gz" in notice for name in FILES)
    assert "examples/traces/NOTICE" in (ROOT / "NOTICE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_every_trace_keeps_to_the_format_and_its_row_in_the_readme_is_right(name: str) -> None:
    agents = read_trace(TRACES / f"{name}.jsonl.gz")
    summary = describe_trace(agents)
    assert 0.5 < summary.ideal_hit_rate < 1.0
    (peaks,) = (row for row in summary.distributions if row.name == "peak context (tokens)")
    median, _, _, _, largest = peaks.quantiles[QUANTILES.index(0.5) :]
    num_calls = sum(len(agent.steps) for agent in agents)
    cells = (
        f"{len(agents)}, {sum(agent.fresh_start for agent in agents)}",
        f"{num_calls:,}",
        f"{median:,.0f} / {largest:,.0f}",
    )
    row = f"| `{name}.jsonl.gz` | {' | '.join(cells)} |"
    assert row in (TRACES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("example", "cap"), [("claude_code", 14), ("tau_airline", 40)])
def test_the_middle_collapses_without_control_and_a_cap_cures_it(example: str, cap: int) -> None:
    path = ROOT / "examples" / f"{example}.toml"
    none = simulate(load_scenario(path))
    capped = simulate(load_scenario(path, ["controller.kind=agent_cap", f"controller.cap={cap}"]))
    phases = none.metrics["phases"]
    assert phases["middle"]["hit_rate"] < phases["warm_up"]["hit_rate"] / 2
    assert phases["middle"]["end_s"] - phases["middle"]["start_s"] > 0.5 * none.metrics["makespan_s"]
    assert none.metrics["makespan_s"] > 1.25 * capped.metrics["makespan_s"]
    assert none.metrics["num_requests"] == capped.metrics["num_requests"]
