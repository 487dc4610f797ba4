"""Does a tuned law keep its gain on seeds that it has not seen? Against its start and against static caps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from concur.sim.lab.oracle import search_static_cap
from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import Runs
from concur.sim.runs.intervals import Interval, mean_interval, metric_value
from concur.sim.runs.parallel import Workers
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import ControllerConfig

START: Final = "start"
TUNED: Final = "tuned"

BySeed = Mapping[int, RunRecord]


@dataclass(frozen=True, slots=True)
class Check:
    """Runs by seed of the start, the tuned law, and the two static caps that are best by the objective.

    `deployed_cap` was best on the tuning seeds, as fair a rival as the tuned law; `hindsight_cap` is best on
    the very seeds of the check, which flatters it.
    """

    runs: Mapping[str, BySeed]
    deployed_cap: str
    hindsight_cap: str

    def gain(self, name: str, baseline: str, objective: str, *, is_higher_better: bool) -> Interval | None:
        """Return how many times better `name` is than `baseline`, each seed against its own.

        `None` where the objective has no value, or is 0, in a run.
        """
        over, under = (name, baseline) if is_higher_better else (baseline, name)
        ratios = []
        for seed in self.runs[name]:
            a, b = (metric_value(self.runs[key][seed], objective) for key in (over, under))
            if a is None or not b:
                return None
            ratios.append(a / b)
        return mean_interval(ratios)


def check(
    scenario: Scenario,
    *,
    start: ControllerConfig,
    tuned: ControllerConfig,
    tuning_seeds: Sequence[int],
    seeds: Sequence[int],
    objective: str,
    is_higher_better: bool,
    workers: Workers | None = None,
    on_run: Callable[[], None] = lambda: None,
) -> Check:
    """Run the start, the tuned law and the best static caps, by the objective, on `seeds`."""
    runs = Runs(scenario, seeds, workers=workers)
    before = runs if seeds == tuning_seeds else Runs(scenario, tuning_seeds, workers=workers)
    deployed, hindsight = (
        f"agent_cap={search_static_cap(each, objective, is_higher_better=is_higher_better, on_run=on_run)}"
        for each in (before, runs)
    )
    policies = {START: start, TUNED: tuned} | {
        label: scenario.policies(label)[0] for label in (deployed, hindsight)
    }
    for _ in runs.run(list(policies.values())):  # all at once on all cores
        on_run()
    return Check({name: runs.of(config) for name, config in policies.items()}, deployed, hindsight)


def verdict(gain: Interval | None, baseline: str) -> str:
    """Say in a sentence whether a gain holds."""
    if gain is None:
        return f"Against {baseline} there is no ratio to judge: the objective has no value, or is 0."
    if gain.half_width is None:
        return f"Against {baseline}: {gain.mean:.3f} times as good on one seed, which proves nothing."
    low, high = gain.mean - gain.half_width, gain.mean + gain.half_width
    ratio = f"{gain.mean:.3f} times as good (95 % interval {low:.3f} to {high:.3f})"
    if low > 1:
        return f"Against {baseline} the gain holds: {ratio}."
    if high < 1:
        return f"Against {baseline} the tuned law is worse: {ratio}."
    return f"Against {baseline} no gain is shown: {ratio}, and the interval includes 1."
