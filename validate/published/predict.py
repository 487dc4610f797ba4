"""Predict a published table: every arm on some seeds, its metrics, signed errors, and the verdict."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from concur.sim.record.record import RunRecord
from concur.sim.runs.intervals import Interval, mean_interval
from concur.sim.runs.parallel import Workers, run_tasks
from concur.sim.world.simulate import simulate
from concur.validate.published.table import SHARES, Arm, PublishedTable, load_table

METRICS: Final[dict[str, Callable[[RunRecord], float]]] = {
    "makespan_s": lambda run: float(run.metrics["makespan_s"]),
    "hit_rate": lambda run: float(run.metrics["hit_rate"]),
    "prefilled_tokens": lambda run: _prefilled_tokens(run),
    "call_latency_p50_s": lambda run: float(run.metrics["call_latency_s"]["p50"]),
    "call_latency_p95_s": lambda run: float(run.metrics["call_latency_s"]["p95"]),
    "peak_kv_cache_usage_frac": lambda run: float(run.timeline["kv_cache_usage_frac"].max()),
}
"""What the tables have, from a run: seconds, tokens, shares. A call's latency is from asking to its end."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One metric of one arm: ours, over seeds, and what was measured, over runs (none: nobody did)."""

    metric: str
    predicted: Interval
    measured: tuple[float, ...]
    within: float | None

    @property
    def measured_mean(self) -> float | None:
        """Mean over the measured runs."""
        return math.fsum(self.measured) / len(self.measured) if self.measured else None

    @property
    def error(self) -> float | None:
        """Signed: a difference for shares, else relative to the measured mean."""
        mean = self.measured_mean
        if mean is None:
            return None
        difference = self.predicted.mean - mean
        return difference if self.metric in SHARES else difference / mean

    @property
    def holds(self) -> bool | None:
        """Whether the error is within the rule; `None` where the table states none."""
        return None if self.within is None or self.error is None else abs(self.error) <= self.within


@dataclass(frozen=True, slots=True)
class ArmPrediction:
    """All metrics of an arm."""

    name: str
    metrics: tuple[Prediction, ...]


def predict(
    name: str, seeds: Sequence[int], *, workers: Workers, on_run: Callable[[], None] = lambda: None
) -> list[ArmPrediction]:
    """Predict every arm of the table called `name`."""
    table = load_table(name)
    tasks = [(name, arm, seed) for arm in range(len(table.arm)) for seed in seeds]
    found: dict[int, dict[str, float]] = {}
    for number, metrics in run_tasks(_run, tasks, workers=workers):
        found[number] = metrics
        on_run()
    runs = [found[number] for number in range(len(tasks))]
    return [
        _arm(each, runs[number * len(seeds) : (number + 1) * len(seeds)])
        for number, each in enumerate(table.arm)
    ]


def _arm(arm: Arm, runs: Sequence[dict[str, float]]) -> ArmPrediction:
    predictions = [
        Prediction(
            metric,
            mean_interval([run[metric] for run in runs]),
            arm.measured.get(metric, ()),
            arm.within.get(metric),
        )
        for metric in METRICS
    ]
    return ArmPrediction(arm.name, tuple(predictions))


def _run(task: tuple[str, int, int]) -> dict[str, float]:
    name, number, seed = task
    table: PublishedTable = load_table(name)
    run = simulate(table.scenario(table.arm[number], seed), table.sessions.workload(seed))
    return {metric: measure(run) for metric, measure in METRICS.items()}


def _prefilled_tokens(run: RunRecord) -> float:
    calls = run.requests
    return float((calls["prompt_tokens"] - calls["cached_tokens"]).sum())
