"""Means over seeds, with their 95 % interval, paired by seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scipy.special import stdtrit

from concur.sim.record.record import RunRecord
from concur.sim.runs.policies import best_static_cap

_LEVEL: Final = 0.975  # two-sided 95 %

METRICS: Final = (
    "makespan_s",
    "throughput_tokens_per_s",
    "hit_rate",
    "recompute_time_fraction",
    "recomputed_tokens",
    "num_preemptions",
    "mean_active_agents",
    "agent_latency_s.p50",
    "agent_latency_s.p99",
    "step_wait_s.p99",
    "step_wait_s.max",
    "ttft_s.p50",
    "ttft_s.p99",
    "call_latency_s.p99",
    "slo_attainment",
    "goodput_tokens_per_s",
    "gate_pauses",
    "jain_fairness",
)
"""What is compared over seeds; a dot goes into a group of metrics. Throughput is of generated tokens only."""

ByPolicy = Mapping[str, Mapping[int, RunRecord]]
"""Policy -> seed -> its run."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the half width of its 95 % interval; `None` with one sample."""

    mean: float
    half_width: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return both numbers by name."""
        return {"mean": self.mean, "half_width": self.half_width}


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of at least one sample and its interval by Student's t: t * s / sqrt(n)."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    t = float(stdtrit(n - 1, _LEVEL))
    return Interval(mean, t * math.sqrt(variance / n))


def metric_interval(runs: Mapping[int, RunRecord], name: str) -> Interval | None:
    """Return a metric's interval over the seeds, `None` where a run does not have it."""
    values = [metric_value(run, name) for run in runs.values()]
    known = [value for value in values if value is not None]
    return mean_interval(known) if len(known) == len(values) else None


def speed_up(runs: Mapping[int, RunRecord], baseline: Mapping[int, RunRecord]) -> Interval:
    """Return makespan(baseline) / makespan, each seed against its own baseline."""
    return mean_interval(
        [baseline[seed].metrics["makespan_s"] / run.metrics["makespan_s"] for seed, run in runs.items()]
    )


def best_static_label(runs: ByPolicy) -> str | None:
    """Return the static agent cap with the shortest mean makespan."""
    means = {label: metric_interval(own, "makespan_s") for label, own in runs.items()}
    return best_static_cap({label: None if each is None else each.mean for label, each in means.items()})


def summary(runs: ByPolicy) -> dict[str, Any]:
    """Return intervals of every policy, and its speed-up over no control and over the best static cap."""
    baselines = {"speed_up": "none", "speed_up_over_best_static": best_static_label(runs) or "none"}
    result: dict[str, Any] = {}
    for label, own in runs.items():
        row: dict[str, Any] = {}
        for name in METRICS:
            interval = metric_interval(own, name)
            row[name] = None if interval is None else interval.to_json()
        for name, baseline in baselines.items():
            if baseline in runs:
                row[name] = speed_up(own, runs[baseline]).to_json()
        result[label] = row
    return result


def metric_value(run: RunRecord, name: str) -> float | None:
    """Return a metric by its name, with a dot for one of a group; `None` where the run does not have it."""
    group, _, part = name.partition(".")
    value = run.metrics[group]
    value = value[part] if part else value
    return None if value is None else float(value)
