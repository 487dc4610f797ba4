"""The engine loop of SGLang with HiCache: transfers end steps, hold them up, and are looked after when idle.

Of SGLang 0.5.23, `event_loop_normal` and `event_loop_overlap` with `enable_hierarchical_cache`. The loop
looks for transfers that are done before each decision. While nothing computes it does nothing else, over and
over; here it looks again when the next one ends. It is at rest only when all have been acknowledged.
"""

from math import inf
from typing import Protocol

from mypy_extensions import mypyc_attr

from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.engine.sglang.transfers import HostTransfers
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.engine.stepping import Step, StepCore, StepScheduler
from concur.sim.step_time.step_time import StepTime, step_cost


class HiCacheScheduler(StepScheduler, Protocol):
    """What this loop asks of a scheduler beyond a plain one."""

    def rest(self) -> None:
        """Take note that there is nothing to do."""
        ...

    def has_transfers(self) -> bool:
        """Tell whether a transfer has not been acknowledged."""
        ...

    def tier_metrics(self) -> dict[str, float]:
        """Return what went from one tier to the other."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class _LaunchedStep(Step):
    """A step that begins when it may, not when the one before it ends."""

    def __init__(self, output: SchedulerOutput, end_s: float) -> None:
        super().__init__(output, 0.0)
        self.end_s = end_s


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class HiCacheCore(StepCore):
    """An `EngineCore` whose scheduler moves KV to the host and back."""

    def __init__(
        self, config: SglangConfig, step_time: StepTime, scheduler: HiCacheScheduler, transfers: HostTransfers
    ) -> None:
        super().__init__(config, step_time, scheduler)
        self._hicache = scheduler
        self._transfers = transfers
        self._free_s = 0.0  # when what has been launched is computed
        self._resume_s = inf  # the loop has something to look for then, or was held up until then

    @property
    def next_change_s(self) -> float:
        """When something happens next if nobody submits anything; infinite if nothing will."""
        if self._resume_s < inf and (self._steps or self._is_held_up()):
            return self._resume_s
        if self._steps:
            return self._end_s()
        return self.time_s if self._is_due else min(self._next_join_s(), self._resume_s)

    def advance(self) -> list[Request]:
        """Let happen what is next, at `next_change_s`; return the requests that it finishes."""
        assert not self._is_due, "a decision is due: run until a later time first"
        finished, takes_output = list[Request](), bool(self._steps) and self._resume_s == inf
        self.time_s, self._resume_s, self._is_due = self.next_change_s, inf, True
        self._transfers.go_on(time_s=self.time_s, computed_s=self._free_s)
        if takes_output:
            finished = self._scheduler.update_from_output(self._steps.popleft().output, time_s=self.time_s)
            self.stats = self._scheduler.make_stats()
        return finished

    def host_metrics(self) -> dict[str, float]:
        """Return what went from one tier to the other, and how long that took."""
        return self._hicache.tier_metrics() | self._transfers.traffic.metrics()

    def _decide(self, until_s: float) -> None:
        """Fill the pipeline, or look again later; say so if there is nothing to do at all."""
        self._join()
        self._is_due = False
        while len(self._steps) < self._max_steps_in_flight and self._has_work():
            if not self._schedule():
                break
            if self._is_held_up() and len(self._steps) < self._max_steps_in_flight:
                self._resume_s = self._transfers.time_s
                return
        if not self._steps:
            self._wait()

    def _wait(self) -> None:
        """Look again when there is something to look for, or rest."""
        if self._has_work():
            self._resume_s = self._transfers.time_s if self._is_held_up() else self._transfers.next_end_s
            assert self._resume_s < inf, "requests wait, nothing runs and nothing is on its way"
        else:
            self._hicache.rest()
        self.stats = self._scheduler.make_stats()

    def _has_work(self) -> bool:
        return self._scheduler.has_unfinished_requests() or self._hicache.has_transfers()

    def _is_held_up(self) -> bool:
        """Whether the loop waits for a transfer beyond the time of its last decision."""
        return self._transfers.time_s > self.time_s

    def _schedule(self) -> bool:
        """Decide and launch the next step; `False` if it computes nothing."""
        transfers = self._transfers
        transfers.go_on(time_s=self.time_s, computed_s=self._free_s)
        output = self._scheduler.schedule()
        if output.batch.is_empty:
            return bool(output.preempted)
        cost = step_cost(self.step_time, output.batch)
        self.totals.add(output.batch, cost)
        for request in output.admitted:
            if request.scheduled_s is None:
                request.scheduled_s = self.time_s
        computed_s = max(transfers.time_s, self._free_s) + cost.total_s
        self._free_s = max(computed_s, transfers.loaded_s)
        transfers.traffic.host_reload_wait_s += self._free_s - computed_s
        self._steps.append(_LaunchedStep(output, self._free_s))
        return True

    def _end_s(self) -> float:
        """Return when the output of the oldest step is taken: the loop may come late."""
        step = self._steps[0]
        assert isinstance(step, _LaunchedStep)
        return max(self._transfers.time_s, step.end_s)
