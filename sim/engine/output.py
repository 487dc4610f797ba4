"""What a scheduler decides for one step, and what it publishes after it."""

from dataclasses import dataclass

from mypy_extensions import mypyc_attr

from concur.sim.engine.request import Request
from concur.sim.step_time.step_time import StepBatch

Scheduled = tuple[Request, int, bool]
"""A request, how many tokens it computes in the step, and whether the step samples a token for it."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
@dataclass(init=False, slots=True)
class SchedulerOutput:
    """One step's decisions, in the order in which they were taken."""

    scheduled: list[Scheduled]
    admitted: list[Request]
    preempted: list[Request]
    loads: list[tuple[Request, int]]  # tokens to bring from host memory
    batch: StepBatch

    def __init__(self, batch: StepBatch | None = None) -> None:
        self.scheduled = []
        self.admitted = []
        self.preempted = []
        self.loads = []
        self.batch = StepBatch() if batch is None else batch


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
@dataclass(init=False, slots=True)
class SchedulerStats:
    """What the scheduler publishes after a step, under vLLM's meanings (`make_stats`).

    Gauges, then cumulative counters. The prefix-cache counters leave out requests admitted again after a
    preemption; `prompt_tokens` counts a prompt when its first token is out. `kv_cache_resident_frac` and
    `num_evictions` are not published by a live vLLM.
    """

    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage_frac: float
    kv_cache_resident_frac: float | None
    prefix_cache_queries_tokens: int
    prefix_cache_hits_tokens: int
    num_preemptions: int
    prompt_tokens: int
    generation_tokens: int
    external_prefix_cache_queries_tokens: int
    external_prefix_cache_hits_tokens: int
    num_evictions: int

    def __init__(
        self,
        num_requests_running: int = 0,
        num_requests_waiting: int = 0,
        kv_cache_usage_frac: float = 0.0,
        kv_cache_resident_frac: float | None = 0.0,
        prefix_cache_queries_tokens: int = 0,
        prefix_cache_hits_tokens: int = 0,
        num_preemptions: int = 0,
        prompt_tokens: int = 0,
        generation_tokens: int = 0,
        external_prefix_cache_queries_tokens: int = 0,
        external_prefix_cache_hits_tokens: int = 0,
        num_evictions: int = 0,
    ) -> None:
        self.num_requests_running = num_requests_running
        self.num_requests_waiting = num_requests_waiting
        self.kv_cache_usage_frac = kv_cache_usage_frac
        self.kv_cache_resident_frac = kv_cache_resident_frac
        self.prefix_cache_queries_tokens = prefix_cache_queries_tokens
        self.prefix_cache_hits_tokens = prefix_cache_hits_tokens
        self.num_preemptions = num_preemptions
        self.prompt_tokens = prompt_tokens
        self.generation_tokens = generation_tokens
        self.num_evictions = num_evictions
        self.external_prefix_cache_queries_tokens = external_prefix_cache_queries_tokens
        self.external_prefix_cache_hits_tokens = external_prefix_cache_hits_tokens
