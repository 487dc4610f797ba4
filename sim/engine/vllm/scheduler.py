"""vLLM's V1 scheduler: which requests compute how many tokens in the next step.

Semantics of vLLM 0.32.0, `v1/core/sched/scheduler.py` and `async_scheduler.py`; what other releases do
differently stands in `caps_lone_requests` of the configuration and in the policies:

1. *Running* requests first, in order of admission; each gets as many of its uncomputed tokens as the token
   budget and `long_prefill_token_threshold` allow. If its blocks do not fit, the *last* running request is
   preempted, and again, until they do or it was itself preempted.
2. *Waiting* requests next, first come, first served, unless this step preempted: look up the prefix cache,
   demand room (the whole sequence under `scheduler_reserve_full_isl`, `watermark` beside it if anything
   runs), admit. The first that does not fit ends the round.
3. Preemption is by recomputation: blocks are freed (still findable), progress is 0, and the request goes to
   the *front* of the waiting queue.

"Last", "first" and "front" are those of policy `fcfs`; `concur.sim.engine.vllm.policy` has `priority`'s. Who
has to make way may then be in the step already: it is taken out, and its tokens are there for others.

A step may be scheduled before the output of the one before it is in (`async_scheduling`): then a request
counts a *placeholder* for each token to come, is not scheduled past its last token, and cannot be admitted
again after a preemption until its output in flight has arrived. If every output is in before the next call
of `schedule`, these rules never act, and this is the synchronous scheduler. vLLM's loop never decides again
before that output has arrived, so the third of them is for loops that would; in it 0.24 to 0.30 differ.

With a host cache, a waiting request whose next blocks are in host memory allocates them and waits for the
load, as vLLM does for an asynchronous KV connector; when it arrives, the request is admitted before others.

Left out, and not accepted by the scenario file: speculative decoding, LoRA, multi-modal and encoder inputs,
structured output, pipeline parallelism.
"""

from collections import deque
from typing import Generic, TypeVar

from mypy_extensions import mypyc_attr

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request, RequestStatus
from concur.sim.engine.vllm.policy import make_policy
from concur.sim.kv.cache import KVCache
from concur.sim.kv.tier import Tier
from concur.sim.step_time.step_time import StepBatch

