"""One plan for a fleet beside laws that see an engine each, one law for all, caps, and no control.

`python -m benchmarks.fleet_twin [BATCH...]` simulates two batches on two and on four engines, three seeds
each, and writes `examples/results/fleet_twin.json`: batch and number of engines -> arm -> makespan and hit
rate with their 95 % intervals, and moves. A batch's pool is halved where there are twice as many engines.
The cap is the best of a grid, found afterwards, the same on every engine.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.result_files import ROOT, Result, read, write
from concur.sim.runs.intervals import mean_interval
from concur.sim.runs.parallel import run_tasks
from concur.sim.scenario.scenario import load_scenario
from concur.sim.world.simulate import simulate

SEEDS: Final = (0, 1, 2)
ENGINES: Final = (2, 4)
_SESSIONS: Final = {"fleet.routing": "session", "fleet.gate": "per_engine"}
_PLACED: Final = {"fleet.gate": "placement"}
ARMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "no control": _SESSIONS | {"controller.kind": "none"},
    "one twin for all": {"fleet.routing": "session", "fleet.gate": "global", "controller.kind": "twin"},
    "a twin each": _SESSIONS | {"controller.kind": "twin"},
    "fleet_twin": _SESSIONS | {"controller.kind": "fleet_twin"},
    "a twin each, placed": _PLACED | {"controller.kind": "twin"},
    "fleet_twin, placed": _PLACED | {"controller.kind": "fleet_twin"},
}
CAPPED: Final[Mapping[str, Mapping[str, Any]]] = {"best cap": _SESSIONS, "best cap, placed": _PLACED}


class Batch(NamedTuple):
    """A scenario with the keys that it sets, the blocks of all engines, and the caps to try for all."""

    scenario: str
    keys: Mapping[str, Any]
    num_blocks: int
    caps: Sequence[int]


_OF_TRACE: Final = {"workload.order": "shuffled"}
BATCHES: Final[Mapping[str, Batch]] = {
    "tau_airline": Batch("tau_airline", _OF_TRACE, 6000, (32, 40, 48, 64)),
    "react_hotpotqa": Batch(
        "tau_airline",
        _OF_TRACE | {"workload.trace": ROOT / "examples/traces/react_hotpotqa.jsonl.gz"},
        4000,
        (32, 48, 64, 96),
    ),
}


class Task(NamedTuple):
    """One run."""

    batch: str
    num_engines: int
    arm: str
    cap: int | None
    seed: int


def tasks(only: Sequence[str]) -> Iterator[Task]:
    """Yield all runs of some batches."""
    for batch in only or BATCHES:
        for number in ENGINES:
            for seed in SEEDS:
                yield from (Task(batch, number, arm, None, seed) for arm in ARMS)
                for arm in CAPPED:
                    caps = sorted({max(1, cap // number) for cap in BATCHES[batch].caps})
                    yield from (Task(batch, number, arm, cap, seed) for cap in caps)


def run(task: Task) -> Result:
    """Return what a run measures."""
    batch = BATCHES[task.batch]
    keys = {
        **batch.keys,
        "seed": task.seed,
        "fleet.num_engines": task.num_engines,
        "engine.num_gpu_blocks": batch.num_blocks // task.num_engines + 1,
        **(ARMS[task.arm] if task.cap is None else CAPPED[task.arm]),
    }
    if task.cap is not None:
        keys |= {"controller.kind": "agent_cap", "controller.cap": task.cap}
    scenario = load_scenario(
        ROOT / "examples" / f"{batch.scenario}.toml", [f"{key}={value}" for key, value in keys.items()]
    )
    metrics = simulate(scenario).metrics
    return {name: metrics[name] for name in ("makespan_s", "hit_rate", "num_moves")}


def results(only: Sequence[str] = ()) -> Result:
    """Run everything, or what is named; return batch and engines -> arm -> what was measured."""
    todo = list(tasks(only))
    found: defaultdict[str, dict[tuple[str, int | None], list[Result]]] = defaultdict(dict)
    done = dict(run_tasks(run, todo))
    for number, task in enumerate(todo):
        measured = done[number]
        by_arm = found[f"{task.batch}, {task.num_engines} engines"]
        by_arm.setdefault((task.arm, task.cap), []).append(measured)
    return {case: _summed_up(by_arm) for case, by_arm in found.items()}


def _summed_up(by_arm: Mapping[tuple[str, int | None], Sequence[Result]]) -> Result:
    """Return each arm's means and intervals, of caps those of the best."""
    rows = {key: _means(runs) for key, runs in by_arm.items()}
    summed: Result = {arm: rows[arm, None] for arm in ARMS}
    for arm in CAPPED:
        caps = {cap: row for (name, cap), row in rows.items() if name == arm}
        best = min(caps, key=lambda cap: caps[cap]["makespan_s"]["mean"])
        summed[arm] = caps[best] | {"cap": best}
    return summed


def _means(runs: Sequence[Result]) -> Result:
    names = ("makespan_s", "hit_rate", "num_moves")
    return {name: mean_interval([run[name] for run in runs]).to_json() for name in names}


def main() -> None:
    """Run everything, or the batches named, and write."""
    only = sys.argv[1:]
    result = (read("fleet_twin") if only else {}) | results(only)
    write("fleet_twin", result)
    for case, arms in result.items():
        for arm, row in arms.items():
            makespan, hits = row["makespan_s"], row["hit_rate"]
            print(
                f"{case:24} {arm:20} {makespan['mean']:8.1f} ± {makespan['half_width']:5.1f} s, "
                f"hits {hits['mean']:.3f}, moves {row['num_moves']['mean']:.0f} {row.get('cap', '')}"
            )


if __name__ == "__main__":
    main()
