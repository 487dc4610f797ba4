"""What an engine is to the world around it: requests go in, time goes on, finished requests come out."""

from typing import Protocol

from concur.sim.engine.output import SchedulerStats
from concur.sim.engine.request import Request
from concur.sim.step_time.step_time import StepTotals


class EngineCore(Protocol):
    """An engine without a clock and without I/O; a deep copy of it is the same engine, independent of it.

    What happens within one instant is ordered: first outputs of steps, then whoever submits, then the next
    decision. So the decision at an instant is taken only by asking for a later time: by then everybody who
    acts at that instant has acted.

    `stats` is what it published last. `totals` sums up its steps; a live engine does not publish where its
    time goes. It stands at `time_s`, its last decision or output.
    """

    stats: SchedulerStats
    totals: StepTotals
    time_s: float

    @property
    def is_idle(self) -> bool:
        """Whether no step is in flight: then what comes next depends on who arrives."""
        ...

    @property
    def next_change_s(self) -> float:
        """When something happens next if nobody submits anything; infinite if nothing will."""
        ...

    def submit(self, request: Request) -> None:
        """Take a request, which joins the queue at its `arrival_s`.

        Raises
        ------
        ValueError
            If the engine is past that time.
        """
        ...

    def run_until(self, time_s: float) -> list[Request]:
        """Let everything happen that happens before `time_s`, up to the first step that finishes requests.

        Returns those requests. The engine then stands at that step's end, and the next call goes on.
        """
        ...

    def advance(self) -> list[Request]:
        """Let happen what is next, at `next_change_s`; return the requests that it finishes.

        For a caller who has run until a later time than the last decision, and has waited until now.
        """
        ...

    def host_metrics(self) -> dict[str, float]:
        """Return what is known of the traffic with host memory, by name; nothing without a connector."""
        ...

    def warnings(self) -> list[str]:
        """Return what a reader of the run should know; for its record."""
        ...