Cache = TypeVar("Cache", bound=KVCache)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Scheduler(Generic[Cache]):
    """Queues and decisions of one engine; knows nothing of time."""

    def __init__(self, config: EngineConfig, kv_cache_manager: Cache, tier: Tier | None = None) -> None:
        self.config = config
        self.kv_cache_manager = kv_cache_manager
        self.tier = tier
        self.waiting: deque[Request] = deque()
        self.kv_holding_waiting: deque[Request] = deque()  # loaded from host memory, not yet running
        self.loading: set[Request] = set()
        self.running: list[Request] = []
        self._policy = make_policy(config)
        self._num_added = 0
        self._stats = SchedulerStats()

    def add_request(self, request: Request) -> None:
        """Put a request into the waiting queue."""
        request.arrival_number = self._num_added
        self._num_added += 1
        self._policy.add(self.waiting, request)

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
        self._fill(output, self.config.max_num_batched_tokens)
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Give each request that sampled its token; return the finished ones, their blocks freed."""
        finished = []
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
        return finished

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
            external_prefix_cache_queries_tokens=so_far.external_prefix_cache_queries_tokens,
            external_prefix_cache_hits_tokens=so_far.external_prefix_cache_hits_tokens,
        )

    def finish_load(self, request: Request) -> None:
        """Take note that the blocks of a loading request have arrived from host memory."""
        self.loading.remove(request)
        self._note_arrival(request)
        self._policy.add(self.kv_holding_waiting, request)

    def _note_arrival(self, request: Request) -> None:
        """Make what a request has loaded findable; it waits as before its load."""
        self.kv_cache_manager.cache_blocks(request.request_id, request.num_computed_tokens)
        request.status = RequestStatus.PREEMPTED if request.num_preemptions else RequestStatus.WAITING

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
            self.kv_cache_manager.cache_blocks(request.request_id, num_known_tokens)

    def _finish(self, request: Request, time_s: float) -> None:
        if request.status is RequestStatus.PREEMPTED:  # its last token was in flight, its blocks are free
            self.waiting.remove(request)
        else:
            self.running.remove(request)
            self.kv_cache_manager.free(request.request_id)
        request.status = RequestStatus.FINISHED
        request.finished_s = time_s

    def _long_prefill_token_threshold(self) -> int:
        """Cap on one request's tokens per step, 0 for none; since 0.31 a request that is alone has none."""
        threshold = self.config.long_prefill_token_threshold
        if not threshold or self.config.caps_lone_requests:
            return threshold
        return threshold if len(self.running) + self.num_waiting > 1 else 0

    def _fill(self, output: SchedulerOutput, budget: int, *, first: int = 0) -> int:
        """Schedule running requests from number `first` on, then waiting ones; return the budget left."""
        threshold = self._long_prefill_token_threshold()
        budget = self._schedule_running(output, budget, threshold, first)
        if not output.preempted:
            budget = self._schedule_waiting(output, budget, threshold)
        return budget

    def _schedule_running(self, output: SchedulerOutput, budget: int, threshold: int, first: int) -> int:
        """Schedule running requests, preempting where it must be; return the budget that is left."""
        running = self.running
        index = first
        while index < len(running) and budget > 0:
            request = running[index]
            if _is_last_token_in_flight(request):
                index += 1
                continue
            num_missing = request.num_tokens + request.num_output_placeholders - request.num_computed_tokens
            num_new_tokens = _chunk(num_missing, threshold, budget)
            has_room, num_given_back, num_places = self._make_room(request, num_new_tokens, output)
            budget += num_given_back
            index -= num_places
            if has_room:
                self._put(output, request, num_new_tokens)
                budget -= num_new_tokens
                index += 1
            elif request.status is RequestStatus.RUNNING or not self._policy.goes_on:
                break
        return budget

    def _make_room(
        self, request: Request, num_new_tokens: int, output: SchedulerOutput
    ) -> tuple[bool, int, int]:
        """Preempt until a running request has room, or it is known to get none in this step.

        Returns whether it has, how many tokens those had in the step who were preempted, and by how many
        places the round goes back: as many as stood before it and were preempted, where no turns are lost.
        """
        running = self.running
        num_tokens, num_given_back, num_places = request.num_computed_tokens + num_new_tokens, 0, 0
        while not self.kv_cache_manager.can_append(request.request_id, num_tokens):
            victim = self._policy.victim(running)
            if not self._may_preempt(victim, output):
                return False, num_given_back, num_places
            is_before = running.index(victim) < running.index(request)
            running.remove(victim)
            num_victim_tokens = self._take_back(output, victim)
            num_given_back += num_victim_tokens
            num_places += is_before and (num_victim_tokens > 0 or not self._policy.loses_turns)
            self._preempt(victim)
            output.preempted.append(victim)
            if victim is request:
                return False, num_given_back, num_places
        return True, num_given_back, num_places

    def _may_preempt(self, victim: Request, output: SchedulerOutput) -> bool:
        """Tell whether a running request can give up its blocks now."""
        return True

    def _take_back(self, output: SchedulerOutput, request: Request) -> int:
        """Take a request out of a step again; return how many tokens it had there, 0 if it was not in it."""
        places = [place for place, (other, _, _) in enumerate(output.scheduled) if other is request]
        if not places:
            return 0
        _, num_tokens, samples = output.scheduled.pop(places[0])
        request.num_computed_tokens -= num_tokens
        request.num_in_flight_tokens -= num_tokens
        request.num_output_placeholders -= samples
        part = StepBatch()
        request.num_recomputed_tokens -= _add_work(part, request, num_tokens)
        output.batch.remove(part)
        return num_tokens

    def _schedule_waiting(self, output: SchedulerOutput, budget: int, threshold: int) -> int:
        """Admit waiting requests in order until one does not fit; return the budget that is left."""
        skipped: list[Request] = []
        while budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self._next_admitted(output, budget, threshold, skipped)
            if request is None:
                break
            if request.status is RequestStatus.WAITING_FOR_REMOTE_KVS:
                continue
            budget -= self._start_running(output, request, budget, threshold)
        self._policy.put_back(self.waiting, skipped)
        return budget

    def _start_running(self, output: SchedulerOutput, request: Request, budget: int, threshold: int) -> int:
        """Put a request that has its blocks among those that run, and into the step; return its tokens."""
        num_new_tokens = _chunk(request.num_tokens - request.num_computed_tokens, threshold, budget)
        request.status = RequestStatus.RUNNING
        self.running.append(request)
        output.admitted.append(request)
        self._put(output, request, num_new_tokens)
        return num_new_tokens

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
            request.request_id,
            request.num_computed_tokens + num_new_tokens,
            keep_free_blocks=self._watermark_blocks(),
        )

    def _admit(self, request: Request, output: SchedulerOutput, budget: int, threshold: int) -> bool:
        """Give a request the blocks that it hits, or start their load; `False` if it does not fit."""
        kv, history = self.kv_cache_manager, request.history
        num_hit_blocks = kv.count_hits(history, request.num_tokens)
        num_hit_tokens = num_hit_blocks * kv.block_size
        num_tier_blocks = self._count_tier_hits(request, num_hit_blocks)
        keep_free_blocks = self._watermark_blocks() + (self._reserved_blocks() if num_tier_blocks else 0)
        if self.config.scheduler_reserve_full_isl or num_tier_blocks:
            num_tokens = request.num_tokens
        else:
            num_tokens = num_hit_tokens + _chunk(request.num_tokens - num_hit_tokens, threshold, budget)
        if not kv.can_admit(history, num_hit_blocks, num_tokens, keep_free_blocks=keep_free_blocks):
            return False
        if self.tier is not None and num_tier_blocks:  # before what makes room pushes them out
            self.tier.refresh(history.block_hashes(num_hit_blocks, num_hit_blocks + num_tier_blocks))
        self._adopt(request, num_hit_blocks, num_tier_blocks)
        if num_tier_blocks:
            output.loads.append((request, num_tier_blocks * kv.block_size))
        return True

    def _count_tier_hits(self, request: Request, num_hit_blocks: int) -> int:
        if self.tier is None:
            return 0
        limit = self.kv_cache_manager.max_hit_blocks(request.num_tokens)
        return self.tier.count_hits(request.history.block_hashes(num_hit_blocks, limit))

    def _adopt(self, request: Request, num_hit_blocks: int, num_tier_blocks: int) -> None:
        kv = self.kv_cache_manager
        num_hit_tokens, num_tier_tokens = num_hit_blocks * kv.block_size, num_tier_blocks * kv.block_size
        kv.adopt(request.request_id, request.history, num_hit_blocks)
        request.num_computed_tokens = num_hit_tokens
        if not request.num_preemptions:
            stats = self._stats
            stats.prefix_cache_hits_tokens += num_hit_tokens
            stats.prefix_cache_queries_tokens += request.num_tokens if kv.enable_caching else 0
            if self.tier is not None:
                stats.external_prefix_cache_queries_tokens += request.num_tokens - num_hit_tokens
                stats.external_prefix_cache_hits_tokens += num_tier_tokens
            request.num_cached_tokens = num_hit_tokens + num_tier_tokens
            request.num_host_tokens = num_tier_tokens
        if num_tier_blocks:
            kv.extend(request.request_id, num_tier_blocks)
            request.num_computed_tokens += num_tier_tokens
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
        kv = self.kv_cache_manager
        in_flight = [r for r in self.running if r.num_computed_tokens < r.num_tokens]
        in_flight += [*self.loading, *self.kv_holding_waiting]
        return sum(
            max(-(-r.num_tokens // kv.block_size) - kv.num_blocks_of(r.request_id), 0) for r in in_flight
        )

    def _preempt(self, request: Request) -> None:
        self.kv_cache_manager.free(request.request_id)
        request.status = RequestStatus.PREEMPTED
        request.known_tokens = max(request.known_tokens, request.num_computed_tokens)
        request.num_computed_tokens = 0
        request.num_stale_output_tokens = request.num_in_flight_tokens
        request.num_output_placeholders = 0
        request.num_preemptions += 1
        self._stats.num_preemptions += 1
        self._policy.put_back(self.waiting, [request])

    def _put(self, output: SchedulerOutput, request: Request, num_tokens: int) -> None:
        """Give a request its slots, add it to the step and its work to the batch, and count its progress."""
        num_computed = request.num_computed_tokens
        num_known = request.num_tokens + request.num_output_placeholders
        request.num_recomputed_tokens += _add_work(output.batch, request, num_tokens)
        num_then = num_computed + num_tokens
        self.kv_cache_manager.append(request.request_id, num_then, min(num_then, request.num_tokens))
        samples = num_then == num_known
        request.num_computed_tokens = num_then
        request.num_in_flight_tokens += num_tokens
        request.num_output_placeholders += samples
        output.scheduled.append((request, num_tokens, samples))


def _add_work(batch: StepBatch, request: Request, num_tokens: int) -> int:
    """Add to a batch what a request's next tokens cost; return how many of them were computed before."""
    num_computed = request.num_computed_tokens
    num_known = request.num_tokens + request.num_output_placeholders
    if num_computed == num_known - 1 and num_known > request.num_prompt_tokens:
        batch.add_decode(num_computed)
        return 0
    num_recomputed = min(num_tokens, max(0, request.known_tokens - num_computed))
    batch.add_prefill(num_tokens, num_computed, num_recomputed)
    return num_recomputed


def _chunk(num_missing: int, threshold: int, budget: int) -> int:
    """Return how many of a request's missing tokens one step computes; a threshold of 0 is none."""
    return min(threshold if 0 < threshold < num_missing else num_missing, budget)


def _is_last_token_in_flight(request: Request) -> bool:
    """Tell whether a step in flight is sure to sample the request's last token."""
    placeholders = request.num_output_placeholders
    num_sure_tokens = request.num_computed_tokens + 2 - placeholders
    return placeholders > 0 and num_sure_tokens >= request.num_final_tokens
