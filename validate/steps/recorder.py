"""vLLM's own schedulers, unchanged in what they decide, that record what each engine step computed.

For the engine option `scheduler_cls` (vLLM 0.32.0, config/scheduler.py, `SchedulerConfig.scheduler_cls`),
which takes a class in-process or a dotted path anywhere::

    CONCUR_STEPS_FILE=steps.jsonl.gz python -m vllm.entrypoints.openai.api_server ... \
        --scheduler-cls concur.validate.steps.recorder.RecordingAsyncScheduler

`RecordingScheduler` with `--no-async-scheduling`, `RecordingAsyncScheduler` with `--async-scheduling`: the
class must fit the mode. The engine core appends to the file named by CONCUR_STEPS_FILE, in its own process;
without that variable the rows stay in memory (`scheduler.step_log`). CONCUR_STEPS_PHASE labels the rows.

Importing this module needs vLLM. How long a step took is defined in `concur.validate.steps.step_log`.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from concur.validate.errors import OutOfScopeError
from concur.validate.steps.engine_facts import engine_facts
from concur.validate.steps.step_log import ScheduledRequest, StepLog, StepRow

FILE_VARIABLE: Final = "CONCUR_STEPS_FILE"
PHASE_VARIABLE: Final = "CONCUR_STEPS_PHASE"


class _Recorder:
    """Record around a scheduler's `schedule` and `update_from_output`; mixed in before the scheduler.

    `step_log` is the open recording; `shutdown` closes it.
    """

    step_log: StepLog

    @property
    def _its(self) -> Any:
        """The scheduler this is mixed into; its attributes are vLLM's."""
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        is_async = bool(self._its.scheduler_config.async_scheduling)
        if is_async != isinstance(self, AsyncScheduler):
            wanted = "RecordingAsyncScheduler" if is_async else "RecordingScheduler"
            raise OutOfScopeError(
                f"async_scheduling = {is_async} (vLLM resolved; a CPU never has it) but scheduler_cls = "
                f"{type(self).__name__}; use {wanted}"
            )
        path = os.environ.get(FILE_VARIABLE)
        facts = engine_facts(self._its.vllm_config, self._its.kv_cache_config.num_blocks)
        phase = os.environ.get(PHASE_VARIABLE, "")
        self.step_log = StepLog(facts, Path(path) if path else None, phase)
        self._in_flight: dict[int, dict[str, Any]] = {}  # by identity of the output, in order of scheduling
        self._is_busy = False

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Let vLLM decide; note when, and what is computed."""
        if not self._is_busy and not self._in_flight:
            self.step_log.take_outside_s()  # spent while idle
        begin_s = time.perf_counter()
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        if output.total_num_scheduled_tokens:
            with self.step_log.outside():
                self._in_flight[id(output)] = {
                    "begin_s": begin_s,
                    "phase": self.step_log.phase,
                    **self._decided(output),
                }
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Let vLLM take the tokens; the step has ended when it is done."""
        result = super().update_from_output(scheduler_output, *args, **kwargs)  # type: ignore[misc]
        end_s = time.perf_counter()
        decided = self._in_flight.pop(id(scheduler_output), None)
        if decided is None:
            return result
        outside_s = self.step_log.take_outside_s()
        with self.step_log.outside():
            self._is_busy = self._its.has_unfinished_requests()
            self.step_log.append(
                StepRow(end_s=end_s, outside_s=outside_s, is_busy_after=self._is_busy, **decided)
            )
        return result

    def shutdown(self) -> None:
        """Close the recording, then vLLM's scheduler."""
        self.step_log.close()
        super().shutdown()  # type: ignore[misc]

    def _decided(self, output: Any) -> dict[str, Any]:
        num_running, num_waiting = self._its.get_request_counts()
        return {
            "requests": tuple(self._scheduled(output)),
            "num_cached_tokens": sum(new.num_computed_tokens for new in output.scheduled_new_reqs),
            "num_preemptions": len(output.preempted_req_ids or ()),
            "num_running": num_running,
            "num_waiting": num_waiting,
            "kv_cache_usage_frac": self._its.kv_cache_manager.usage,
        }

    def _scheduled(self, output: Any) -> Iterator[ScheduledRequest]:
        """Describe the step's requests; vLLM has counted its progress already (`_update_after_schedule`).

        Whoever gets one token, thereby catches up with all known ones (`is_prefill_chunk` is false), and had
        computed its prompt before, lacked only its last sampled token.
        """
        for request_id, num_tokens in output.num_scheduled_tokens.items():
            request = self._its.requests[request_id]
            num_computed_tokens = request.num_computed_tokens - num_tokens
            yield ScheduledRequest(
                num_tokens,
                num_computed_tokens,
                num_tokens == 1
                and not request.is_prefill_chunk
                and num_computed_tokens >= request.num_prompt_tokens,
            )


class RecordingScheduler(_Recorder, Scheduler):  # type: ignore[misc]
    """Record vLLM's `Scheduler`."""


class RecordingAsyncScheduler(_Recorder, AsyncScheduler):  # type: ignore[misc]
    """Record vLLM's `AsyncScheduler`."""
