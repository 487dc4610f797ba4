"""Advice for one batch on one engine: does it overflow the pool, what would help, which window and which law.

Everything is simulated: no control, the static caps that a search for the best one needs, the adaptive laws,
and a few changes of the engine, each on all seeds (orders of the agents).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from concur.measures.prefixes import warm_up
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.errors import ScenarioError
from concur.sim.lab.oracle import search_static_cap
from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import Runs, by_policy
from concur.sim.runs.intervals import Interval, mean_interval, metric_interval
from concur.sim.runs.parallel import Workers
from concur.sim.runs.policies import is_static_cap
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.show.remarks import warnings_of_runs
from concur.sim.workload.spec import Workload

WORTH_IT_FRAC: Final = 0.02
"""With no control within this of the best cap, advice is to leave control off: it is what orders stray by."""
AS_GOOD_FRAC: Final = 0.01
"""Caps this close to the best one are as good: the window's band."""
LAWS: Final = ("twin", "hybrid")


def _twice_the_pool(scenario: Scenario) -> dict[str, Any]:
    if isinstance(scenario.engine, SglangConfig):
        return {"max_total_num_tokens": 2 * scenario.engine.max_total_num_tokens}
    return {"num_gpu_blocks": 2 * scenario.engine.num_gpu_blocks - 1}


def _chunks(scenario: Scenario, num_tokens: int) -> dict[str, Any]:
    is_sglang = isinstance(scenario.engine, SglangConfig)
    return {"chunked_prefill_size" if is_sglang else "max_num_batched_tokens": num_tokens}


CHANGES: Final[Mapping[str, Callable[[Scenario], Mapping[str, Any]]]] = {
    "twice the pool (an 8-bit KV cache, or more memory)": _twice_the_pool,
    "prefill in chunks of 2,048": partial(_chunks, num_tokens=2048),
    "prefill in chunks of 16,384": partial(_chunks, num_tokens=16_384),
}
"""Changes of `[engine]` that are tried: in words, and the keys that they set."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the histories need at their longest, all together and in the mean, beside the pool, in tokens.

    A prefix that agents share is counted once.
    """

    num_agents: int
    peak_tokens: int
    mean_peak_tokens: float
    pool_tokens: int

    @property
    def ratio(self) -> float:
        """Demand over pool: above 1 histories are evicted if all agents are active."""
        return self.peak_tokens / self.pool_tokens

    @property
    def num_fitting(self) -> float:
        """How many agents fit at their longest."""
        return self.pool_tokens / self.mean_peak_tokens


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy: means over the seeds; times of calls count from when their agent is ready, in seconds."""

    policy: str
    makespan_s: Interval
    hit_rate: float
    recompute_frac: float
    ttft_p50_s: float
    ttft_p95_s: float
    call_latency_p95_s: float
    gate_wait_max_s: float
    slo_attainment: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the engine: no control's makespan with it, and the recommended policy's, in seconds."""

    name: str
    none_s: float
    recommended_s: float


@dataclass(frozen=True, slots=True)
class Advice:
    """All that was found; `caps` in order, `window` the band of caps as good as the best.

    Of several engines (`num_engines`) it is one, with its share of the agents.
    `warnings` are of the runs without changes of the engine, each kind once.
    `middle_s`: when, without control, histories outgrow the pool, and until when; `None` if they never do.
    """

    demand: Demand
    none: Outcome
    caps: Mapping[int, Outcome]
    best_cap: int
    window: tuple[int, int]
    laws: tuple[Outcome, ...]
    middle_s: tuple[float, float] | None
    changes: tuple[Change, ...]
    num_engines: int = 1
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> Outcome:
        """The best static cap."""
        return self.caps[self.best_cap]

    @property
    def is_worth_it(self) -> bool:
        """Whether admission control gains anything."""
        best_s = min(each.makespan_s.mean for each in (self.best, *self.laws))
        return self.none.makespan_s.mean > (1.0 + WORTH_IT_FRAC) * best_s

    @property
    def recommended(self) -> Outcome:
        """No control, the law that is fastest, or the best cap where all laws are behind it."""
        if not self.is_worth_it:
            return self.none
        law = min(self.laws, key=lambda each: each.makespan_s.mean)
        bound_s = (1.0 + AS_GOOD_FRAC) * self.best.makespan_s.mean
        return law if law.makespan_s.mean <= bound_s else self.best

    @property
    def speed_up(self) -> float:
        """What the recommended policy gains over no control."""
        return self.none.makespan_s.mean / self.recommended.makespan_s.mean


