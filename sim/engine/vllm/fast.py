"""The fast core: vLLM's scheduler with its decodes as sums, and leaps over steps that are certain beforehand.

On segments; the same decisions as the reference, byte for byte in a run's record.
"""

from collections import deque
from dataclasses import dataclass

from mypy_extensions import mypyc_attr

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request
from concur.sim.engine.stepping import Step, StepCore
from concur.sim.engine.vllm.decodes import Decodes
from concur.sim.engine.vllm.leap import Flight, fly_ahead, fly_decodes, fly_prefill
from concur.sim.engine.vllm.scheduler import Scheduler, _chunk, _is_last_token_in_flight
from concur.sim.kv.segments import SegmentCache
from concur.sim.step_time.step_time import StepTime, StepTotals


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Bulk:
    """A step in flight, and how many members of the decodes it computes that are not in its list."""

    __slots__ = ("num_decodes", "output")

    def __init__(self, output: SchedulerOutput, num_decodes: int) -> None:
        self.output = output
        self.num_decodes = num_decodes


@dataclass(init=False, slots=True)
class Leap:
    """What a leap did: when its last step ended, what was published then, and the steps in flight."""

    end_s: float
    stats: SchedulerStats | None
    steps: list[Step]

    def __init__(
        self,
        end_s: float,
        stats: SchedulerStats | None,
        steps: list[Step],
    ) -> None:
        self.end_s = end_s
        self.stats = stats
        self.steps = steps


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class FastScheduler(Scheduler[SegmentCache]):
    """The reference, where the leading requests that decode are no list but sums.

    `is_quiet`: until a request arrives or finishes, or blocks run out, the coming steps give each running
    request one token, and nobody else gets in.
    """

    def __init__(self, config: EngineConfig, cache: SegmentCache) -> None:
        super().__init__(config, cache)
        self._decodes = Decodes(cache)
        self._in_flight: deque[Bulk] = deque()
        self._is_full = False  # the last decision left somebody waiting, and not for budget
        self.is_quiet = False

    def add_request(self, request: Request) -> None:
        """Put a request into the waiting queue."""
        super().add_request(request)
        if self.waiting[0] is request:  # else the first in line is blocked, and stays so
            self.is_quiet = self._is_full = False

    def schedule(self) -> SchedulerOutput:
        """Decide the next step; the decodes are in its batch, and not in its list."""
        output = SchedulerOutput()
        num_decodes = self._schedule_decodes(output)
        budget = self.config.max_num_batched_tokens - num_decodes
        budget = self._fill(output, budget, first=self._decodes.num_leading)
        self._is_full = budget > 0 and not output.preempted and self._someone_is_blocked()
        if not output.batch.is_empty:
            self._in_flight.append(Bulk(output, num_decodes))
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Give each request that sampled its token; return the finished ones, their blocks freed."""
        finished = []
        num_decodes = self._in_flight.popleft().num_decodes
        if num_decodes:
            self._stats.generation_tokens += num_decodes
            finished = self._decodes.take_output()
            for request in finished:
                self._finish(request, time_s)
        finished += super().update_from_output(output, time_s=time_s)
        self._take_in_decodes(is_blocked=self._is_full and not finished)
        return finished

    def leap(self, step_time: StepTime, totals: StepTotals, *, begin_s: float, until_s: float) -> Leap | None:
        """Run the coming steps at once as far as that is exact, and add them to `totals`; else `None`.

        The last step's output must be in. Steps that end before `until_s` are done; one is left in flight.
        """
        if self.is_quiet:
            flight = fly_decodes(self._decodes, step_time, totals, begin_s=begin_s, until_s=until_s)
            return self._land(flight)
        chunk = self._chunk_of_long_prefill()
        if not chunk:
            return None
        prefill = self.running[-1]
        flight = fly_prefill(
            self._decodes, prefill, chunk, step_time, totals, begin_s=begin_s, until_s=until_s
        )
        return self._land(flight, prefill, chunk)

    def leap_ahead(
        self, step_time: StepTime, totals: StepTotals, *, first_s: float, begin_s: float, until_s: float
    ) -> Leap | None:
        """Do the same where a step that takes `first_s` computes while the next one is decided."""
        decodes = self._decodes
        (bulk,) = self._in_flight
        if not self.is_quiet or bulk.output.scheduled or bulk.num_decodes != decodes.count:
            return None
        if not decodes.steps_to_first_end():
            return None
        flight = fly_ahead(decodes, step_time, totals, first_s=first_s, begin_s=begin_s, until_s=until_s)
        leap = self._land(flight)
        leap.steps.insert(0, Step(bulk.output, flight.in_flight_s))
        return leap

    def _schedule_decodes(self, output: SchedulerOutput) -> int:
        """Schedule one token for every member, or, if that takes more care, for none; return how many."""
        decodes, cache = self._decodes, self.kv_cache_manager
        decodes.let_end()
        if not decodes.num_leading:
            return 0
        num_due = decodes.num_due()
        if decodes.count > self.config.max_num_batched_tokens or not self._fits(num_due):
            self._take_out_all()
            return 0
        if not decodes.count:
            return 0
        if num_due:
            cache.take(num_due)
        output.batch.decode_seqs = decodes.count
        output.batch.context_tokens = decodes.context_tokens
        decodes.advance(1, num_outputs=0)
        return decodes.count

    def _fits(self, num_due: int) -> bool:
        """Tell whether the decodes can have the blocks that they need, and keep them for the step.

        Where somebody who is in the step can be made to make way for those after him, they must fit too.
        """
        cache, num_free_blocks = self.kv_cache_manager, self.kv_cache_manager.num_free_blocks
        if not self._policy.takes_back or num_due > num_free_blocks:
            return num_due <= num_free_blocks
        budget = self.config.max_num_batched_tokens - self._decodes.count
        threshold = self._long_prefill_token_threshold()
        for request in self.running[self._decodes.num_leading :]:
            if budget > 0 and not _is_last_token_in_flight(request):
                num_missing = (
                    request.num_tokens + request.num_output_placeholders - request.num_computed_tokens
                )
                num_new_tokens = _chunk(num_missing, threshold, budget)
                budget -= num_new_tokens
                num_blocks = -(-(request.num_computed_tokens + num_new_tokens) // cache.block_size)
                num_due += max(num_blocks - cache.num_blocks_of(request.request_id), 0)
        return num_due <= num_free_blocks

    def _take_out_all(self) -> None:
        """Turn the sums into a list again, in the step in flight too."""
        with_a_token_in_flight = self._decodes.take_out_all()
        if with_a_token_in_flight:
            bulk = self._in_flight[-1]
            bulk.output.scheduled[:0] = [(request, 1, True) for request in with_a_token_in_flight]
            bulk.num_decodes = 0

    def _take_in_decodes(self, *, is_blocked: bool) -> None:
        """Take in those that decode from now on, and find out if nothing else will happen.

        Nothing else happens if all running requests decode, and either nobody waits or the first in line is
        blocked: the last step had budget left for it, and no blocks or seats have become free since.
        """
        decodes, running = self._decodes, self.running
        while decodes.num_leading < len(running) and _decodes_next(running[decodes.num_leading]):
            decodes.put(running[decodes.num_leading])
        everyone_decodes = decodes.count == len(running) > 0
        self.is_quiet = everyone_decodes and (not self.waiting or is_blocked)

    def _someone_is_blocked(self) -> bool:
        """Tell whether somebody waits who was asked in; with stale output in flight nobody is."""
        return bool(self.waiting) and not self.waiting[0].num_stale_output_tokens

    def _chunk_of_long_prefill(self) -> int:
        """Tokens per step of a last prefill that takes all the budget that the decodes leave, else 0."""
        num_decodes = self._decodes.count
        if num_decodes != len(self.running) - 1 or self.config.long_prefill_token_threshold:
            return 0
        prefill = self.running[-1]
        chunk = self.config.max_num_batched_tokens - num_decodes
        return chunk if prefill.num_tokens - prefill.num_computed_tokens > chunk else 0

    def _land(self, flight: Flight, prefill: Request | None = None, chunk: int = 0) -> Leap:
        """Bring everything up to date; stats are of the moment before the step in flight."""
        decodes, cache = self._decodes, self.kv_cache_manager
        if flight.num_blocks:
            cache.take(flight.num_blocks)
        self._stats.generation_tokens += flight.num_steps * decodes.count
        stats = self.make_stats() if flight.num_steps else None
        if flight.num_next_blocks:
            cache.take(flight.num_next_blocks)
        if decodes.count:
            decodes.advance(flight.num_decided, num_outputs=flight.num_steps)
        if prefill is not None:
            self._land_prefill(flight, prefill, chunk)
        if flight.next_batch is None:
            return Leap(flight.end_s, stats, [])
        output = SchedulerOutput(batch=flight.next_batch)
        self._in_flight.append(Bulk(output, decodes.count))
        self._is_full = prefill is None and self._someone_is_blocked()
        if prefill is None:
            return Leap(flight.end_s, stats, [Step(output, flight.next_s)])
        prefill.num_in_flight_tokens += chunk
        output.scheduled.append((prefill, chunk, False))
        return Leap(flight.end_s, stats, [Step(output, flight.next_s)])

    def _land_prefill(self, flight: Flight, prefill: Request, chunk: int) -> None:
        before = prefill.num_computed_tokens
        num_computed = before + chunk * flight.num_decided
        prefill.num_recomputed_tokens += max(0, min(num_computed, prefill.known_tokens) - before)
        prefill.num_computed_tokens = num_computed
        self.kv_cache_manager.catch_up(prefill.request_id, num_computed, num_computed)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class FastCore(StepCore):
    """An `EngineCore` that leaps where the scheduler can, and steps where it cannot."""

    def __init__(self, config: EngineConfig, step_time: StepTime, scheduler: FastScheduler) -> None:
        super().__init__(config, step_time, scheduler)
        self._fast = scheduler

    def _leap(self, until_s: float) -> None:
        """Go through the steps that end before anything else happens, and leave the next one in flight."""
        leap = self._leap_of_scheduler(until_s)
        if leap is None:
            return
        self.time_s = leap.end_s
        if leap.stats is not None:
            self.stats = leap.stats
        self._steps = deque(leap.steps)

    def _leap_of_scheduler(self, until_s: float) -> Leap | None:
        if self._max_steps_in_flight == 1:
            return self._fast.leap(self.step_time, self.totals, begin_s=self.time_s, until_s=until_s)
        if len(self._steps) != 1:
            return None
        first_s = self._steps[0].duration_s
        return self._fast.leap_ahead(
            self.step_time, self.totals, first_s=first_s, begin_s=self.time_s, until_s=until_s
        )


def _decodes_next(request: Request) -> bool:
    """Tell whether a request lacks only tokens to come, and is scheduled for the next of them."""
    num_known = request.num_tokens + request.num_output_placeholders
    is_decode = request.num_computed_tokens == num_known - 1 and num_known > request.num_prompt_tokens
    return is_decode and num_known < request.num_final_tokens
