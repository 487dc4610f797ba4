"""The engine process: steps back to back while any request is unfinished.

Order within one instant: agents and arrivals first, then controller and samples (`CONTROL`), then the next
step (`STEP`). So a request that becomes ready during a step, or at the instant it ends, joins `waiting`
before the next step; those that joined together are ordered by (ready time, agent index).
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

import simpy
from simpy.events import EventPriority

from sim.engine.scheduler import Scheduler, SchedulerOutput
from sim.engine.step_time import StepTime, step_cost
from sim.engine.transfer import HostLink
from sim.kv.block_pool import BlockPool
from sim.kv.host_cache import HostCache
from sim.kv.kv_cache_manager import KVCacheManager
from sim.request import Request
from sim.scenario import EngineConfig

CONTROL: Final = EventPriority(2)
STEP: Final = EventPriority(3)


class Instant(simpy.Event):
    """An event `delay_s` from now that comes after everything of higher priority at its instant."""

    def __init__(self, env: simpy.Environment, priority: EventPriority, delay_s: float = 0.0) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, priority, delay_s)


@dataclass(slots=True)
class EngineStats:
    """What the engine publishes at the end of each step, under vLLM's meanings.

    Gauges describe the end of the last step. Counters are cumulative; `prompt_tokens` counts a prompt when
    its first token is out. `prefill_s`, `recompute_s`, `decode_s` split the time of all steps (see
    `StepCost`); a live engine does not publish those three, nor `num_evictions`.
    """

    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_cache_usage_frac: float = 0.0
    kv_cache_resident_frac: float = 0.0
    prefix_cache_queries_tokens: int = 0
    prefix_cache_hits_tokens: int = 0
    external_hits_tokens: int = 0
    num_preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    recomputed_tokens: int = 0
    num_steps: int = 0
    num_evictions: int = 0
    prefill_s: float = 0.0
    recompute_s: float = 0.0
    decode_s: float = 0.0


class Engine:
    """One simulated vLLM engine."""

    def __init__(self, env: simpy.Environment, config: EngineConfig, step_time: StepTime) -> None:
        self.env = env
        self.config = config
        self.step_time = step_time
        host = config.host_cache
        host_cache = HostCache(host.capacity_tokens // config.block_size)
        self.block_pool = BlockPool(
            config.num_gpu_blocks,
            enable_caching=config.enable_prefix_caching,
            on_evict=host_cache.store if host.capacity_tokens else None,
        )
        kv_cache_manager = KVCacheManager(
            self.block_pool, block_size=config.block_size, watermark=config.watermark
        )
        self.scheduler = Scheduler(config, kv_cache_manager, host_cache)
        self.stats = EngineStats()
        self._link = HostLink(env, host.bandwidth_bytes_per_s, self._on_loaded)
        self._inbox: list[Request] = []
        self._finished: dict[Request, simpy.Event] = {}
        self._wake = env.event()
        self._is_asleep = False
        env.process(self._running())

    def submit(self, request: Request) -> simpy.Event:
        """Queue a request for the next step; the event fires when it has finished."""
        finished = self._finished[request] = self.env.event()
        self._inbox.append(request)
        self._rouse()
        return finished

    def _running(self) -> Generator[simpy.Event, object, None]:
        env, scheduler = self.env, self.scheduler
        while True:
            yield Instant(env, STEP)
            self._join()
            if not scheduler.has_unfinished_requests():
                yield from self._sleep()
                continue
            output = scheduler.schedule()
            for request, num_tokens in output.loads:
                self._link.start(request, num_tokens * self.config.host_cache.kv_bytes_per_token)
            if not output.scheduled:
                if not output.preempted:  # an empty step that preempted is scheduled again at once
                    assert scheduler.loading, "requests wait, nothing runs and nothing loads"
                    yield from self._sleep()
                continue
            duration_s = self._charge(output)
            yield env.timeout(duration_s)
            self._finish(output)

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
            self.scheduler.add_request(request)
        self._inbox.clear()

    def _on_loaded(self, request: Request) -> None:
        self.scheduler.finish_load(request)
        self._rouse()

    def _charge(self, output: SchedulerOutput) -> float:
        """Account for a step and return its duration in seconds."""
        cost = step_cost(self.step_time, output.batch)
        stats = self.stats
        stats.num_steps += 1
        stats.prefill_s += cost.prefill_s
        stats.recompute_s += cost.recompute_s
        stats.decode_s += cost.decode_s
        stats.recomputed_tokens += output.batch.recomputed_tokens
        for request in output.admitted:
            if request.scheduled_s is None:
                request.scheduled_s = self.env.now
        return cost.total_s

    def _finish(self, output: SchedulerOutput) -> None:
        finished = self.scheduler.update_from_output(output, time_s=self.env.now)
        self._publish()
        for request in finished:
            self._finished.pop(request).succeed()

    def _publish(self) -> None:
        stats, scheduler, pool = self.stats, self.scheduler, self.block_pool
        stats.num_requests_running = len(scheduler.running)
        stats.num_requests_waiting = scheduler.num_waiting
        stats.kv_cache_usage_frac = pool.get_usage()
        stats.kv_cache_resident_frac = pool.get_resident()
        stats.prefix_cache_queries_tokens = scheduler.cache_stats.queries_tokens
        stats.prefix_cache_hits_tokens = scheduler.cache_stats.hits_tokens
        stats.external_hits_tokens = scheduler.cache_stats.external_hits_tokens
        stats.num_preemptions = scheduler.num_preemptions
        stats.prompt_tokens = scheduler.num_prompt_tokens
        stats.generation_tokens = scheduler.num_generation_tokens
        stats.num_evictions = pool.num_evictions
