"""The same questions to either scheduler: what is queued, what is free, who holds which blocks."""

from dataclasses import dataclass
from typing import Protocol

from concur.sim.engine.stepping import StepScheduler
from concur.sim.engine.vllm.hybrid import HybridScheduler
from concur.sim.engine.vllm.scheduler import Scheduler
from concur.sim.kv.hybrid import HybridKVCacheManager
from concur.sim.kv.kv_cache_manager import KVCacheManager
from concur.validate.parity.vllm_scheduler import VllmScheduler


@dataclass(frozen=True, slots=True)
class Queues:
    """Request ids in queue order; `kv_holding` wait with blocks, for a load or after it."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]
    kv_holding: tuple[str, ...] = ()


class Probe(Protocol):
    """What can be asked of a scheduler between two steps."""

    def queues(self) -> Queues:
        """Return the queues."""
        ...

    def num_free_blocks(self) -> int:
        """Return how many blocks are free."""
        ...

    def free_blocks(self) -> list[int]:
        """Return the ids of the free blocks, next victim first."""
        ...

    def block_tables(self, request_id: str) -> tuple[list[int], ...]:
        """Return the ids of the blocks that a request holds, in order, for each group of layers."""
        ...


class OurProbe:
    """Questions to the simulated scheduler."""

    def __init__(self, scheduler: Scheduler[KVCacheManager] | HybridScheduler) -> None:
        self._scheduler = scheduler
        self._manager: KVCacheManager | HybridKVCacheManager = scheduler.kv_cache_manager
        self._block_pool = scheduler.kv_cache_manager.block_pool

    def queues(self) -> Queues:
        """Return the queues."""
        scheduler = self._scheduler
        return Queues(
            tuple(request.request_id for request in scheduler.running),
            tuple(request.request_id for request in scheduler.waiting),
            tuple(request.request_id for request in scheduler.kv_holding_waiting),
        )

    def num_free_blocks(self) -> int:
        """Return how many blocks are free."""
        return self._block_pool.get_num_free_blocks()

    def free_blocks(self) -> list[int]:
        """Return the ids of the free blocks, next victim first."""
        return list(self._block_pool.free_block_queue)

    def block_tables(self, request_id: str) -> tuple[list[int], ...]:
        """Return the ids of the blocks that a request holds, in order, for each group of layers."""
        manager = self._manager
        if isinstance(manager, HybridKVCacheManager):
            tables = manager.get_tables(request_id)
        else:
            tables = (manager.get_blocks(request_id),)
        return tuple([block.block_id for block in blocks] for blocks in tables)


class VllmProbe:
    """Questions to vLLM's scheduler."""

    def __init__(self, scheduler: VllmScheduler) -> None:
        self._vllm = scheduler.vllm

    def queues(self) -> Queues:
        """Return the queues; up to 0.30 those who are passed over have one of their own, which goes first."""
        waiting = (*getattr(self._vllm, "skipped_waiting", ()), *self._vllm.waiting)
        return Queues(
            tuple(request.request_id for request in self._vllm.running),
            tuple(request.request_id for request in waiting),
            tuple(request.request_id for request in getattr(self._vllm, "kv_holding_waiting", ())),
        )

    def num_free_blocks(self) -> int:
        """Return how many blocks are free."""
        return int(self._vllm.kv_cache_manager.block_pool.get_num_free_blocks())

    def free_blocks(self) -> list[int]:
        """Return the ids of the free blocks, next victim first."""
        queue = self._vllm.kv_cache_manager.block_pool.free_block_queue
        return [block.block_id for block in queue.get_all_free_blocks()]

    def block_tables(self, request_id: str) -> tuple[list[int], ...]:
        """Return the ids of the blocks that a request holds, in order, for each group of layers."""
        return tuple(map(list, self._vllm.kv_cache_manager.get_block_ids(request_id)))


def probe(scheduler: StepScheduler) -> Probe:
    """Return the probe that fits the scheduler."""
    if isinstance(scheduler, VllmScheduler):
        return VllmProbe(scheduler)
    assert isinstance(scheduler, Scheduler)
    return OurProbe(scheduler)
