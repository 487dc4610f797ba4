"""The fast core of SGLang: the reference, with leaps over decode steps that are certain beforehand.

The same decisions as the reference, byte for byte in a run's record.
"""

from collections import deque

from mypy_extensions import mypyc_attr

from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.engine.sglang.core import SglangCore, build_sglang_core
from concur.sim.engine.sglang.leap import Decodes, Flight, Memory, fly
from concur.sim.engine.sglang.output import BatchOutput
from concur.sim.engine.sglang.req import Req
from concur.sim.engine.sglang.scheduler import Scheduler
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.engine.stepping import Step, StepCore
from concur.sim.kv.radix import RadixTree
from concur.sim.step_time.step_time import StepTime, StepTotals


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class FastScheduler(Scheduler):
    """The reference, which can leap."""

    def __init__(self, config: SglangConfig, tree: RadixTree) -> None:
        super().__init__(config, tree)
        self._is_ahead = config.is_one_step_ahead

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Give each request that sampled its token; return the finished ones."""
        assert isinstance(output, BatchOutput)
        if output.is_extend:
            return super().update_from_output(output, time_s=time_s)
        self._in_flight.popleft()
        finished = []
        for req in output.reqs:
            request = req.request
            if req.is_retracted or request.num_tokens == request.num_final_tokens:
                continue
            self._add_token(request, time_s)
            if request.num_tokens == request.num_final_tokens:
                self._finish(req, time_s)
                finished.append(request)
        self._signals.note_decodes(len(output.reqs), num_queued=len(self.waiting))
        return finished

    def leap(
        self,
        step_time: StepTime,
        totals: StepTotals,
        *,
        first_s: float | None,
        begin_s: float,
        until_s: float,
    ) -> Flight | None:
        """Run the coming steps at once as far as that is exact, and add them to `totals`; else `None`.

        Steps that end before `until_s` are done; one that does not is left in flight. Where steps are decided
        ahead, one that takes `first_s` computes now.
        """
        max_steps = self._num_certain_steps() if self._only_decodes_next() else 0
        if max_steps <= 0:
            return None
        assert all(len(output.reqs) == len(self.running) for output in self._in_flight)
        flight = fly(
            Decodes(self.running, self.tree.page_size, num_queued=len(self.waiting)),
            Memory(self.tree, self.ratio, self._signals),
            step_time,
            totals,
            max_steps=max_steps,
            first_s=first_s,
            begin_s=begin_s,
            until_s=until_s,
        )
        self._land(flight)
        return flight

    def _launch_decode(self, output: BatchOutput) -> None:
        """Put all that run into a batch, as sums: the core asks for nothing else."""
        self._slots.append(self.running)
        output.reqs += self.running
        output.batch.decode_seqs += len(self.running)
        for req in self.running:
            output.batch.context_tokens += req.kv_tokens - 1

    def _finishing_in_flight(self) -> set[Req]:
        """Return those who run and get the last token that they may have from the batch in flight."""
        if not self._in_flight:
            return set()
        finishing = {
            req
            for req in self.running
            if req.request.num_tokens + 1 >= req.request.num_prompt_tokens + req.max_new_tokens
        }
        return finishing.intersection(self._in_flight[-1].reqs)

    @property
    def outputs_in_flight(self) -> list[BatchOutput]:
        """The batches whose output is not in yet, in order."""
        return list(self._in_flight)

    def _only_decodes_next(self) -> bool:
        """Tell whether all that the next decision could do is to let all that run decode once more.

        Nobody has prefilled last, so nobody goes on with it, and whoever waits has been turned away.
        """
        last = self._last
        is_after_decode = last is not None and not last.is_extend
        return is_after_decode and bool(self.running) and (self.is_full or not self.waiting)

    def _num_certain_steps(self) -> int:
        """Return how many steps can be decided before anybody ends, 0 if somebody has."""
        least = self.running[0].request.max_tokens
        for req in self.running:
            request = req.request
            least = min(least, request.num_final_tokens - request.num_tokens)
            if self._is_ahead:  # of its limit, one token is in flight, and the last is foreseen
                least = min(least, req.max_new_tokens + request.num_prompt_tokens - request.num_tokens - 1)
        return least

    def _land(self, flight: Flight) -> None:
        """Write down what the steps have given to everybody, and which are in flight."""
        num_decided, num_ended = flight.num_decided, flight.num_ended
        for req in self.running:
            request = req.request
            request.num_tokens += num_ended
            req.kv_tokens += num_decided
            request.num_computed_tokens = req.kv_tokens
        self._in_flight.clear()
        for _ in flight.durations_s:
            self._last = BatchOutput(is_extend=False)
            self._last.reqs = list(self.running)
            self._in_flight.append(self._last)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class FastSglangCore(SglangCore):
    """An `EngineCore` that leaps where the scheduler can, and steps where it cannot."""

    def __init__(self, config: SglangConfig, step_time: StepTime, scheduler: FastScheduler) -> None:
        super().__init__(config, step_time, scheduler)
        self._fast = scheduler

    def _leap(self, until_s: float) -> None:
        """Go through the steps that end before anything else happens, and leave the next one in flight."""
        steps = self._steps
        flight = self._fast.leap(
            self.step_time,
            self.totals,
            first_s=steps[0].duration_s if steps else None,
            begin_s=self.time_s,
            until_s=until_s,
        )
        if flight is None:
            return
        self.time_s = flight.end_s
        if flight.stats is not None:
            self.stats = flight.stats
        outputs = self._fast.outputs_in_flight
        self._steps = deque(
            [Step(output, seconds) for output, seconds in zip(outputs, flight.durations_s, strict=True)]
        )


def build_fast_sglang_core(config: SglangConfig, step_time: StepTime) -> StepCore:
    """Return the fastest engine that does what a scenario asks for, its cache empty.

    Only the rules of 0.5.23 are leapt over; another release, and HiCache, are simulated step by step.
    """
    if config.release != "0.5.23" or config.hierarchical_cache is not None:
        return build_sglang_core(config, step_time)
    tree = RadixTree(config.pool_tokens, config.page_size)
    return FastSglangCore(config, step_time, FastScheduler(config, tree))
