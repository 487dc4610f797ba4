"""A core that runs any scheduler step by step: the reference, and the way to compare schedulers.

The loop of `v1/engine/core.py` (vLLM 0.32.0) around a scheduler. Synchronous: schedule, compute, take the
output, again. With `async_scheduling` one step is scheduled ahead: while a step computes, the next one is
already decided, without its output.

Those who arrived before a decision join `waiting` in the order of (arrival, agent index).
"""

from collections import deque
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Protocol

from mypy_extensions import mypyc_attr

from concur.sim.engine.host_link import HostLink
from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request
from concur.sim.step_time.step_time import StepTime, StepTotals, step_cost


class CoreConfig(Protocol):
    """What the core asks of the engine's section of a scenario."""

    @property
    def is_one_step_ahead(self) -> bool:
        """Whether a step is decided while the one before it computes."""
        ...

    @property
    def loaded_bytes_per_token(self) -> int:
        """What a token in host memory takes on the link."""
        ...

    @property
    def link_bytes_per_s(self) -> float:
        """The bandwidth of the link to host memory."""
        ...


class StepScheduler(Protocol):
    """What the core asks of a scheduler; see `concur.sim.engine.vllm.scheduler.Scheduler`."""

    def add_request(self, request: Request) -> None:
        """Queue a request."""
        ...

    def has_unfinished_requests(self) -> bool:
        """Tell whether there is anything left to do."""
        ...

    def schedule(self) -> SchedulerOutput:
        """Decide the next step."""
        ...

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Take a step's output; return the requests that it finished."""
        ...

    def finish_load(self, request: Request) -> None:
        """Take note that a host load has arrived."""
        ...

    def make_stats(self) -> SchedulerStats:
        """Return gauges and counters."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Step:
    """A step in flight; it begins when the one before it ends."""

    __slots__ = ("duration_s", "output")

    def __init__(self, output: SchedulerOutput, duration_s: float) -> None:
        self.output = output
        self.duration_s = duration_s


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class StepCore:
    """An `EngineCore` whose scheduler decides every single step."""

    def __init__(self, config: CoreConfig, step_time: StepTime, scheduler: StepScheduler) -> None:
        self.stats = SchedulerStats()
        self.totals = StepTotals()
        self.time_s = 0.0  # of the last decision or output; the oldest step in flight begins then
        self.step_time = step_time
        self._scheduler = scheduler
        self._max_steps_in_flight = 2 if config.is_one_step_ahead else 1
        self._steps: deque[Step] = deque()
        self._is_due = False  # a decision at `time_s` is still to be taken
        self._inbox: list[tuple[float, int, int, Request]] = []
        self._numbers = count()
        self._kv_bytes_per_token = config.loaded_bytes_per_token
        self._link = HostLink(config.link_bytes_per_s)

    @property
    def is_idle(self) -> bool:
        """Whether no step is in flight."""
        return not self._steps

    @property
    def next_change_s(self) -> float:
        """When something happens next if nobody submits anything; infinite if nothing will."""
        if self._steps:
            return min(self._end_s(), self._link.next_arrival_s)
        if self._is_due:
            return self.time_s
        return min(self._next_join_s(), self._link.next_arrival_s)

    def submit(self, request: Request) -> None:
        """Take a request, which joins the queue at its `arrival_s`.

        Raises
        ------
        ValueError
            If the engine is past that time.
        """
        if request.arrival_s < self.time_s:
            raise ValueError(
                f"request {request.request_id} arrives at {request.arrival_s} s but the engine is at "
                f"{self.time_s} s; submit it before running on"
            )
        heappush(self._inbox, (request.arrival_s, request.agent_index, next(self._numbers), request))

    def run_until(self, time_s: float) -> list[Request]:
        """Let everything happen that happens before `time_s`, up to the first step that finishes requests."""
        while True:
            if self._is_due:
                if self.time_s >= time_s:
                    return []
                self._decide(time_s)
            if self.next_change_s >= time_s:
                return []
            if finished := self.advance():
                return finished

    def advance(self) -> list[Request]:
        """Let happen what is next, at `next_change_s`; return the requests that it finishes."""
        assert not self._is_due, "a decision is due: run until a later time first"
        time_s, finished = self.next_change_s, list[Request]()
        while self._link.next_arrival_s <= time_s:
            for request in self._link.arrive():
                self._scheduler.finish_load(request)
        if self._steps:
            if self._end_s() > time_s:
                return []
            finished = self._scheduler.update_from_output(self._steps.popleft().output, time_s=time_s)
            self.stats = self._scheduler.make_stats()
        self.time_s, self._is_due = time_s, True
        return finished

    def host_metrics(self) -> dict[str, float]:
        """Return nothing: there is no connector."""
        return {}

    def warnings(self) -> list[str]:
        """Return what the step time has to say."""
        return self.step_time.warnings()

    def _decide(self, until_s: float) -> None:
        """Fill the pipeline (`step_with_batch_queue`); an engine that finds nothing to do says so."""
        self._join()
        self._leap(min(until_s, self._next_join_s()))
        self._is_due = False
        while len(self._steps) < self._max_steps_in_flight and self._scheduler.has_unfinished_requests():
            if not self._schedule():
                break
        if not self._steps:
            is_stuck = self._scheduler.has_unfinished_requests() and self._link.next_arrival_s == inf
            assert not is_stuck, "requests wait, nothing runs and nothing loads"
            self.stats = self._scheduler.make_stats()

    def _leap(self, until_s: float) -> None:
        """Go through steps that are certain beforehand and end before `until_s`: none, step by step."""

    def _schedule(self) -> bool:
        """Decide the next step; `False` if it computes nothing and no other is decided now.

        A step that only preempts takes its place in vLLM's queue too, so that one in flight is waited for.
        """
        output = self._scheduler.schedule()
        for request, num_tokens in output.loads:
            self._link.start(request, num_tokens * self._kv_bytes_per_token, time_s=self.time_s)
        if output.batch.is_empty:
            return bool(output.preempted) and not self._steps
        cost = step_cost(self.step_time, output.batch)
        self.totals.add(output.batch, cost)
        for request in output.admitted:
            if request.scheduled_s is None:
                request.scheduled_s = self.time_s
        self._steps.append(Step(output, cost.total_s))
        return True

    def _join(self) -> None:
        """Hand over who has arrived by now."""
        while self._inbox and self._inbox[0][0] <= self.time_s:
            self._scheduler.add_request(heappop(self._inbox)[3])

    def _end_s(self) -> float:
        """Return when the oldest step in flight ends."""
        return self.time_s + self._steps[0].duration_s

    def _next_join_s(self) -> float:
        return self._inbox[0][0] if self._inbox else inf
