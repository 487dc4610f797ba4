"""When the trees of a workload begin: all at their arrival, or as others end, in a closed loop."""

from collections import Counter, deque
from collections.abc import Iterator

from concur.sim.workload.families import Families
from concur.sim.workload.spec import AgentSpec, Workload


class Turns:
    """Say who begins, first and as agents end; both worlds ask it.

    Life: `first`, then `began` and `ended` for every agent, in time order.
    """

    def __init__(self, workload: Workload, families: Families) -> None:
        self._families = families
        self._loop = workload.closed_loop
        self._waiting = deque(families.roots())
        self._living: Counter[str] = Counter()  # agents of a tree that have begun and not ended, by its root
        self.num_begun = 0
        self.exhausted_s: float | None = None
        """When a closed loop had nobody left to begin, if that was before its end."""

    @property
    def is_over(self) -> bool:
        """Whether nobody lives any more, and so nobody will begin."""
        return not self._living

    def first(self) -> Iterator[AgentSpec]:
        """Yield those that begin without waiting for others, at their `arrival_s`."""
        number = len(self._waiting) if self._loop is None else self._loop.num_sessions
        for _ in range(min(number, len(self._waiting))):
            yield self._waiting.popleft()

    def began(self, spec: AgentSpec) -> None:
        """Take note of an agent that begins."""
        self.num_begun += 1
        self._living[self._families.root(spec).agent_id] += 1

    def ended(self, spec: AgentSpec, *, time_s: float) -> AgentSpec | None:
        """Take note of an agent that ends; return who begins in its place, if its tree has ended with it."""
        root_id = self._families.root(spec).agent_id
        self._living[root_id] -= 1
        if self._living[root_id]:
            return None
        del self._living[root_id]
        if self._loop is None or time_s >= self._loop.duration_s:
            return None
        if not self._waiting:
            self.exhausted_s = time_s if self.exhausted_s is None else self.exhausted_s
            return None
        return self._waiting.popleft()

    def warnings(self) -> list[str]:
        """Return a line if a closed loop ran out of sessions."""
        if self.exhausted_s is None or self._loop is None:
            return []
        return [
            f"the closed loop had no session left to begin after {self.exhausted_s:.1f} s of "
            f"{self._loop.duration_s:g} s; raise workload.arrival.repeats"
        ]
