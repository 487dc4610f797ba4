"""SGLang's scheduler: which requests prefill or decode in the next batch.

Semantics of SGLang 0.5.23, `managers/scheduler.py`, `managers/schedule_batch.py` and
`managers/scheduler_components/batch_result_processor.py`:

1. A batch prefills or decodes, and prefills go first: whoever waits and fits gets in before any decode goes
   on. With `enable_mixed_chunk` the decodes join the prefill if there is room.
2. A prefill longer than `chunked_prefill_size` goes on in the next pass, before anybody else.
3. When decodes outgrow the pool, those with the shortest answers (of these, with the longest prompts) are
   retracted: their slots are freed at once, not cached, and they go to the *end* of the queue. If the last
   finds no room even so, SGLang aborts it, and the run ends: with HiCache, what is being copied to the host
   stays in the pool.
4. What a request has computed is put into the tree after each chunk, after its prefill, and at its end.
5. How much of `max_new_tokens` is expected of those who run is `new_token_ratio`; it falls with every decode
   step and is set anew by a retraction.

A batch may be decided before the output of the one before it is in (the default; `disable_overlap_schedule`).
Then answers that end by their length are foreseen, those that end by themselves decode one token too many,
and the token in flight of whoever is retracted is lost.
"""

from collections import deque
from typing import Final

from mypy_extensions import mypyc_attr

from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request, RequestStatus
from concur.sim.engine.sglang.output import BatchOutput
from concur.sim.engine.sglang.policy import SchedulePolicy
from concur.sim.engine.sglang.prefill_adder import PrefillAdder, Verdict
from concur.sim.engine.sglang.ratio import NewTokenRatio
from concur.sim.engine.sglang.req import Req
from concur.sim.engine.sglang.signals import Signals
from concur.sim.engine.sglang.slots import Slots
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.errors import RequestAbortedError
from concur.sim.kv.radix import RadixTree

