"""The same questions to either scheduler: what is queued, what is free, who holds which blocks."""

from dataclasses import dataclass
from typing import Protocol

from concur.sim.engine.stepping import StepScheduler
from concur.sim.engine.vllm.scheduler import Scheduler
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

    def block_ids(self, request_id: str) -> list[int]:
        """Return the ids of the blocks that a request holds, in order."""
        ...


class OurProbe:
    """Questions to the simulated scheduler."""

    def __init__(self, scheduler: Scheduler[KVCacheManager]) -> None:
        self._scheduler = scheduler
        self._manager = scheduler.kv_cache_manager
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

    def block_ids(self, request_id: str) -> list[int]:
        """Return the ids of the blocks that a request holds, in order."""
        return [block.block_id for block in self._manager.get_blocks(request_id)]


class VllmProbe:
    """Questions to vLLM's scheduler."""

    def __init__(self, scheduler: VllmScheduler) -> None:
        self._vllm = scheduler.vllm

    def queues(self) -> Queues:
        """Return the queues."""
        return Queues(
            tuple(request.request_id for request in self._vllm.running),
            tuple(request.request_id for request in self._vllm.waiting),
            tuple(request.request_id for request in self._vllm.kv_holding_waiting),
        )

    def num_free_blocks(self) -> int:
        """Return how many blocks are free."""
        return int(self._vllm.kv_cache_manager.block_pool.get_num_free_blocks())

    def free_blocks(self) -> list[int]:
        """Return the ids of the free blocks, next victim first."""
        queue = self._vllm.kv_cache_manager.block_pool.free_block_queue
        return [block.block_id for block in queue.get_all_free_blocks()]

    def block_ids(self, request_id: str) -> list[int]:
        """Return the ids of the blocks that a request holds, in order."""
        (blocks,) = self._vllm.kv_cache_manager.get_block_ids(request_id)
        return list(blocks)


def probe(scheduler: StepScheduler) -> Probe:
    """Return the probe that fits the scheduler."""
    if isinstance(scheduler, VllmScheduler):
        return VllmProbe(scheduler)
    assert isinstance(scheduler, Scheduler)
    return OurProbe(scheduler)
