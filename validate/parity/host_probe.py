"""The same questions to either host tier: what it holds, in which order it goes, and what is remembered."""

from collections.abc import Hashable
from typing import Any

from concur.sim.engine.offload.connector import OffloadingConnector
from concur.sim.engine.offload.scheduler import ConnectedScheduler
from concur.sim.engine.stepping import StepScheduler
from concur.sim.kv.eviction import ARCCachePolicy
from concur.validate.parity.vllm_offloading import VllmOffloadingScheduler


def num_host_chunks(scheduler: StepScheduler) -> int:
    """Return how many chunks the tier holds."""
    if isinstance(scheduler, VllmOffloadingScheduler):
        policy = scheduler.manager._policy
        return len(policy.chunks) if hasattr(policy, "chunks") else len(policy.t1) + len(policy.t2)
    return len(_connector_of(scheduler).manager.policy)


def host_contents(scheduler: StepScheduler) -> tuple[Hashable, ...]:
    """Return names and `ref_cnt` of all chunks, the first to go first; of ARC, its lists and its target."""
    if isinstance(scheduler, VllmOffloadingScheduler):
        return _vllms(scheduler, scheduler.manager._policy)
    policy = _connector_of(scheduler).manager.policy
    contents = tuple(policy.residents())
    if isinstance(policy, ARCCachePolicy):
        return (*contents, len(policy.t1), tuple(policy.b1), tuple(policy.b2), float(policy.target_t1_size))
    return contents


def _vllms(scheduler: VllmOffloadingScheduler, policy: Any) -> tuple[Hashable, ...]:
    name_of = scheduler.name_of
    if hasattr(policy, "chunks"):
        ordered = sorted(policy.chunks, key=policy._ranks.__getitem__)
        return tuple((name_of(key), policy.chunks[key].ref_cnt) for key in ordered)
    chunks = [*policy.t1.items(), *policy.t2.items()]
    return (
        *((name_of(key), chunk.ref_cnt) for key, chunk in chunks),
        len(policy.t1),
        tuple(map(name_of, policy.b1)),
        tuple(map(name_of, policy.b2)),
        float(policy.target_t1_size),
    )


def _connector_of(scheduler: StepScheduler) -> OffloadingConnector:
    assert isinstance(scheduler, ConnectedScheduler)
    assert isinstance(scheduler.connector, OffloadingConnector)
    return scheduler.connector
