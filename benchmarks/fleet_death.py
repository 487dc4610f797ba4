"""A server of a fleet is killed: what became of its agents live, beside the simulator.

`concur validate run validate/scenarios/cpu_tiny_fleet.toml --engine cpu --no-judge --out DIR`, then
`python -m benchmarks.fleet_death DIR` writes `validate/results/cpu_tiny_fleet/fleet.json`. Two servers on the
cores of one machine are slower than two engines, so the simulated one dies where the live one had died in its
work: after as many answers. Counts are compared, not seconds.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.result_files import ROOT
from concur.sim.record.record import RunRecord, load_record
from concur.sim.scenario.scenario import Scenario, load_scenario
from concur.sim.world.simulate import simulate

SCENARIO: Final = ROOT / "validate" / "scenarios" / "cpu_tiny_fleet.toml"
RESULT: Final = ROOT / "validate" / "results" / "cpu_tiny_fleet" / "fleet.json"
_SOON_S: Final = 1e-3
DEAD: Final = 1
"""The engine that dies."""


def measured(record: RunRecord) -> dict[str, Any]:
    """Return what became of the agents of a run: counts, who moved, and hits."""
    calls = record.requests.sort_values(["agent_index", "call_index"])
    engines = calls.groupby("agent_index")["engine_index"].nunique()
    metrics = record.metrics
    return {
        "agents": len(record.agents),
        "calls": len(calls),
        "calls_by_engine": [int((calls["engine_index"] == index).sum()) for index in range(2)],
        "prompt_tokens": int(calls["prompt_tokens"].sum()),
        "output_tokens": int(calls["output_tokens"].sum()),
        "moves": metrics["num_moves"],
        "moved_agents": [int(index) for index in engines[engines > 1].index],
        "hit_rate": round(metrics["hit_rate"], 4),
        "at_gates_in_the_end": int(record.engines.groupby("engine_index")["agents_active"].last().sum()),
    }


def same_progress(scenario: Scenario, num_answers: int) -> RunRecord:
    """Return a simulated run whose engine dies after so many answers."""
    assert scenario.fleet is not None
    whole = simulate(scenario.model_copy(update={"fleet": scenario.fleet.model_copy(update={"outages": ()})}))
    calls = whole.requests[whole.requests["engine_index"] == DEAD].sort_values("finished_s")
    at_s = float(calls["finished_s"].iloc[num_answers - 1]) + _SOON_S
    outages = (scenario.fleet.outages[0].model_copy(update={"at_s": at_s}),)
    dying = scenario.fleet.model_copy(update={"outages": outages})
    return simulate(scenario.model_copy(update={"fleet": dying}))


def results(folder: Path) -> Mapping[str, Any]:
    """Return both worlds, of what `concur validate run` left."""
    live = load_record(next(folder.glob("live/*/run-0")))
    seen = measured(live)
    simulated = same_progress(load_scenario(SCENARIO), seen["calls_by_engine"][DEAD])
    return {"live": seen, "simulated": measured(simulated), "told_live": live.run["warnings"][1:]}


def main() -> None:
    """Compare, write and print."""
    result = results(Path(sys.argv[1]))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
