"""vLLM's scheduler where layers differ: the same queues over several block tables.

What `concur.sim.engine.vllm.scheduler.Scheduler` does, but for two things of `allocate_slots` (vLLM 0.32.0,
`v1/core/kv_cache_manager.py`): blocks that have left a window are freed before a request asks for more, and
`scheduler_reserve_full_isl` asks for what the sequence holds at any one time, besides the room for its next
chunk.
"""

from mypy_extensions import mypyc_attr

from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.engine.vllm.scheduler import Scheduler, _chunk
from concur.sim.kv.hybrid import HybridKVCacheManager


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class HybridScheduler(Scheduler[HybridKVCacheManager]):
    """The reference scheduler on a pool with several groups of layers."""

    def _make_room(
        self, request: Request, num_new_tokens: int, output: SchedulerOutput
    ) -> tuple[bool, int, int]:
        """Let go of what has left the windows, but for steps in flight, before making room as ever."""
        num_done_tokens = request.num_computed_tokens - request.num_in_flight_tokens
        self.kv_cache_manager.remove_skipped_blocks(request.request_id, num_done_tokens)
        return super()._make_room(request, num_new_tokens, output)

    def _admit(self, request: Request, output: SchedulerOutput, budget: int, threshold: int) -> bool:
        """Give a request the blocks that it hits; `False` if it does not fit."""
        kv, history = self.kv_cache_manager, request.history
        num_hit_blocks = kv.count_hits(history, request.num_tokens)
        num_hit_tokens = num_hit_blocks * kv.block_size
        watermark = self._watermark_blocks()
        if self.config.scheduler_reserve_full_isl and not kv.can_reserve(
            history, num_hit_blocks, request.num_tokens, keep_free_blocks=watermark
        ):
            return False
        num_tokens = num_hit_tokens + _chunk(request.num_tokens - num_hit_tokens, threshold, budget)
        if not kv.can_admit(history, num_hit_blocks, num_tokens, keep_free_blocks=watermark):
            return False
        self._adopt(request, num_hit_blocks, 0)
        return True
