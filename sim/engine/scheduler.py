"""vLLM's V1 scheduler: which requests compute how many tokens in the next step.

Semantics of vLLM 0.32.0, `v1/core/sched/scheduler.py`, policy `fcfs`, synchronous scheduling:

1. *Running* requests first, in order of admission; each gets as many of its uncomputed tokens as the token
   budget and `long_prefill_token_threshold` allow. If its blocks do not fit, the *last* running request is
   preempted, and again, until they do or it was itself preempted.
2. *Waiting* requests next, first come, first served, unless this step preempted: look up the prefix cache,
   demand room (the whole sequence under `scheduler_reserve_full_isl`, `watermark` beside it if anything
   runs), admit. The first that does not fit ends the round.
3. Preemption is by recomputation: blocks are freed (still findable), progress is 0, and the request goes to
   the *front* of the waiting queue.

With a host cache, a waiting request whose next blocks are in host memory allocates them and waits for the
load, as vLLM does for an asynchronous KV connector; when it arrives, the request is admitted before others.

Left out, and not accepted by the scenario file: speculative decoding, LoRA, multi-modal and encoder inputs,
structured output, priorities, pipeline parallelism.
"""

from collections import deque
from dataclasses import dataclass, field

from sim.engine.step_time import StepBatch
from sim.kv.block_pool import KVCacheBlock
from sim.kv.host_cache import HostCache
from sim.kv.kv_cache_manager import KVCacheManager
from sim.request import Request, RequestStatus
from sim.scenario import EngineConfig


@dataclass(slots=True)
class SchedulerOutput:
    """One step's decisions, in the order in which they were taken."""

    scheduled: list[tuple[Request, int]] = field(default_factory=list)
    admitted: list[Request] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    loads: list[tuple[Request, int]] = field(default_factory=list)  # tokens to bring from host memory
    batch: StepBatch = field(default_factory=StepBatch)


@dataclass(slots=True)
class CacheStats:
    """Cumulative prefix-cache counters; requests admitted again after a preemption do not count.

    `external_hits_tokens` are tokens that the host cache served.
    """

    queries_tokens: int = 0
    hits_tokens: int = 0
    external_hits_tokens: int = 0


