"""The engine on the simulated clock: a SimPy shell around an engine core."""

from collections.abc import Generator
from math import inf

import simpy

from concur.sim.engine.core import EngineCore
from concur.sim.engine.request import Request
from concur.sim.world.clock import STEP, Clock, Instant


class Engine:
    """One engine of the world; agents wait for the events that `submit` returns.

    An event says whether the call was answered: one that is aborted, because the engine has died, was not.
    While `is_up` is false calls are aborted at once, or with `is_awaited` kept until it is back, as callers
    do who have nowhere else to go.
    """

    def __init__(self, env: Clock, core: EngineCore) -> None:
        self.core = core
        self.is_up = True
        self.is_awaited = False
        self.num_aborted = 0
        self._env = env
        self._finished: dict[str, tuple[Request, simpy.Event]] = {}
        self._kept: list[tuple[Request, simpy.Event]] = []
        self._wake = env.event()
        self._is_asleep = False
        env.process(self._running(core))

    def submit(self, request: Request) -> simpy.Event:
        """Queue a request for the next step; the event fires when it has finished, or is aborted."""
        finished = self._env.event()
        if self.is_up:
            self._take(request, finished)
        elif self.is_awaited:
            self._kept.append((request, finished))
        else:
            finished.succeed(False)
        return finished

    def has(self, request_id: str) -> bool:
        """Tell whether it has a request that has not finished."""
        return request_id in self._finished

    def request(self, request_id: str) -> Request:
        """Return a request that has not finished."""
        return self._finished[request_id][0]

    def die(self, successor: EngineCore, *, is_awaited: bool) -> None:
        """Abort what runs and what is queued; `successor`, its cache empty, is there once it is back."""
        self.is_up, self.is_awaited = False, is_awaited
        aborted = list(self._finished.values())
        self._finished.clear()
        self.core = successor
        self._rouse()
        self.num_aborted += len(aborted)
        for _, finished in aborted:
            finished.succeed(False)

    def wait_no_longer(self) -> None:
        """Send away those who wait for it to come back."""
        self.is_awaited = False
        kept, self._kept = self._kept, []
        for _, finished in kept:
            finished.succeed(False)

    def come_back(self) -> None:
        """Serve again, those who have waited first."""
        self.is_up, self.is_awaited = True, False
        self._env.process(self._running(self.core))
        kept, self._kept = self._kept, []
        for request, finished in kept:
            request.arrival_s = self._env.now
            self._take(request, finished)

    def _take(self, request: Request, finished: simpy.Event) -> None:
        self._finished[request.request_id] = request, finished
        self.core.submit(request)
        self._rouse()

    def _running(self, core: EngineCore) -> Generator[simpy.Event, object, None]:
        env = self._env
        while self.core is core:
            if env.others_act_now():
                yield Instant(env, STEP)
                if self.core is not core:
                    return
            finished = core.run_until(env.horizon_s())
            if not finished and core.is_idle:
                yield from self._sleep(core)
                continue
            yield env.at(core.time_s if finished else core.next_change_s)
            if self.core is not core:
                return
            for request in finished or core.advance():
                self._finished.pop(request.request_id)[1].succeed(True)

    def _sleep(self, core: EngineCore) -> Generator[simpy.Event, object, None]:
        """Wait until a request arrives, or until the core has something to do by itself."""
        self._wake, self._is_asleep = self._env.event(), True
        if core.next_change_s < inf:
            alarm = self._env.at(core.next_change_s)
            assert alarm.callbacks is not None
            alarm.callbacks.append(self._rouse)
        yield self._wake

    def _rouse(self, _: simpy.Event | None = None) -> None:
        if self._is_asleep:
            self._is_asleep = False
            self._wake.succeed()
