"""The runs that the parts ask for: each setting, policy and seed once, however many parts show it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from concur.sim.paper.settings import Setting
from concur.sim.record.phases import demand_over_time
from concur.sim.record.record import RunRecord
from concur.sim.record.tables import columns_of
from concur.sim.runs.compare import run_seeds
from concur.sim.runs.intervals import Interval, metric_interval, speed_up
from concur.sim.runs.parallel import Workers
from concur.sim.scenario.build import build_workloads
from concur.sim.scenario.sections import ControllerConfig

_MOST_SAMPLES: Final = 600  # of a timeline, for a figure
U_LOW_FRAC: Final = 0.2


@dataclass(frozen=True, slots=True)
class Policy:
    """One law and what differs from its defaults."""

    kind: str
    parameters: tuple[tuple[str, float | int | str], ...] = ()

    @property
    def label(self) -> str:
        """Short name, without the parameters but a cap."""
        return self.config().label

    def config(self) -> ControllerConfig:
        """Return it as `[controller]`."""
        return ControllerConfig.model_validate({"kind": self.kind, **dict(self.parameters)})

    @property
    def fingerprint(self) -> str:
        """Text that is the same for the same law with the same parameters, defaults written out or not."""
        return _fingerprint(self.config().model_dump(mode="json"))


NONE: Final = Policy("none")
CONCUR: Final = Policy("concur")
HYBRID: Final = Policy("hybrid")


def agent_cap(cap: int) -> Policy:
    """Return a static cap on agents."""
    return Policy("agent_cap", (("cap", cap),))


def request_cap(setting: Setting) -> Policy:
    """Return the request cap of a setting: a quarter of its agents."""
    return Policy("request_cap", (("cap", max(1, setting.num_agents // 4)),))


def concur(**parameters: float | int | str) -> Policy:
    """Return CONCUR with other parameters than the paper's and ours."""
    return Policy("concur", tuple(sorted(parameters.items())))


@dataclass(frozen=True, slots=True)
class Job:
    """Policies to run on a setting; `num_seeds` = `None`: on every seed, else on the first few."""

    setting: Setting
    policies: tuple[Policy, ...]
    num_seeds: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs to be made: every policy on every seed."""

    setting: Setting
    policies: tuple[Policy, ...]
    seeds: tuple[int, ...]

    @property
    def num_runs(self) -> int:
        """How many runs these are."""
        return len(self.policies) * len(self.seeds)


BySeed = Mapping[int, RunRecord]


class Book:
    """Every run so far, by setting, policy and seed; records keep their metrics and a thinned timeline."""

    def __init__(self, seeds: Sequence[int], *, workers: Workers | None = None) -> None:
        self._workers = workers
        self.seeds = tuple(seeds)
        self._runs: dict[tuple[Setting, str], dict[int, RunRecord]] = {}

    def runs(self, setting: Setting, policy: Policy) -> BySeed:
        """Return a policy's runs by seed, in the order of seeds."""
        return dict(sorted(self._runs[setting, policy.fingerprint].items()))

    def missing(self, jobs: Iterable[Job]) -> list[Batch]:
        """Return the runs that the jobs ask for and that are not there yet."""
        wanted: dict[tuple[Setting, str], tuple[Policy, set[int]]] = {}
        for job in jobs:
            for policy in job.policies:
                _, seeds = wanted.setdefault((job.setting, policy.fingerprint), (policy, set()))
                seeds.update(self.seeds[: job.num_seeds])
        batches: dict[tuple[Setting, tuple[int, ...]], list[Policy]] = {}
        for (setting, fingerprint), (policy, seeds) in wanted.items():
            left = tuple(sorted(seeds - set(self._runs.get((setting, fingerprint), ()))))
            if left:
                batches.setdefault((setting, left), []).append(policy)
        return [Batch(setting, tuple(own), seeds) for (setting, seeds), own in batches.items()]

    def run(self, jobs: Iterable[Job], *, on_run: Callable[[], None] = lambda: None) -> None:
        """Run what the jobs ask for and is not there yet, on all cores; call `on_run` after each run."""
        for batch in self.missing(jobs):
            configs = [policy.config() for policy in batch.policies]
            scenario = batch.setting.scenario()
            for record in run_seeds(
                scenario, configs, build_workloads(scenario, batch.seeds), workers=self._workers
            ):
                key = batch.setting, _fingerprint(record.run["scenario"]["controller"])
                self._runs.setdefault(key, {})[int(record.run["seed"])] = _slim(record, batch.setting)
                on_run()

    def mean(self, setting: Setting, policy: Policy, metric: str) -> Interval:
        """Return a metric's mean over the seeds and its interval."""
        interval = metric_interval(self.runs(setting, policy), metric)
        if interval is None:
            raise LookupError(f"{metric} of {policy.label} on {setting.title} has no value")
        return interval

    def speed_up(self, setting: Setting, policy: Policy, *, baseline: Setting | None = None) -> Interval:
        """Return makespan without control over makespan, paired by seed."""
        return speed_up(self.runs(setting, policy), self.runs(baseline or setting, NONE))

    def fastest(self, setting: Setting, policies: Iterable[Policy]) -> Policy:
        """Return the policy with the shortest mean makespan."""
        return min(policies, key=lambda policy: self.mean(setting, policy, "makespan_s").mean)


def _slim(record: RunRecord, setting: Setting) -> RunRecord:
    """Add what the tables need of the record's tables to its metrics, and let go of the tables."""
    demand = demand_over_time(*(columns_of(record.tables[name]) for name in ("requests", "agents")))[1]
    ticks = columns_of(record.tables["ticks"])
    usage_frac = ticks["kv_cache_usage_frac"][ticks["agents_waiting"] > 0]
    extra: dict[str, Any] = {
        "peak_demand_frac": float(demand.max()) / setting.pool_tokens,
        "may_grow_frac": float((usage_frac < U_LOW_FRAC).mean()) if usage_frac.size else None,
        "link_busy_frac": _link_busy_frac(record),
    }
    num_samples = record.tables["timeline"].num_rows
    every, last = -(-num_samples // _MOST_SAMPLES), num_samples - 1
    rows = np.unique(np.append(np.arange(0, last + 1, every), last))
    return replace(
        record,
        run=record.run | {"metrics": record.metrics | extra},
        tables={name: table.slice(0, 0) for name, table in record.tables.items()}
        | {"timeline": record.tables["timeline"].take(rows)},
    )


def _link_busy_frac(record: RunRecord) -> float | None:
    """Return the share of the run in which the link to host memory was loading."""
    link = record.run["scenario"]["engine"].get("host_cache")
    tokens = record.metrics["host_tokens"]
    if link is None or not link["capacity_tokens"] or tokens is None:
        return None
    busy_s = tokens * link["kv_bytes_per_token"] / link["bandwidth_bytes_per_s"]
    return float(busy_s / record.metrics["makespan_s"])


def _fingerprint(controller: Mapping[str, Any]) -> str:
    return json.dumps(controller, sort_keys=True)
