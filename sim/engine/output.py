"""What a scheduler decides for one step, and what it publishes after it."""

from dataclasses import dataclass, field

from concur.sim.engine.request import Request
from concur.sim.step_time.step_time import StepBatch

Scheduled = tuple[Request, int, bool]
"""A request, how many tokens it computes in the step, and whether the step samples a token for it."""


@dataclass(slots=True)
class SchedulerOutput:
    """One step's decisions, in the order in which they were taken."""

    scheduled: list[Scheduled] = field(default_factory=list)
    admitted: list[Request] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    loads: list[tuple[Request, int]] = field(default_factory=list)  # tokens to bring from host memory
    batch: StepBatch = field(default_factory=StepBatch)


@dataclass(slots=True)
class SchedulerStats:
    """What the scheduler publishes after a step, under vLLM's meanings (`make_stats`).

    Gauges, then cumulative counters. The prefix-cache counters leave out requests admitted again after a
    preemption; `prompt_tokens` counts a prompt when its first token is out. `kv_cache_resident_frac` and
    `num_evictions` are not published by a live vLLM.
    """

    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_cache_usage_frac: float = 0.0
    kv_cache_resident_frac: float | None = 0.0
    prefix_cache_queries_tokens: int = 0
    prefix_cache_hits_tokens: int = 0
    num_preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    num_evictions: int = 0