def advise(
    scenario: Scenario,
    seeds: Sequence[int],
    *,
    workers: Workers | None = None,
    on_run: Callable[[], None] = lambda: None,
) -> Advice:
    """Simulate what has to be known, and return the advice.

    Raises
    ------
    ScenarioError
        If the workload cannot be built, or takes no time.
    """
    runs = Runs(scenario, seeds, workers=workers)
    none, *laws = _outcomes(runs, ["none", *LAWS], on_run)
    best_cap = search_static_cap(runs, on_run=on_run)
    caps = {
        int(label.partition("=")[2]): _outcome(own)
        for label, own in by_policy(runs.records).items()
        if is_static_cap(label)
    }
    advice = Advice(
        demand=demand_of(runs.workloads[seeds[0]], scenario.engine.pool_tokens),
        none=none,
        caps=caps,
        best_cap=best_cap,
        window=_band(caps, best_cap),
        laws=tuple(laws),
        middle_s=_middle_s(by_policy(runs.records)["none"][seeds[0]]),
        changes=(),
        warnings=tuple(warnings_of_runs(runs.records)),
    )
    return replace(advice, changes=tuple(_changes(advice, scenario, seeds, workers, on_run)))


def demand_of(workload: Workload, pool_tokens: int) -> Demand:
    """Return the tokens of all histories at their longest; what groups and forks share counts once."""
    shared: dict[str, int] = {}
    own_tokens = 0
    for agent in workload.agents:
        warm_up(agent.levels, shared)
        prefix_tokens = agent.shared_prefix_tokens if agent.prefix_group is not None else 0
        own_tokens += agent.peak_context_tokens - prefix_tokens - agent.fork_tokens
    peak_tokens = own_tokens + sum(shared.values())
    return Demand(len(workload.agents), peak_tokens, peak_tokens / len(workload.agents), pool_tokens)


def _outcomes(
    runs: Runs, policies: Sequence[str], on_run: Callable[[], None] = lambda: None
) -> list[Outcome]:
    configs = [config for policy in policies for config in runs.scenario.policies(policy)]
    for _ in runs.run(configs):
        on_run()
    return [_outcome(runs.of(config)) for config in configs]


def _outcome(runs: Mapping[int, RunRecord]) -> Outcome:
    makespans_s = [float(record.metrics["makespan_s"]) for record in runs.values()]
    if not min(makespans_s):
        raise ScenarioError("the batch takes no time in this scenario, so there is nothing to advise")
    return Outcome(
        policy=next(iter(runs.values())).label,
        makespan_s=mean_interval(makespans_s),
        hit_rate=_mean(runs, "hit_rate") or 0.0,
        recompute_frac=_mean(runs, "recompute_time_fraction") or 0.0,
        ttft_p50_s=_mean(runs, "ttft_s.p50") or 0.0,
        ttft_p95_s=_mean(runs, "ttft_s.p95") or 0.0,
        call_latency_p95_s=_mean(runs, "call_latency_s.p95") or 0.0,
        gate_wait_max_s=_mean(runs, "step_wait_s.max") or 0.0,
        slo_attainment=_mean(runs, "slo_attainment"),
    )


def _mean(runs: Mapping[int, RunRecord], name: str) -> float | None:
    interval = metric_interval(runs, name)
    return None if interval is None else interval.mean


def _band(caps: Mapping[int, Outcome], best_cap: int) -> tuple[int, int]:
    """Return the run of measured caps around the best one that are as good as it."""
    bound_s = (1.0 + AS_GOOD_FRAC) * caps[best_cap].makespan_s.mean
    low = high = best_cap
    for cap in sorted((cap for cap in caps if cap < best_cap), reverse=True):
        if caps[cap].makespan_s.mean > bound_s:
            break
        low = cap
    for cap in sorted(cap for cap in caps if cap > best_cap):
        if caps[cap].makespan_s.mean > bound_s:
            break
        high = cap
    return low, high


def _middle_s(record: RunRecord) -> tuple[float, float] | None:
    middle = record.metrics["phases"]["middle"]
    return (middle["start_s"], middle["end_s"]) if middle["end_s"] > middle["start_s"] else None


def _changes(
    advice: Advice,
    scenario: Scenario,
    seeds: Sequence[int],
    workers: Workers | None,
    on_run: Callable[[], None],
) -> Iterator[Change]:
    policies = list(dict.fromkeys(["none", advice.recommended.policy]))
    for name, keys in CHANGES.items():
        raw = scenario.model_dump(mode="json")
        raw["engine"] |= keys(scenario)
        changed = Runs(parse_scenario(raw, origin=name), seeds, workers=workers)
        found = _outcomes(changed, policies, on_run)
        yield Change(name, found[0].makespan_s.mean, found[-1].makespan_s.mean)
