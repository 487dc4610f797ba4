"""Watch a whole run: the laws of the register, checked after every step."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from concur.sim.engine.offload.scheduler import ConnectedScheduler
from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request, RequestStatus
from concur.sim.engine.vllm.scheduler import Scheduler
from concur.sim.kv.block_pool import BlockPool
from concur.sim.kv.kv_cache_manager import KVCacheManager


class Watch:
    """What has been seen of a run so far."""

    def __init__(self) -> None:
        self.num_added = 0
        self.num_finished = 0
        self.num_steps = 0
        self.num_evictions = 0
        self.num_preemptions = 0
        self.last_time_s = 0.0

    def check(self, scheduler: Scheduler[KVCacheManager], time_s: float) -> None:
        """L1, L2, L3, L7, L8 and the request counters."""
        manager = scheduler.kv_cache_manager
        pool = manager.block_pool
        unfinished = len(scheduler.running) + scheduler.num_waiting
        assert self.num_added == self.num_finished + unfinished, "L1: requests are conserved"
        check_blocks(pool)
        assert time_s >= self.last_time_s, "L7: the clock never decreases"
        assert len(scheduler.running) <= scheduler.config.max_num_seqs
        held = sum(manager.num_blocks_of(request.request_id) for request in _holders(scheduler))
        assert held == sum(block.ref_cnt for block in pool.blocks), "every reference has one holder"
        for request in scheduler.running:
            check_request(request, manager)
        self.last_time_s = time_s
        self.num_steps += 1
        self.num_evictions = pool.num_evictions
        self.num_preemptions = scheduler.make_stats().num_preemptions


def check_blocks(pool: BlockPool) -> None:
    """L2: free + referenced = total; L3: what is referenced is neither free nor renamed."""
    free = pool.free_block_queue
    referenced = [block for block in pool.blocks if block.ref_cnt > 0]
    assert len(free) + len(referenced) == pool.num_gpu_blocks - 1, "L2: blocks are conserved"
    assert not any(block.block_id in free for block in referenced), "L3: referenced blocks are not free"
    idle = sum(block.block_hash is not None for block in free.values())
    assert idle == pool.num_cached_free_blocks
    assert 0 not in free


def check_request(request: Request, manager: KVCacheManager) -> None:
    """A running request has the slots it has used, and its cached blocks carry its names."""
    assert request.status is RequestStatus.RUNNING
    assert request.num_computed_tokens <= request.num_tokens
    blocks = manager.get_blocks(request.request_id)
    assert len(blocks) >= -(-request.num_computed_tokens // manager.block_size)
    cached = [block.block_hash for block in blocks if block.block_hash is not None]
    assert cached == list(request.history.block_hashes(0, len(cached))), "L3: nobody took its blocks"
    num_known = request.num_computed_tokens - request.num_output_placeholders
    num_full_blocks = num_known // manager.block_size
    assert len(cached) >= num_full_blocks or not manager.enable_caching


def watching(watch: Watch) -> AbstractContextManager[Any]:
    """Check every step of every scheduler while the context lasts."""
    update: Callable[..., list[Request]] = Scheduler.update_from_output
    add: Callable[..., None] = Scheduler.add_request

    def watched_add(self: Scheduler[KVCacheManager], request: Request) -> None:
        watch.num_added += 1
        add(self, request)

    def watched_update(
        self: Scheduler[KVCacheManager], output: SchedulerOutput, *, time_s: float
    ) -> list[Request]:
        total = sum(num_tokens for _, num_tokens, _ in output.scheduled)
        least = (
            0 if isinstance(self, ConnectedScheduler) else 1
        )  # a step may do no more than ask for transfers
        assert least <= total <= self.config.max_num_batched_tokens, "L8: a step computes something"
        finished = update(self, output, time_s=time_s)
        watch.num_finished += len(finished)
        assert not any(self.kv_cache_manager.get_blocks(request.request_id) for request in finished)
        watch.check(self, time_s)
        return finished

    return patch.multiple(Scheduler, update_from_output=watched_update, add_request=watched_add)


def _holders(scheduler: Scheduler[KVCacheManager]) -> list[Request]:
    return [*scheduler.running, *scheduler.kv_holding_waiting, *scheduler.loading, *scheduler.waiting]
