"""What each part of `twin` is worth: the law without it, on the H100 cases of `benchmarks.twin_fidelity`.

`python -m benchmarks.twin_ablations` runs the law and each variant on four orders of every case and writes
`examples/results/twin_ablations.json`: makespan over the whole law's, geometric mean and worst case. Above 1
the part helps. `no control` is there for scale.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from benchmarks.result_files import Result, write
from benchmarks.twin_fidelity import blocks, cases
from concur.controllers import Law
from concur.controllers.fixed import Fixed
from concur.controllers.twin import Twin, TwinParams
from concur.signals import UNBOUNDED, UNLIMITED, Snapshot
from concur.sim.lab.judge import Case
from concur.sim.runs.parallel import run_tasks
from concur.sim.world.simulate import simulate
from concur.twin.future import Policy
from concur.twin.plan import Planner

WHOLE: Final = "twin"
SEEDS: Final = (0, 1, 2, 3)


class WindowPlanner(Planner):
    """Try windows only."""

    def _tried(self, policy: Policy, active: int, num_agents: int, used_frac: float) -> Iterator[Policy]:
        for each in super()._tried(policy, active, num_agents, used_frac):
            yield replace(each, admit_frac=policy.admit_frac, slack_frac=policy.slack_frac)
        for number in range(1, 9):
            yield replace(policy, window=max(1, round(num_agents * number / 8)))


class WindowTwin(Twin):
    """Bound agents instead of tokens."""

    def __init__(self, params: TwinParams) -> None:
        super().__init__(params)
        self._planner = WindowPlanner(params.seed)

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the window; the budget never binds."""
        window = super().update(snapshot, active=active)
        self.budget = UNBOUNDED
        return window


class BlindTwin(Twin):
    """Never plan: admit to nine tenths of the pool, pause at three tenths above that."""

    def __init__(self, params: TwinParams) -> None:
        super().__init__(params)
        self._policy = Policy(admit_frac=0.9, slack_frac=0.3, window=UNLIMITED)
        self._next_plan_s = math.inf


class SlowTwin(Twin):
    """Begin as slowly as the interval between two decisions says."""

    hurry_s = math.inf


class OptimisticTwin(Twin):
    """Take the whole pool for usable."""

    pool_frac = 1.0


VARIANTS: Final[dict[str, Callable[[], Law]]] = {
    WHOLE: lambda: Twin(TwinParams()),
    "a window instead of a budget": lambda: WindowTwin(TwinParams()),
    "no look-ahead": lambda: BlindTwin(TwinParams()),
    "no hurry at the start": lambda: SlowTwin(TwinParams()),
    "the whole pool": lambda: OptimisticTwin(TwinParams()),
    "no control": lambda: Fixed(UNLIMITED),
}


def makespan_s(task: tuple[Case, str, int]) -> float:
    """Run one variant on one order of a case."""
    case, variant, seed = task
    record = simulate(case.cell.scenario.with_seed(seed), law=VARIANTS[variant])
    return float(record.metrics["makespan_s"])


def main() -> None:
    """Run all, write the ratios, print them."""
    chosen = cases()
    tasks = [(case, variant, seed) for case in chosen for variant in VARIANTS for seed in SEEDS]
    found = dict(run_tasks(makespan_s, tasks))
    by_task = {(case.name, variant, seed): found[n] for n, (case, variant, seed) in enumerate(tasks)}
    result: Result = {}
    for variant in VARIANTS:
        ratios = {
            f"{case.name.partition(',')[0]}, {blocks(case):,} blocks": math.exp(
                sum(
                    math.log(by_task[case.name, variant, seed] / by_task[case.name, WHOLE, seed])
                    for seed in SEEDS
                )
                / len(SEEDS)
            )
            for case in chosen
        }
        mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
        result[variant] = {"geometric_mean": round(mean, 4), "worst": round(max(ratios.values()), 4)} | {
            name: round(ratio, 4) for name, ratio in ratios.items()
        }
        print(f"{variant}: {mean:.3f}, worst {max(ratios.values()):.3f}")
    write("twin_ablations", result)


if __name__ == "__main__":
    main()
