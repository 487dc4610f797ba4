"""What a simulated engine says of itself now."""

from collections.abc import Sequence
from dataclasses import replace

from concur.signals import COUNTERS, MORE_COUNTERS, Snapshot
from concur.sim.engine.core import EngineCore
from concur.sim.record.publish import StepWork, published
from concur.sim.scenario.scenario import Scenario


def reading(scenario: Scenario, core: EngineCore, *, time_s: float) -> Snapshot:
    """Return what a live engine would answer now."""
    engine, stats = scenario.engine, core.stats
    return Snapshot(
        time_s=time_s,
        **published(stats),
        external_prefix_cache_queries_tokens=stats.external_prefix_cache_queries_tokens,
        external_prefix_cache_hits_tokens=stats.external_prefix_cache_hits_tokens,
        **engine.capacity,
        num_engine_steps=core.totals.num_steps,
    )


class Past:
    """What an engine had counted before it died, all its lives together.

    Who reads an engine over a restart makes up for it: counters never decrease.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self.host: dict[str, float] = {}
        self._counters: dict[str, int] = {}
        self._work: StepWork | None = None

    def add(self, core: EngineCore) -> None:
        """Keep what a core has counted that is no more."""
        for name in (*COUNTERS, *MORE_COUNTERS[1:]):
            self._counters[name] = self._counters.get(name, 0) + getattr(core.stats, name)
        self.num_steps += core.totals.num_steps
        self._work = self.work(work_of(core))
        for name, value in core.host_metrics().items():
            self.host[name] = self.host.get(name, 0) + value

    def reading(self, now: Snapshot) -> Snapshot:
        """Return a reading of the core that there is now, with what was counted before."""
        counted = {name: getattr(now, name) + before for name, before in self._counters.items()}
        if self._counters:
            counted["num_engine_steps"] = (now.num_engine_steps or 0) + self.num_steps
        return replace(now, **counted) if counted else now

    def work(self, now: StepWork) -> StepWork:
        """Return what steps went into, those before and those of now."""
        return now if self._work is None else sum_of_work([self._work, now])


def work_of(core: EngineCore) -> StepWork:
    """Return what an engine's steps went into so far."""
    stats, totals = core.stats, core.totals
    return StepWork(
        totals.recomputed_tokens, stats.num_evictions, totals.prefill_s, totals.recompute_s, totals.decode_s
    )


def sum_of_work(works: Sequence[StepWork]) -> StepWork:
    """Return the sum of what the engines of a fleet did; of one its own, bit for bit."""
    if len(works) == 1:
        return works[0]
    return StepWork(*[sum(values) for values in zip(*works, strict=True)])
