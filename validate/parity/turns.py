"""Who goes before whom: how often a policy other than first come, first served has had its say in a run."""

from dataclasses import dataclass, field

from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.validate.parity.probes import Queues


@dataclass(slots=True)
class Turns:
    """Counts of a run.

    `num_overtakes` requests were admitted while one waited that had come before them and never ran.
    `num_ranked_preemptions` made way although others, who went on, had begun to run after them.
    """

    num_overtakes: int = 0
    num_ranked_preemptions: int = 0
    _num_added: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)  # of those who never ran
    _running: tuple[str, ...] = ()

    def add(self, request: Request) -> None:
        """Take note of who comes."""
        self._numbers[request.request_id] = self._num_added
        self._num_added += 1

    def note(self, output: SchedulerOutput, queues: Queues) -> None:
        """Take note of a step that has been decided, and of the queues after it."""
        first = min(
            (number for name in queues.waiting if (number := self._numbers.get(name)) is not None),
            default=self._num_added,
        )
        self.num_overtakes += sum(
            self._numbers.get(request.request_id, -1) > first for request in output.admitted
        )
        places = {name: place for place, name in enumerate(self._running)}
        last = max((places.get(name, -1) for name in queues.running), default=-1)
        self.num_ranked_preemptions += sum(
            places.get(request.request_id, last) < last for request in output.preempted
        )
        for request in (*output.admitted, *output.preempted):
            self._numbers.pop(request.request_id, None)  # it has had its turn
        self._running = queues.running