_RETRACT_DECODE_STEPS: Final = 20
"""Tokens per request that stays, freed with each retraction (`SGLANG_RETRACT_DECODE_STEPS`)."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Scheduler:
    """Queues and decisions of one engine; knows nothing of time.

    `is_full`: nobody is tried until somebody has left. `chunked` is in the middle of its prefill.
    """

    def __init__(self, config: SglangConfig, tree: RadixTree) -> None:
        self.config = config
        self.tree = tree
        self.ratio = NewTokenRatio(config.schedule_conservativeness)
        self.waiting: list[Req] = []
        self.running: list[Req] = []
        self.chunked: Req | None = None
        self.is_full = False
        self._policy = SchedulePolicy(config.schedule_policy, tree)
        self._slots = Slots(tree, config.max_running_requests)
        self._signals = Signals(tree, config.pool_tokens)
        self._last: BatchOutput | None = None
        self._in_flight: deque[BatchOutput] = deque()

    def add_request(self, request: Request) -> None:
        """Put a request at the end of the queue."""
        asked = request.num_final_tokens - request.num_prompt_tokens
        if request.max_new_tokens is not None:
            asked = max(asked, request.max_new_tokens)
        self.waiting.append(Req(request, min(asked, self.config.max_new_tokens(request.num_prompt_tokens))))

    def has_unfinished_requests(self) -> bool:
        """Tell whether anybody waits or runs, or a batch is in flight."""
        return bool(self.waiting or self._in_flight or self.chunked) or self._someone_runs()

    def schedule(self) -> BatchOutput:
        """Decide the next batch (`get_next_batch_to_run`); an empty one is none."""
        self.tree.take_acknowledged()
        self._take_in_last()
        output = self._prefill()
        if output is None and self.running:
            output = self._decode()
        self._last = output
        if output is None:
            return BatchOutput(is_extend=False)
        self._in_flight.append(output)
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Give each request that sampled its token; return the finished ones."""
        assert isinstance(output, BatchOutput)
        self._in_flight.popleft()
        finished = [
            req.request for req in output.reqs if self._take_result(req, output, time_s) and req.is_finished
        ]
        self.tree.start_writing()
        self._signals.note_batch(output, num_queued=len(self.waiting))
        return finished

    def finish_load(self, request: Request) -> None:
        """Never called: loads are acknowledged, see `RadixTree.take_acknowledged`."""
        raise AssertionError(f"{request.request_id} is told of a load, and nobody waits for one")

    def make_stats(self) -> SchedulerStats:
        """Return the gauges as last refreshed, and the counters so far, as a value of its own."""
        return self._signals.published()

    def has_transfers(self) -> bool:
        """Tell whether something is on its way from one tier to the other."""
        return self.tree.has_transfers

    def tier_metrics(self) -> dict[str, float]:
        """Return what went from one tier to the other, by the names of SGLang's counters."""
        return self.tree.tier_metrics() | {"host_hit_tokens": self._signals.host_hit_tokens}

    def rest(self) -> None:
        """Take note that there is nothing to do: the estimate of answers starts anew (`on_idle`)."""
        self.ratio.reset()
        self._last = None
        self._signals.note_idle()

    def _someone_runs(self) -> bool:
        last = self._last.reqs if self._last is not None and self._last.is_extend else []
        return any(not req.is_finished for req in (*self.running, *last))

    # -- what the last batch leaves behind

    def _take_in_last(self) -> None:
        """Keep what a chunk has computed, and let those who have prefilled decode from now on."""
        excluded = {self.chunked}
        if self.chunked is not None and self.chunked.extend_end > self.chunked.prefix_tokens:
            self._slots.checkpoint(self.chunked, self.chunked.extend_end)
            self.chunked.prefix_tokens = self.chunked.extend_end
        last = self._last
        if last is not None and last.is_extend:
            excluded.add(last.chunked)
            stay = [req for req in last.reqs if not req.is_finished and req not in excluded]
            if len(stay) < len(last.reqs):
                self.is_full = False
            if stay and not self.running:
                self.is_full = False  # that batch is the running one now, and was never full
            self.running = self.running + stay
        self._drop_finished()

    def _drop(self, reqs: set[Req]) -> None:
        """Let some leave those who run: there may be room again."""
        if reqs:
            self.running = [req for req in self.running if req not in reqs]
            self.is_full = False

    # -- prefill

    def _prefill(self) -> BatchOutput | None:
        """Put a prefill together (`_get_new_batch_prefill_raw`); `None` if nobody gets in."""
        if not self.running:
            self.is_full = False
        if self.chunked is None:
            if self.is_full or not self.waiting:
                return None
            if min(self._num_seats, self._slots.num_free_rows) <= 0:
                self.is_full = True
                return None
        adder = self._admitted()
        if not adder.admitted:
            return None
        admitted = set(adder.admitted)
        self.waiting = [req for req in self.waiting if req not in admitted]
        if adder.new_chunked is not None:
            self.chunked = adder.new_chunked
        if self.chunked is not None:
            self.chunked.num_middle_chunks += 1
        output = self._launch_prefill(adder.admitted)
        if self.config.enable_mixed_chunk and self.running:
            self._mix_in(output)
        return output

    def _admitted(self) -> PrefillAdder:
        """Try the chunk that goes on, then those who wait, until one does not get in."""
        self._policy.order(self.waiting)
        num_mixed = len(self.running) if self.config.enable_mixed_chunk else 0
        adder = self._new_adder(num_mixed)
        if self.chunked is not None:
            self.chunked.fill_tokens = self.chunked.request.num_tokens
            self.chunked = adder.add_chunked(self.chunked)
        for req in self.waiting:
            if adder.is_spent:
                break
            num_rows = self._slots.num_free_rows + sum(each.has_row for each in adder.admitted)
            if len(adder.admitted) >= min(self._num_seats, num_rows):
                self.is_full = True
            if self.is_full:
                break
            self._slots.match(req)
            verdict = adder.add(req)
            if verdict is not Verdict.CONTINUE:
                if verdict is Verdict.NO_TOKEN:
                    self.is_full = bool(adder.admitted or self.running)
                break
        return adder

    def _new_adder(self, num_mixed: int) -> PrefillAdder:
        """Return the budgets of a pass."""
        return PrefillAdder(
            self.config, self.tree, self.running, new_token_ratio=self.ratio.current, num_mixed=num_mixed
        )

    @property
    def _num_seats(self) -> int:
        return self.config.max_running_requests - len(self.running)

    def _launch_prefill(self, reqs: list[Req]) -> BatchOutput:
        """Make a batch of those who got in (`prepare_for_extend`)."""
        output = BatchOutput(is_extend=True, chunked=self.chunked, num_running=len(self.running))
        self.tree.start_loading()
        self._slots.extend(reqs)
        for req in reqs:
            req.is_retracted = False
            if not req.has_row:
                self._seat(req, output)
            output.add_extend(req, samples=req is not self.chunked)
        return output

    def _seat(self, req: Req, output: BatchOutput) -> None:
        """Take note that a request runs from now on."""
        self._slots.num_free_rows -= 1
        req.has_row = True
        request = req.request
        request.status = RequestStatus.RUNNING
        if request.num_cached_tokens < 0:
            request.num_cached_tokens = req.prefix_tokens
            request.num_host_tokens = req.loaded_tokens
            output.host_hit_tokens += req.loaded_tokens
        output.admitted.append(request)

    def _mix_in(self, output: BatchOutput) -> None:
        """Let the decodes join a prefill, if there is room for their next tokens too."""
        self._drop(self._leaving())
        if not self.running or not self._may_mix():
            return
        self._launch_decode(output)
        for req in self.running:
            req.fill_tokens = req.request.num_tokens
            req.extend_end = req.kv_tokens
        output.decoding = frozenset(self.running)
        self.running = []

    # -- decode

    def _decode(self) -> BatchOutput | None:
        """Let all that run decode (`update_running_batch`); `None` skips the step."""
        leaving = self._leaving()
        self._drop(leaving)
        if not self.running:
            self.is_full = False
            return None
        output = BatchOutput(is_extend=False)
        if self._slots.has_room(self.running):
            self.ratio.decay_step()
        elif self._will_free_room(leaving):
            self.is_full = False
            return None
        else:
            self._retract(output)
        self._launch_decode(output)
        return output

    def _launch_decode(self, output: BatchOutput) -> None:
        """Put all that run into a batch (`prepare_for_decode`)."""
        self._slots.append(self.running)
        for req in self.running:
            output.add_decode(req)

    def _drop_finished(self) -> None:
        """Let those who have their last token go before anybody is tried."""
        self._drop({req for req in self.running if req.is_finished})

    def _may_mix(self) -> bool:
        """Tell whether there is room for the decodes beside the prefill."""
        return self._slots.has_room(self.running)

    def _will_free_room(self, leaving: set[Req]) -> bool:
        """Tell whether waiting for the step in flight helps: those who leave free theirs at its end."""
        return bool(leaving)

    def _leaving(self) -> set[Req]:
        """Return those who run and do not decode again."""
        return self._finishing_in_flight()

    def _finishing_in_flight(self) -> set[Req]:
        """Return those who run and get the last token that they may have from the batch in flight."""
        if not self._in_flight:
            return set()
        in_flight = set(self._in_flight[-1].reqs)
        return {req for req in self.running if req in in_flight and req.num_left_tokens <= 1}

    def _retract(self, output: BatchOutput) -> None:
        """Take slots from those with the shortest answers until the others can go on (`retract_decode`)."""
        stay = sorted(
            self.running,
            key=lambda req: (req.request.num_output_tokens, -req.request.num_prompt_tokens),
            reverse=True,
        )
        while len(stay) > 1 and (not output.preempted or not self._slots.has_room(stay)):
            req = stay.pop()
            self._slots.release(req)
            self.tree.make_room(len(stay) * _RETRACT_DECODE_STEPS)
            self._requeue(req)
            output.preempted.append(req.request)
        if not self._slots.has_room(stay):
            raise aborted(stay[0].request.request_id, self.config)
        self.running = stay
        self.is_full = False
        self.ratio.estimate_after_retraction(self.running, _RETRACT_DECODE_STEPS)

    def _requeue(self, req: Req) -> None:
        request = req.request
        req.prefix_tokens = req.protected_tokens = req.num_middle_chunks = req.num_matched_tokens = 0
        req.inserted_tokens = req.loaded_tokens = 0
        req.is_retracted = True
        request.status = RequestStatus.PREEMPTED
        request.known_tokens = max(request.known_tokens, request.num_computed_tokens)
        request.num_computed_tokens = 0
        request.num_preemptions += 1
        self._signals.num_retractions += 1
        self.waiting.append(req)

    # -- results

    def _take_result(self, req: Req, output: BatchOutput, time_s: float) -> bool:
        """Give a request what the batch computed for it; tell whether it got a token."""
        if req.is_retracted or (req.is_finished and req.num_middle_chunks <= 0):
            return False
        if output.is_extend and req.num_middle_chunks > 0:
            req.num_middle_chunks -= 1
            return False
        self._add_token(req.request, time_s)
        if req.is_finished:
            self._finish(req, time_s)
        elif output.is_extend and req not in output.decoding:
            self._slots.checkpoint(req, req.extend_end)
            req.prefix_tokens = req.extend_end
        return True

    def _add_token(self, request: Request, time_s: float) -> None:
        request.num_tokens += 1
        if request.first_token_s is None:
            request.first_token_s = time_s

    def _finish(self, req: Req, time_s: float) -> None:
        request = req.request
        self._slots.checkpoint_at_end(req)
        self._slots.release(req)
        request.status = RequestStatus.FINISHED
        request.finished_s = time_s
        self._signals.note_end(request)


def aborted(request_id: str, config: SglangConfig) -> RequestAbortedError:
    """Return the error of a request that SGLang aborts, with all others retracted (`retract_decode`)."""
    return RequestAbortedError(
        f"engine.max_total_num_tokens = {config.max_total_num_tokens} is too few for this run: SGLang aborts "
        f"request {request_id}, which finds no room for its next token though all others were retracted, "
        "for what is on its way to the host, or in the middle of its prefill, stays; give the engine more"
    )
