"""The engine process: steps back to back while any request is unfinished.

Order within one instant: agents and arrivals first, then controller and samples (`CONTROL`), then the next
step (`STEP`). So a request that becomes ready during a step, or at the instant it ends, joins `waiting`
before the next step; those that joined together are ordered by (ready time, agent index).
"""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from heapq import heappush
from typing import Any, Final, Protocol

import simpy
from simpy.events import EventPriority

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.host_link import HostLink
from concur.sim.engine.leap import Leap
from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request
from concur.sim.engine.scheduler import Scheduler
from concur.sim.kv.block_pool import BlockPool
from concur.sim.kv.host_cache import HostCache
from concur.sim.kv.kv_cache_manager import KVCacheManager
from concur.sim.kv.segments import SegmentCache
from concur.sim.step_time.step_time import StepTime, StepTotals, step_cost

NORMAL: Final = EventPriority(1)
CONTROL: Final = EventPriority(2)
STEP: Final = EventPriority(3)


class Instant(simpy.Event):
    """An event `delay_s` from now that comes after everything of higher priority at its instant."""

    def __init__(self, env: simpy.Environment, priority: EventPriority, delay_s: float = 0.0) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, priority, delay_s)


@dataclass(frozen=True, slots=True)
class _Step:
    """A step in flight; it begins when the one before it ends."""

    output: SchedulerOutput
    duration_s: float


class Clock(simpy.Environment):
    """SimPy's environment, with events at absolute times: now + (t - now) need not be t in floating point."""

    def at(self, time_s: float) -> simpy.Event:
        """Return an event at `time_s`, not before now."""
        event = simpy.Event(self)
        event._ok = True
        event._value = None
        heappush(self._queue, (time_s, NORMAL, next(self._eid), event))
        return event


def build_scheduler(config: EngineConfig) -> Scheduler:
    """Return the scheduler of an engine, its cache empty: on segments, or on blocks with a host cache."""
    if config.host_cache.capacity_tokens:
        return build_reference_scheduler(config)
    cache = SegmentCache(
        config.num_gpu_blocks,
        block_size=config.block_size,
        watermark=config.watermark,
        enable_caching=config.enable_prefix_caching,
    )
    return Scheduler(config, cache)