class Scheduler:
    """Queues and decisions of one engine; knows nothing of time."""

    def __init__(self, config: EngineConfig, kv_cache_manager: KVCacheManager, host_cache: HostCache) -> None:
        self.config = config
        self.kv_cache_manager = kv_cache_manager
        self.host_cache = host_cache
        self.waiting: deque[Request] = deque()
        self.kv_holding_waiting: deque[Request] = deque()  # loaded from host memory, not yet running
        self.loading: set[Request] = set()
        self.running: list[Request] = []
        self.cache_stats = CacheStats()
        self.num_preemptions = 0
        self.num_prompt_tokens = 0
        self.num_generation_tokens = 0

    def add_request(self, request: Request) -> None:
        """Put a request at the end of the waiting queue."""
        self.waiting.append(request)

    def has_unfinished_requests(self) -> bool:
        """Tell whether any request is waiting, loading or running."""
        return bool(self.running or self.waiting or self.kv_holding_waiting or self.loading)

    @property
    def num_waiting(self) -> int:
        """Number of requests that are not running and not finished."""
        return len(self.waiting) + len(self.kv_holding_waiting) + len(self.loading)

    def schedule(self) -> SchedulerOutput:
        """Decide the next step. Progress is counted at once, as vLLM's `_update_after_schedule` does."""
        output = SchedulerOutput()
        threshold = self._long_prefill_token_threshold()
        budget = self._schedule_running(output, self.config.max_num_batched_tokens, threshold)
        if not output.preempted:
            self._schedule_waiting(output, budget, threshold)
        for request, num_tokens in output.scheduled:
            request.num_computed_tokens += num_tokens
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Give each request that caught up its next token; return the finished ones, their blocks freed."""
        finished = []
        for request, _ in output.scheduled:
            if request.num_computed_tokens < request.num_tokens:
                continue  # its prompt is not done
            request.num_tokens += 1
            self.num_generation_tokens += 1
            if request.first_token_s is None:
                request.first_token_s = time_s
                self.num_prompt_tokens += request.num_prompt_tokens
            if request.num_tokens - request.num_prompt_tokens >= request.max_tokens:
                request.status = RequestStatus.FINISHED
                request.finished_s = time_s
                self.kv_cache_manager.free(request)
                finished.append(request)
        if finished:
            self.running = [r for r in self.running if r.status is RequestStatus.RUNNING]
        return finished

    def finish_load(self, request: Request) -> None:
        """Take note that the blocks of a loading request have arrived from host memory."""
        self.loading.remove(request)
        self.kv_cache_manager.cache_blocks(request, request.num_computed_tokens)
        request.status = RequestStatus.PREEMPTED if request.num_preemptions else RequestStatus.WAITING
        self.kv_holding_waiting.append(request)

    def _long_prefill_token_threshold(self) -> int:
        """Cap on one request's tokens per step, 0 for none; a request that is alone is not capped."""
        is_alone = len(self.running) + self.num_waiting <= 1
        return 0 if is_alone else self.config.long_prefill_token_threshold

    def _schedule_running(self, output: SchedulerOutput, budget: int, threshold: int) -> int:
        """Schedule running requests, preempting from the end; return the budget that is left."""
        kv = self.kv_cache_manager
        running = self.running
        index = 0
        while index < len(running) and budget > 0:
            request = running[index]
            num_new_tokens = min(_capped(request.num_tokens - request.num_computed_tokens, threshold), budget)
            while not kv.can_append(request, num_new_tokens):
                victim = running.pop()
                self._preempt(victim)
                output.preempted.append(victim)
                if victim is request:
                    return budget
            kv.append(request, num_new_tokens)
            _put(output, request, num_new_tokens)
            budget -= num_new_tokens
            index += 1
        return budget

    def _schedule_waiting(self, output: SchedulerOutput, budget: int, threshold: int) -> None:
        """Admit waiting requests in order until one does not fit."""
        kv = self.kv_cache_manager
        while budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self._next_admitted(output, budget, threshold)
            if request is None:
                return
            if request.status is RequestStatus.WAITING_FOR_REMOTE_KVS:
                continue
            num_new_tokens = min(_capped(request.num_tokens - request.num_computed_tokens, threshold), budget)
            kv.append(request, num_new_tokens)
            request.status = RequestStatus.RUNNING
            self.running.append(request)
            output.admitted.append(request)
            _put(output, request, num_new_tokens)
            budget -= num_new_tokens

    def _next_admitted(self, output: SchedulerOutput, budget: int, threshold: int) -> Request | None:
        """Take the next request off its queue, with the blocks it hits; `None` if there is none that fits."""
        if self.kv_holding_waiting:
            fits = self._can_start_loaded(self.kv_holding_waiting[0], budget, threshold)
            return self.kv_holding_waiting.popleft() if fits else None
        if self.waiting and self._admit(self.waiting[0], output, budget, threshold):
            return self.waiting.popleft()
        return None

    def _can_start_loaded(self, request: Request, budget: int, threshold: int) -> bool:
        num_new_tokens = request.num_tokens - request.num_computed_tokens
        if not self.config.scheduler_reserve_full_isl:
            num_new_tokens = min(_capped(num_new_tokens, threshold), budget)
        return self.kv_cache_manager.can_append(
            request, num_new_tokens, keep_free_blocks=self._watermark_blocks()
        )

    def _admit(self, request: Request, output: SchedulerOutput, budget: int, threshold: int) -> bool:
        """Give a request the blocks that it hits, or start their load; `False` if it does not fit."""
        kv = self.kv_cache_manager
        computed_blocks = kv.get_computed_blocks(request)
        num_hit_tokens = len(computed_blocks) * kv.block_size
        num_host_blocks = self.host_cache.count_hits(
            request.block_hashes, len(computed_blocks), kv.max_hit_blocks(request)
        )
        num_host_tokens = num_host_blocks * kv.block_size
        keep_free_blocks = self._watermark_blocks() + (self._reserved_blocks() if num_host_blocks else 0)
        if self.config.scheduler_reserve_full_isl or num_host_blocks:
            num_tokens = request.num_tokens
        else:
            num_tokens = num_hit_tokens + min(_capped(request.num_tokens - num_hit_tokens, threshold), budget)
        if not kv.can_admit(request, num_tokens, computed_blocks, keep_free_blocks=keep_free_blocks):
            return False
        self._adopt(request, computed_blocks, num_host_tokens)
        if num_host_blocks:
            output.loads.append((request, num_host_tokens))
        return True

    def _adopt(self, request: Request, computed_blocks: list[KVCacheBlock], num_host_tokens: int) -> None:
        kv = self.kv_cache_manager
        num_hit_tokens = len(computed_blocks) * kv.block_size
        kv.adopt(request, computed_blocks)
        request.num_computed_tokens = num_hit_tokens
        if not request.num_preemptions:
            self.cache_stats.hits_tokens += num_hit_tokens
            self.cache_stats.external_hits_tokens += num_host_tokens
            if self.kv_cache_manager.block_pool.enable_caching:
                self.cache_stats.queries_tokens += request.num_tokens
            request.num_cached_tokens = num_hit_tokens + num_host_tokens
            request.num_host_tokens = num_host_tokens
        if num_host_tokens:
            request.blocks.extend(kv.block_pool.get_new_blocks(num_host_tokens // kv.block_size))
            request.num_computed_tokens += num_host_tokens
            request.status = RequestStatus.WAITING_FOR_REMOTE_KVS
            self.loading.add(request)

    def _watermark_blocks(self) -> int:
        """Blocks to keep free at an admission; none if nothing runs, or a lone request could never start."""
        return self.kv_cache_manager.watermark_blocks if self.running else 0

    def _reserved_blocks(self) -> int:
        """Blocks that prefills and loads in flight still need to get going.

        A load holds its blocks and cannot be preempted, so two of them could wait for each other's for ever;
        hence a load is admitted only if its whole sequence fits beside these.
        """
        block_size = self.kv_cache_manager.block_size
        in_flight = [r for r in self.running if r.num_computed_tokens < r.num_tokens]
        in_flight += [*self.loading, *self.kv_holding_waiting]
        return sum(max(-(-r.num_tokens // block_size) - len(r.blocks), 0) for r in in_flight)

    def _preempt(self, request: Request) -> None:
        self.kv_cache_manager.free(request)
        request.status = RequestStatus.PREEMPTED
        request.known_tokens = max(request.known_tokens, request.num_computed_tokens)
        request.num_computed_tokens = 0
        request.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.appendleft(request)


def _capped(num_tokens: int, threshold: int) -> int:
    return threshold if 0 < threshold < num_tokens else num_tokens


def _put(output: SchedulerOutput, request: Request, num_tokens: int) -> None:
    """Add a request to the step and its work to the step's batch."""
    num_computed_tokens = request.num_computed_tokens
    output.scheduled.append((request, num_tokens))
    is_decode = num_computed_tokens == request.num_tokens - 1 and request.num_output_tokens > 0
    if is_decode:
        output.batch.add_decode(num_computed_tokens)
        return
    num_recomputed_tokens = min(num_tokens, max(0, request.known_tokens - num_computed_tokens))
    request.num_recomputed_tokens += num_recomputed_tokens
    request.known_tokens = max(request.known_tokens, num_computed_tokens + num_tokens)
    output.batch.add_prefill(num_tokens, num_computed_tokens, num_recomputed_tokens)
