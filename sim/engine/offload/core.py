"""The engine loop with a connector: steps that compute nothing, flushes that delay steps, and polling.

The loop of `v1/engine/core.py` (vLLM 0.32.0) around a scheduler that wants transfers. A step that computes
nothing has an output too: it reports transfers. After a decision that computes nothing, the loop sleeps for a
millisecond, deaf to arrivals, if transfers or requests are left.

`model_runner`: `v1` submits the loads of a step before what it computes, `v2` after it.
"""

from math import inf
from typing import Final, Protocol

from mypy_extensions import mypyc_attr

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.offload.transfers import ConnectorOutput, OffloadingWorker
from concur.sim.engine.request import Request
from concur.sim.engine.stepping import Step, StepCore, StepScheduler
from concur.sim.step_time.step_time import StepTime, step_cost

_POLL_S: Final = 0.001
"""`v1/engine/core.py`, `_process_engine_step`: `time.sleep(0.001)`."""


class ConnectorScheduler(StepScheduler, Protocol):
    """What this loop asks of a scheduler beyond a plain one."""

    def schedule(self) -> ConnectorOutput:
        """Decide the next step, with its transfers."""
        ...

    def has_requests(self) -> bool:
        """Tell whether there are requests, or transfers that somebody must hear of."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class _LaunchedStep(Step):
    """A step that begins when it may, not when the one before it ends."""

    def __init__(self, output: ConnectorOutput, end_s: float) -> None:
        super().__init__(output, 0.0)
        self.end_s = end_s


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class ConnectedCore(StepCore):
    """An `EngineCore` whose steps carry transfers."""

    def __init__(self, config: EngineConfig, step_time: StepTime, scheduler: ConnectorScheduler) -> None:
        super().__init__(config, step_time, scheduler)
        host = config.host_cache
        self.worker = OffloadingWorker(
            bandwidth_bytes_per_s=host.bandwidth_bytes_per_s,
            block_bytes=config.block_size * host.kv_bytes_per_token,
        )
        self._connected = scheduler
        self._loads_wait = config.model_runner == "v2"
        self._free_s = 0.0  # when what has been launched is computed
        self._resume_s = inf  # the loop sleeps until then
        self._has_computed = True  # the last decision did
        self._computed_s = 0.0  # when the last step that computes something ends
        self._loaded_s = 0.0  # how long loads have run by then

    @property
    def next_change_s(self) -> float:
        """When something happens next if nobody submits anything; infinite if nothing will."""
        if self._resume_s < inf:
            return self._resume_s
        if self._steps:
            return self._end_s()
        return self.time_s if self._is_due else self._next_join_s()

    def advance(self) -> list[Request]:
        """Let happen what is next, at `next_change_s`; return the requests that it finishes."""
        assert not self._is_due, "a decision is due: run until a later time first"
        finished, is_asleep = list[Request](), self._resume_s < inf
        self.time_s, self._resume_s, self._is_due = self.next_change_s, inf, True
        if self._steps and not is_asleep:
            output = self._steps.popleft().output
            finished = self._scheduler.update_from_output(output, time_s=self.time_s)
            self.stats = self._scheduler.make_stats()
            if not self._has_computed:
                self._sleep()
        return finished

    def host_metrics(self) -> dict[str, float]:
        """Return what went over the link to host memory."""
        return self.worker.traffic.metrics()

    def _decide(self, until_s: float) -> None:
        """Fill the pipeline (`step_with_batch_queue`), or sleep; say so if there is nothing to do at all."""
        self._join()
        self._is_due = False
        while self._connected.has_requests():
            self._has_computed = self._schedule()
            if len(self._steps) == self._max_steps_in_flight:
                return
            if not self._has_computed and self._connected.has_requests():
                self._sleep()
                return
        self._has_computed = False
        if not self._steps:
            self.stats = self._scheduler.make_stats()

    def _schedule(self) -> bool:
        """Decide and launch the next step; `False` if it computes nothing."""
        output = self._connected.schedule()
        ready_s = max(self.time_s, self._free_s)
        computes = not output.batch.is_empty
        if computes and ready_s > self._computed_s:
            self.worker.traffic.host_reload_wait_s += self.worker.loaded_s(ready_s) - self._loaded_s
        begin_s = self.worker.begin_step(output, time_s=ready_s)
        duration_s = self._compute(output)
        self._free_s = begin_s + duration_s
        self.worker.start_loads(output, time_s=self._free_s if self._loads_wait else begin_s)
        output.completed_jobs = self.worker.take_done(begin_s if output.jobs_to_flush else self.time_s)
        self._steps.append(_LaunchedStep(output, self._free_s))
        if computes:
            self._computed_s, self._loaded_s = self._free_s, self.worker.loaded_s(self._free_s)
        return computes

    def _compute(self, output: ConnectorOutput) -> float:
        """Return how long a step computes, and add it to the totals."""
        if output.batch.is_empty:
            return 0.0
        cost = step_cost(self.step_time, output.batch)
        self.totals.add(output.batch, cost)
        for request in output.admitted:
            if request.scheduled_s is None:
                request.scheduled_s = self.time_s
        return cost.total_s

    def _sleep(self) -> None:
        """Look again in a while, if there is anything to look for."""
        if self._connected.has_requests():
            self._resume_s, self._is_due = self.time_s + _POLL_S, False

    def _end_s(self) -> float:
        """Return when the output of the oldest step is taken: the loop may come late."""
        step = self._steps[0]
        assert isinstance(step, _LaunchedStep)
        return max(self.time_s, step.end_s)
