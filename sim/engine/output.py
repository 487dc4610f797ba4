"""What a scheduler decides for one step."""

from dataclasses import dataclass, field

from sim.engine.step_time import StepBatch
from sim.request import Request

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
    num_bulk: int = 0  # of `scheduled`, from the start: decodes whose bookkeeping is done in bulk
    is_full: bool = False  # the first in line was asked in and does not fit
