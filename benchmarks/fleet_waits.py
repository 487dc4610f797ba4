"""Why the four replicas serve less than the published ones with few sessions: the waits of the tools.

`python -m benchmarks.fleet_waits` runs the default router of `benchmarks.fleets` with the recorded waits cut
off at less and less, some minutes on one core, and writes `examples/results/fleet_waits.json`: sessions at a
time and the longest wait -> output tokens per second, hit rate, and calls that are at an engine per session.
"""

from typing import Any, Final

from benchmarks.fleets import ARMS, SCENARIO, WINDOW_S
from benchmarks.result_files import Result, write
from benchmarks.tree_knee import within
from concur.sim.scenario.scenario import load_scenario
from concur.sim.world.simulate import simulate

POINTS: Final = ((16, 60.0), (16, 5.0), (16, 1.0), (16, 0.0), (48, 1.0), (64, 1.0), (96, 1.0))
"""Sessions at a time, and the longest wait of a tool in seconds; 60 s in `examples/fleets.toml`."""


def run(num_sessions: int, longest_s: float) -> dict[str, Any]:
    """Return what one run measures within the window."""
    keys = {
        "workload.arrival.num_sessions": num_sessions,
        "workload.max_tool_latency_s": longest_s,
        **ARMS["default"],
    }
    scenario = load_scenario(SCENARIO, [f"{key}={value}" for key, value in keys.items()])
    record = simulate(scenario, end_s=WINDOW_S[1])
    tokens_per_s, hits = within(record, *WINDOW_S)
    calls = record.requests[record.requests["finished_s"].between(*WINDOW_S)]
    busy_s = float((calls["finished_s"] - calls["submitted_s"]).sum())
    return {
        "tokens_per_s": round(tokens_per_s),
        "hit_rate": round(hits, 3),
        "calls_per_session": round(busy_s / num_sessions / (WINDOW_S[1] - WINDOW_S[0]), 2),
    }


def results() -> Result:
    """Return every point by name."""
    return {f"{number} sessions, {longest_s:g} s": run(number, longest_s) for number, longest_s in POINTS}


def main() -> None:
    """Run and write."""
    write("fleet_waits", results())


if __name__ == "__main__":
    main()