def build_reference_scheduler(config: EngineConfig) -> Scheduler:
    """Return the scheduler on the block pool: the reference, step by step and block by block."""
    host_cache = HostCache(config.host_cache.capacity_tokens // config.block_size)
    block_pool = BlockPool(
        config.num_gpu_blocks,
        enable_caching=config.enable_prefix_caching,
        on_evict=host_cache.store if host_cache.capacity_blocks else None,
    )
    manager = KVCacheManager(block_pool, block_size=config.block_size, watermark=config.watermark)
    return Scheduler(config, manager, host_cache if host_cache.capacity_blocks else None)


class StepScheduler(Protocol):
    """What the engine asks of a scheduler; see `concur.sim.engine.scheduler.Scheduler`."""

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

    def new_chain(self, prefix_group: str | None, shared_prefix_tokens: int) -> Any:
        """Return what names the blocks of an agent that has not called yet."""
        ...

    def leap(self, step_time: StepTime, totals: StepTotals, *, begin_s: float, until_s: float) -> Leap | None:
        """Run coming steps at once as far as that is exact, and add them to `totals`; else `None`."""
        ...


class Engine:
    """One simulated vLLM engine: the loop of `v1/engine/core.py` (0.32.0) around a scheduler.

    Synchronous: schedule, compute, take the output, again. With `async_scheduling` one step is scheduled
    ahead: while a step computes, the next one is already decided, without its output.

    `stats` is what it published at the end of its last step. `totals` sums up its steps; a live engine does
    not publish where its time goes.
    """

    def __init__(
        self, env: Clock, config: EngineConfig, step_time: StepTime, scheduler: StepScheduler
    ) -> None:
        self.env = env
        self.stats = SchedulerStats()
        self.totals = StepTotals()
        self._step_time = step_time
        self._scheduler = scheduler
        self._max_steps_in_flight = 2 if config.async_scheduling else 1
        self._steps: deque[_Step] = deque()
        self._begin_s = 0.0  # when the oldest step in flight begins
        self._inbox: list[Request] = []
        self._finished: dict[Request, simpy.Event] = {}
        self._wake = env.event()
        self._is_asleep = False
        self._kv_bytes_per_token = config.host_cache.kv_bytes_per_token
        self._link = HostLink(env, config.host_cache.bandwidth_bytes_per_s, self._on_loaded)
        env.process(self._running())

    def new_chain(self, prefix_group: str | None, shared_prefix_tokens: int) -> Any:
        """Return what names the blocks of an agent that has not called yet."""
        return self._scheduler.new_chain(prefix_group, shared_prefix_tokens)

    def submit(self, request: Request) -> simpy.Event:
        """Queue a request for the next step; the event fires when it has finished."""
        finished = self._finished[request] = self.env.event()
        self._inbox.append(request)
        self._rouse()
        return finished

    def _running(self) -> Generator[simpy.Event, object, None]:
        """Fill the pipeline first, then take the output of its oldest step (`step_with_batch_queue`)."""
        env = self.env
        while True:
            if env.peek() <= env.now:  # others still have to act at this instant
                yield Instant(env, STEP)
            self._join()
            if not self._steps:
                self._begin_s = env.now
            if self._max_steps_in_flight == 1:
                self._leap()
            has_room = len(self._steps) < self._max_steps_in_flight
            has_scheduled = has_room and self._scheduler.has_unfinished_requests() and self._schedule()
            if has_scheduled and len(self._steps) < self._max_steps_in_flight:
                continue
            if self._steps:
                step = self._steps.popleft()
                self._begin_s += step.duration_s  # and that is when the next one begins
                yield env.at(self._begin_s)
                self._take_output(step.output)
            elif not has_scheduled:
                is_stuck = self._scheduler.has_unfinished_requests() and not self._link.is_busy
                assert not is_stuck, "requests wait, nothing runs and nothing loads"
                yield from self._sleep()

    def _leap(self) -> None:
        """Go through the steps that end before anything else happens in the world."""
        done = self._scheduler.leap(
            self._step_time, self.totals, begin_s=self._begin_s, until_s=self.env.peek()
        )
        if done is None:
            return
        self._begin_s = done.flight.end_s
        if done.stats is not None:
            self.stats = done.stats
        if done.output is not None:
            self._steps.append(_Step(done.output, done.flight.next_s))

    def _schedule(self) -> bool:
        """Decide the next step; `True` if it computes something, or if deciding again now would."""
        output = self._scheduler.schedule()
        for request, num_tokens in output.loads:
            self._link.start(request, num_tokens * self._kv_bytes_per_token)
        if not output.scheduled and not output.decodes:
            return bool(output.preempted)
        self._steps.append(_Step(output, self._charge(output)))
        return True

    def _sleep(self) -> Generator[simpy.Event, object, None]:
        """Wait until a request or a load arrives; nothing else can change what the scheduler would do."""
        self._publish()
        self._wake = self.env.event()
        self._is_asleep = True
        yield self._wake

    def _rouse(self) -> None:
        if self._is_asleep:
            self._is_asleep = False
            self._wake.succeed()

    def _join(self) -> None:
        self._inbox.sort(key=lambda request: (request.arrival_s, request.agent_index))
        for request in self._inbox:
            self._scheduler.add_request(request)
        self._inbox.clear()

    def _on_loaded(self, request: Request) -> None:
        self._scheduler.finish_load(request)
        self._rouse()

    def _charge(self, output: SchedulerOutput) -> float:
        """Account for a step and return its duration in seconds."""
        cost = step_cost(self._step_time, output.batch)
        self.totals.add(output.batch, cost)
        for request in output.admitted:
            if request.scheduled_s is None:
                request.scheduled_s = self._begin_s
        return cost.total_s

    def _take_output(self, output: SchedulerOutput) -> None:
        finished = self._scheduler.update_from_output(output, time_s=self.env.now)
        self._publish()
        for request in finished:
            self._finished.pop(request).succeed()

    def _publish(self) -> None:
        self.stats = self._scheduler.make_stats()
