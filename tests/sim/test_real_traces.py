"""Real traces, where they are at hand (`CONCUR_TRACES`, else ../shared/traces beside the checkout)."""

import os
from pathlib import Path

import pytest

from sim.driver import simulate
from sim.scenario import load_scenario
from sim.workload.describe import describe_trace
from sim.workload.trace import read_trace

ROOT = Path(__file__).parents[2]
TRACES = Path(os.environ.get("CONCUR_TRACES", ROOT.parent / "shared" / "traces"))
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no traces in {TRACES}")


@needs_traces
@pytest.mark.parametrize("path", sorted(TRACES.glob("*.jsonl.gz")), ids=lambda path: path.name)
def test_every_trace_keeps_to_the_format(path: Path) -> None:
    summary = describe_trace(read_trace(path))
    assert summary.num_agents >= 20
    assert 0.5 < summary.ideal_hit_rate < 1.0


@needs_traces
@pytest.mark.parametrize(
    ("example", "trace", "cap"),
    [("claude_code", "weka.jsonl.gz", 14), ("tau_airline", "tau_airline.jsonl.gz", 40)],
)
def test_the_middle_collapses_without_control_and_a_cap_cures_it(example: str, trace: str, cap: int) -> None:
    base = [f"workload.trace={TRACES / trace}"]
    path = ROOT / "examples" / f"{example}.toml"
    none = simulate(load_scenario(path, base))
    capped = simulate(load_scenario(path, [*base, "controller.kind=agent_cap", f"controller.cap={cap}"]))
    phases = none.metrics["phases"]
    assert phases["middle"]["hit_rate"] < phases["warm_up"]["hit_rate"] / 2
    assert phases["middle"]["end_s"] - phases["middle"]["start_s"] > 0.5 * none.metrics["makespan_s"]
    assert none.metrics["makespan_s"] > 1.25 * capped.metrics["makespan_s"]
    assert none.metrics["num_requests"] == capped.metrics["num_requests"]
