"""What a simulated engine says of itself now."""

from collections.abc import Sequence

from concur.signals import Snapshot
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
