"""vLLM's V1 scheduler: which requests compute how many tokens in the next step.

Semantics of vLLM 0.32.0, `v1/core/sched/scheduler.py` and `async_scheduler.py`, policy `fcfs`:

1. *Running* requests first, in order of admission; each gets as many of its uncomputed tokens as the token
   budget and `long_prefill_token_threshold` allow. If its blocks do not fit, the *last* running request is
   preempted, and again, until they do or it was itself preempted.
2. *Waiting* requests next, first come, first served, unless this step preempted: look up the prefix cache,
   demand room (the whole sequence under `scheduler_reserve_full_isl`, `watermark` beside it if anything
   runs), admit. The first that does not fit ends the round.
3. Preemption is by recomputation: blocks are freed (still findable), progress is 0, and the request goes to
   the *front* of the waiting queue.

A step may be scheduled before the output of the one before it is in (`async_scheduling`): then a request
counts a *placeholder* for each token to come, is not scheduled past its last token, and cannot be admitted
again after a preemption until its output in flight has arrived. If every output is in before the next call
of `schedule`, these rules never act, and this is the synchronous scheduler.

With a host cache, a waiting request whose next blocks are in host memory allocates them and waits for the
load, as vLLM does for an asynchronous KV connector; when it arrives, the request is admitted before others.

Left out, and not accepted by the scenario file: speculative decoding, LoRA, multi-modal and encoder inputs,
structured output, priorities, pipeline parallelism.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from concur.sim.engine.bulk import count_leading_decodes, schedule_decodes, take_decoded
from concur.sim.engine.config import EngineConfig
from concur.sim.engine.leap import (
    Decodes,
    Flight,
    Leap,
    fly_decodes,
    fly_prefill,
    land_decodes,
    land_prefill,
    look_ahead,
)
from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request, RequestStatus
from concur.sim.kv.host_cache import HostCache
from concur.sim.kv.interface import KVCache
from concur.sim.kv.segments import SegmentCache
from concur.sim.step_time.step_time import StepTime, StepTotals


class Scheduler:
    """Queues and decisions of one engine; knows nothing of time."""

    def __init__(
        self, config: EngineConfig, kv_cache_manager: KVCache, host_cache: HostCache | None = None
    ) -> None:
        self.config = config
        self.kv_cache_manager = kv_cache_manager
        self.host_cache = host_cache
        self.waiting: deque[Request] = deque()
        self.kv_holding_waiting: deque[Request] = deque()  # loaded from host memory, not yet running
        self.loading: set[Request] = set()
        self.running: list[Request] = []
        self._stats = SchedulerStats()
        self._num_decodes = 0
        self._only_decodes = False

    def add_request(self, request: Request) -> None:
        """Put a request at the end of the waiting queue."""
        if not self.waiting:  # else the first in line is blocked, and stays so
            self._only_decodes = False
        self.waiting.append(request)

    def new_chain(self, prefix_group: str | None, shared_prefix_tokens: int) -> Any:
        """Return what names the blocks of an agent that has not called yet."""
        return self.kv_cache_manager.new_chain(prefix_group, shared_prefix_tokens)

    def has_unfinished_requests(self) -> bool:
        """Tell whether any request is waiting, loading or running."""
        return bool(self.running or self.waiting or self.kv_holding_waiting or self.loading)

    @property
    def num_waiting(self) -> int:
        """Number of requests that are not running and not finished."""
        return len(self.waiting) + len(self.kv_holding_waiting) + len(self.loading)

    def schedule(self) -> SchedulerOutput:
        """Decide the next step; its progress counts at once, its output with `update_from_output`."""
        output = SchedulerOutput()
        threshold = self._long_prefill_token_threshold()
        budget = self.config.max_num_batched_tokens
        schedule_decodes(self.running[: self._num_decodes], self.kv_cache_manager, output, budget)
        budget = self._schedule_running(output, budget - len(output.decodes), threshold)
        if not output.preempted:
            self._schedule_waiting(output, budget, threshold)
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Give each request that sampled its token; return the finished ones, their blocks freed."""
        finished = take_decoded(output.decodes)
        self._stats.generation_tokens += len(output.decodes)
        for request, num_tokens, samples in output.scheduled:
            request.num_in_flight_tokens -= num_tokens
            is_stale = request.num_stale_output_tokens > 0
            if is_stale:
                request.num_stale_output_tokens -= num_tokens
            if samples:
                self._add_token(request, is_stale, time_s)
                if request.num_tokens == request.num_final_tokens:
                    finished.append(request)
        for request in finished:
            self._finish(request, time_s)
        self._take_note_of_decodes(output, len(finished))
        return finished

    def leap(self, step_time: StepTime, totals: StepTotals, *, begin_s: float, until_s: float) -> Leap | None:
        """Run the coming steps at once as far as that is exact, and add them to `totals`; else `None`.

        For synchronous scheduling on segments, where the last step's output is in.
        """
        cache = self.kv_cache_manager
        if not isinstance(cache, SegmentCache):
            return None
        if self._only_decodes:
            decodes = look_ahead(self.running, cache.block_size)
            flight = fly_decodes(
                decodes, cache.num_free_blocks, step_time, totals, begin_s=begin_s, until_s=until_s
            )
            return self._land(cache, flight, decodes)
        chunk = self._chunk_of_long_prefill()
        if not chunk:
            return None
        prefill = self.running[-1]
        decodes = look_ahead(self.running[:-1], cache.block_size)
        flight = fly_prefill(
            decodes,
            prefill,
            chunk,
            cache.num_free_blocks,
            step_time,
            totals,
            begin_s=begin_s,
            until_s=until_s,
        )
        return self._land(cache, flight, decodes, prefill, chunk)

    def _chunk_of_long_prefill(self) -> int:
        """Tokens per step of a last prefill that takes all the budget that the decodes leave, else 0."""
        num_decodes = self._num_decodes
        if num_decodes != len(self.running) - 1 or self.config.long_prefill_token_threshold:
            return 0
        prefill = self.running[-1]
        chunk = self.config.max_num_batched_tokens - num_decodes
        return chunk if prefill.num_tokens - prefill.num_computed_tokens > chunk else 0

    def _land(
        self,
        cache: SegmentCache,
        flight: Flight,
        decodes: Decodes,
        prefill: Request | None = None,
        chunk: int = 0,
    ) -> Leap:
        """Bring everything up to date; stats are of the moment before the step in flight."""
        if flight.num_blocks:
            cache.take(flight.num_blocks)
        self._stats.generation_tokens += flight.num_steps * len(decodes.requests)
        stats = self.make_stats() if flight.num_steps else None
        if flight.num_next_blocks:
            cache.take(flight.num_next_blocks)
        land_decodes(decodes, flight, cache)
        if prefill is not None:
            land_prefill(prefill, chunk, flight, cache)
        if flight.next_batch is None:
            return Leap(flight, stats, None)
        output = SchedulerOutput(batch=flight.next_batch, decodes=decodes.requests[:])
        if prefill is None:
            output.is_full = bool(self.waiting)  # whoever waits is blocked, or nobody would leap
        else:
            output.scheduled.append((prefill, chunk, False))
        return Leap(flight, stats, output)

    def _take_note_of_decodes(self, output: SchedulerOutput, num_finished: int) -> None:
        """Count the leading running requests that decode next, and find out if nothing else will happen.

        Nothing else happens, until a request arrives or finishes or is preempted, if all running requests
        decode, and nobody waits whom the last step could have admitted with more budget, or the next one
        could with the blocks that have become free.
        """
        if self.config.async_scheduling:
            return
        num_running = len(self.running)
        if len(output.decodes) - num_finished == num_running:  # they all decoded: so they will again
            self._num_decodes = num_running
        else:
            self._num_decodes = count_leading_decodes(self.running)
        nobody_waits = not self.waiting and not self.loading and not self.kv_holding_waiting
        is_blocked = output.is_full and not num_finished
        everyone_decodes = self._num_decodes == num_running > 0
        self._only_decodes = everyone_decodes and (nobody_waits or is_blocked)

    def make_stats(self) -> SchedulerStats:
        """Return the gauges of this moment and the counters so far, as a value of its own."""
        so_far, kv = self._stats, self.kv_cache_manager
        return SchedulerStats(
            num_requests_running=len(self.running),
            num_requests_waiting=self.num_waiting,
            kv_cache_usage_frac=kv.get_usage(),
            kv_cache_resident_frac=kv.get_resident(),
            prefix_cache_queries_tokens=so_far.prefix_cache_queries_tokens,
            prefix_cache_hits_tokens=so_far.prefix_cache_hits_tokens,
            num_preemptions=so_far.num_preemptions,
            prompt_tokens=so_far.prompt_tokens,
            generation_tokens=so_far.generation_tokens,
            num_evictions=kv.num_evictions,
        )

    def finish_load(self, request: Request) -> None:
        """Take note that the blocks of a loading request have arrived from host memory."""
        self.loading.remove(request)
        self.kv_cache_manager.cache_blocks(request, request.num_computed_tokens)
        request.status = RequestStatus.PREEMPTED if request.num_preemptions else RequestStatus.WAITING
        self.kv_holding_waiting.append(request)

    def _add_token(self, request: Request, is_stale: bool, time_s: float) -> None:
        request.num_tokens += 1
        self._stats.generation_tokens += 1
        if request.first_token_s is None:
            request.first_token_s = time_s
            self._stats.prompt_tokens += request.num_prompt_tokens
        if not is_stale:
            request.num_output_placeholders -= 1
        if request.status is RequestStatus.RUNNING:
            num_known_tokens = request.num_computed_tokens - request.num_output_placeholders
            self.kv_cache_manager.cache_blocks(request, num_known_tokens)

    def _finish(self, request: Request, time_s: float) -> None:
        if request.status is RequestStatus.PREEMPTED:  # its last token was in flight
            self.waiting.remove(request)
        else:
            self.running.remove(request)
        request.status = RequestStatus.FINISHED
        request.finished_s = time_s
        self.kv_cache_manager.free(request)

    def _long_prefill_token_threshold(self) -> int:
        """Cap on one request's tokens per step, 0 for none; a request that is alone is not capped."""
        threshold = self.config.long_prefill_token_threshold
        return threshold if threshold and len(self.running) + self.num_waiting > 1 else 0

    def _schedule_running(self, output: SchedulerOutput, budget: int, threshold: int) -> int:
        """Schedule running requests, preempting from the end; return the budget that is left."""
        kv = self.kv_cache_manager
        running = self.running
        index = len(output.decodes)
        while index < len(running) and budget > 0:
            request = running[index]
            if _is_last_token_in_flight(request):
                index += 1
                continue
            num_missing = request.num_tokens + request.num_output_placeholders - request.num_computed_tokens
            num_new_tokens = _chunk(num_missing, threshold, budget)
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
        skipped: list[Request] = []
        while budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self._next_admitted(output, budget, threshold, skipped)
            if request is None:
                output.is_full = self._someone_waits()
                break
            if request.status is RequestStatus.WAITING_FOR_REMOTE_KVS:
                continue
            num_new_tokens = _chunk(request.num_tokens - request.num_computed_tokens, threshold, budget)
            kv.append(request, num_new_tokens)
            request.status = RequestStatus.RUNNING
            self.running.append(request)
            output.admitted.append(request)
            _put(output, request, num_new_tokens)
            budget -= num_new_tokens
        else:
            output.is_full = budget > 0 and self._someone_waits()
        self.waiting.extendleft(reversed(skipped))

    def _someone_waits(self) -> bool:
        """Tell whether a request could be asked in; in this step `skipped` ones could not."""
        return bool(self.waiting or self.kv_holding_waiting)

    def _next_admitted(
        self, output: SchedulerOutput, budget: int, threshold: int, skipped: list[Request]
    ) -> Request | None:
        """Take the next request off its queue, with the blocks it hits; `None` if there is none that fits.

        Requests with stale output in flight move to `skipped`.
        """
        if self.kv_holding_waiting:
            fits = self._can_start_loaded(self.kv_holding_waiting[0], budget, threshold)
            return self.kv_holding_waiting.popleft() if fits else None
        while self.waiting and self.waiting[0].num_stale_output_tokens:
            skipped.append(self.waiting.popleft())
        if self.waiting and self._admit(self.waiting[0], output, budget, threshold):
            return self.waiting.popleft()
        return None

    def _can_start_loaded(self, request: Request, budget: int, threshold: int) -> bool:
        num_new_tokens = request.num_tokens - request.num_computed_tokens
        if not self.config.scheduler_reserve_full_isl:
            num_new_tokens = _chunk(num_new_tokens, threshold, budget)
        return self.kv_cache_manager.can_append(
            request, num_new_tokens, keep_free_blocks=self._watermark_blocks()
        )

    def _admit(self, request: Request, output: SchedulerOutput, budget: int, threshold: int) -> bool:
        """Give a request the blocks that it hits, or start their load; `False` if it does not fit."""
        kv = self.kv_cache_manager
        computed_blocks = kv.get_computed_blocks(request)
        num_hit_tokens = len(computed_blocks) * kv.block_size
        num_host_blocks = self._count_host_hits(request, len(computed_blocks))
        num_host_tokens = num_host_blocks * kv.block_size
        keep_free_blocks = self._watermark_blocks() + (self._reserved_blocks() if num_host_blocks else 0)
        if self.config.scheduler_reserve_full_isl or num_host_blocks:
            num_tokens = request.num_tokens
        else:
            num_tokens = num_hit_tokens + _chunk(request.num_tokens - num_hit_tokens, threshold, budget)
        if not kv.can_admit(request, num_tokens, computed_blocks, keep_free_blocks=keep_free_blocks):
            return False
        if self.host_cache is not None and num_host_blocks:  # before what makes room pushes them out
            first = len(computed_blocks)
            self.host_cache.refresh(request.chain.block_hashes, first, first + num_host_blocks)
        self._adopt(request, computed_blocks, num_host_tokens)
        if num_host_blocks:
            output.loads.append((request, num_host_tokens))
        return True

    def _count_host_hits(self, request: Request, num_hit_blocks: int) -> int:
        if self.host_cache is None:
            return 0
        limit = self.kv_cache_manager.max_hit_blocks(request)
        return self.host_cache.count_hits(request.chain.block_hashes, num_hit_blocks, limit)

    def _adopt(self, request: Request, computed_blocks: Sequence[Any], num_host_tokens: int) -> None:
        kv = self.kv_cache_manager
        num_hit_tokens = len(computed_blocks) * kv.block_size
        kv.adopt(request, computed_blocks)
        request.num_computed_tokens = num_hit_tokens
        if not request.num_preemptions:
            stats = self._stats
            stats.prefix_cache_hits_tokens += num_hit_tokens
            stats.prefix_cache_queries_tokens += request.num_tokens if kv.enable_caching else 0
            request.num_cached_tokens = num_hit_tokens + num_host_tokens
            request.num_host_tokens = num_host_tokens
        if num_host_tokens:
            kv.extend(request, num_host_tokens // kv.block_size)
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
        request.num_stale_output_tokens = request.num_in_flight_tokens
        request.num_output_placeholders = 0
        request.num_preemptions += 1
        self._stats.num_preemptions += 1
        self.waiting.appendleft(request)


def _chunk(num_missing: int, threshold: int, budget: int) -> int:
    """Return how many of a request's missing tokens one step computes; a threshold of 0 is none."""
    return min(threshold if 0 < threshold < num_missing else num_missing, budget)


def _is_last_token_in_flight(request: Request) -> bool:
    """Tell whether a step in flight is sure to sample the request's last token."""
    placeholders = request.num_output_placeholders
    num_sure_tokens = request.num_computed_tokens + 2 - placeholders
    return placeholders > 0 and num_sure_tokens >= request.num_final_tokens


def _put(output: SchedulerOutput, request: Request, num_tokens: int) -> None:
    """Add a request to the step, its work to the step's batch, and count its progress."""
    num_computed = request.num_computed_tokens
    num_known = request.num_tokens + request.num_output_placeholders
    if num_computed == num_known - 1 and num_known > request.num_prompt_tokens:
        output.batch.add_decode(num_computed)
    else:
        num_recomputed = min(num_tokens, max(0, request.known_tokens - num_computed))
        request.num_recomputed_tokens += num_recomputed
        output.batch.add_prefill(num_tokens, num_computed, num_recomputed)
    samples = num_computed + num_tokens == num_known
    request.num_computed_tokens += num_tokens
    request.num_in_flight_tokens += num_tokens
    request.num_output_placeholders += samples
    output.scheduled.append((request, num_tokens, samples))
