"""The simulated clock, and the order of what happens within one instant.

Agents and arrivals come first, then controller and samples (`CONTROL`), then the engine's next step (`STEP`).
So a request that becomes ready during a step, or at the instant it ends, joins the queue before the next one.
"""

from heapq import heappush
from math import inf, nextafter
from typing import Final

import simpy
from simpy.events import EventPriority

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


class Clock(simpy.Environment):
    """SimPy's environment, with events at absolute times: now + (t - now) need not be t in floating point."""

    def others_act_now(self) -> bool:
        """Tell whether somebody who comes before the engines' steps still has to act at this instant."""
        return bool(self._queue) and self._queue[0][:2] < (self._now, STEP)

    def horizon_s(self) -> float:
        """Return until when an engine that comes to its step now may run on: nobody acts before.

        Another engine that has not come to its own step at this instant may act right after it.
        """
        next_s = self.peek()
        return next_s if next_s > self._now else nextafter(self._now, inf)

    def at(self, time_s: float) -> simpy.Event:
        """Return an event at `time_s`, not before now."""
        event = simpy.Event(self)
        event._ok = True
        event._value = None
        heappush(self._queue, (time_s, NORMAL, next(self._eid), event))
        return event
