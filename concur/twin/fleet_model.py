"""Run one future of a fleet forward: an engine each as in `concur.twin.model`, and who goes where.

The engine whose clock is behind goes on first. With `moves` the agents go where the gates of
`concur.gate.placement` send them: new ones to whichever engine has room, at first to the one with most;
paused ones wait at their origin, and after `move_after_s` go to another engine that has room and nobody
waiting. There none of their history is cached. Without, everybody stays at its engine.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from concur.twin.future import Future, Policy
from concur.twin.model import Crowd, Outcome, Rollout

_LOOK_S: Final = 2.0  # an engine without work looks so often for somebody to take over


@dataclass(frozen=True, slots=True)
class FleetFuture:
    """The same agents before each engine, and at which engine each of them is."""

    engines: tuple[Future, ...]
    homes: tuple[int, ...]


class FleetRollout:
    """One run of the model of a fleet. Life: construct, then `run`, once."""

    def __init__(
        self, future: FleetFuture, policies: Sequence[Policy], *, move_after_s: float | None
    ) -> None:
        self._crowd = crowd = Crowd(future.engines[0])
        self._can_move = move_after_s is not None
        homes = future.homes
        self._engines = [
            _OneEngine(
                engine,
                policy,
                crowd,
                [each for each, home in enumerate(homes) if home == number],
                move_after_s,
            )
            for number, (engine, policy) in enumerate(zip(future.engines, policies, strict=True))
        ]
        for engine in self._engines:
            engine.others = [other for other in self._engines if other is not engine]

    def run(self) -> Outcome:
        """Run to the end of the batch."""
        self._begin()
        crowd = self._crowd
        clocks = [(0.0, number) for number in range(len(self._engines))]
        num_idle = 0
        while not crowd.is_over and num_idle < 2 * len(clocks):
            _, number = heapq.heappop(clocks)
            engine = self._engines[number]
            if engine.go_on():
                num_idle = 0
            else:
                num_idle += 1
                behind_s = clocks[0][0] if clocks else engine.now_s
                engine.wait_until(min(behind_s + _LOOK_S, max(behind_s, engine.next_due_s)))
            heapq.heappush(clocks, (engine.now_s, number))
        return crowd.outcome(crowd.last_s)

    def agrees(self, policies: Sequence[Policy]) -> bool:
        """Tell whether the run would have been the same under other policies."""
        return all(engine.agrees(each) for engine, each in zip(self._engines, policies, strict=True))

    def _begin(self) -> None:
        for engine in self._engines:
            engine.begin()
        if not self._can_move:
            for engine in self._engines:
                engine.fill()
            return
        new = deque(sorted(number for engine in self._engines for number in engine.new))
        for engine in self._engines:
            engine.new = new
        able = list(self._engines)
        while able:
            roomiest = max(able, key=lambda engine: engine.room_frac)
            if not roomiest.take_one():
                able.remove(roomiest)


class _OneEngine(Rollout):
    """One engine of several."""

    def __init__(
        self,
        future: Future,
        policy: Policy,
        crowd: Crowd,
        mine: Sequence[int],
        move_after_s: float | None,
    ) -> None:
        super().__init__(future, policy, crowd, mine)
        self.others: Sequence[_OneEngine] = ()
        self._move_after_s = move_after_s

    @property
    def now_s(self) -> float:
        """Its clock."""
        return self._now_s

    @property
    def new(self) -> "deque[int]":
        """Those who have not called yet and may come in here."""
        return self._new

    @new.setter
    def new(self, agents: "deque[int]") -> None:
        self._new = agents

    @property
    def room_frac(self) -> float:
        """Share of what it may let in that is free."""
        by_tokens = 1.0 - self._held_tokens / self._admit_tokens.value
        return min(by_tokens, 1.0 - self._num_active / self._window.value)

    def begin(self) -> None:
        """Put everybody where the plan found them."""
        self._place()
        self._pause_surplus()

    def fill(self) -> None:
        """Let in whoever has room."""
        self._admit()

    def take_one(self) -> bool:
        """Let one agent in, if one waits and there is room."""
        return self._admit_one()

    def go_on(self) -> bool:
        """Let happen what is next; return whether anything did."""
        return self._step()

    def wait_until(self, time_s: float) -> None:
        """Do nothing until then."""
        self._now_s = max(self._now_s, time_s)

    def _admit_one(self) -> bool:
        return super()._admit_one() or self._take_over()

    @property
    def next_due_s(self) -> float:
        """When somebody who waits elsewhere may come here next."""
        if self._move_after_s is None:
            return inf
        since_s = [self._crowd.paused_s[other._paused[0]] for other in self.others if other._paused]
        return min(since_s, default=inf) + self._move_after_s

    def _take_over(self) -> bool:
        """Let in the one that has waited elsewhere for long enough; not past those who wait here."""
        if self._move_after_s is None or self._paused or self._new:
            return False
        since_s = self._now_s - self._move_after_s
        due = [
            (self._crowd.paused_s[other._paused[0]], other._paused[0], other)
            for other in self.others
            if other._paused and self._crowd.paused_s[other._paused[0]] <= since_s
        ]
        if not due:
            return False
        _, number, origin = min(due, key=lambda each: each[:2])
        if not self._has_room(number, self._contexts[number]):
            return False
        heapq.heappop(origin._paused)
        self._let_in(number, self._contexts[number])
        return True
