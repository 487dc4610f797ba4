"""The engine on the simulated clock: a SimPy shell around an engine core."""

from collections.abc import Generator
from math import inf

import simpy

from concur.sim.engine.core import EngineCore
from concur.sim.engine.request import Request
from concur.sim.world.clock import STEP, Clock, Instant


class Engine:
    """One engine of the world; agents wait for the events that `submit` returns."""

    def __init__(self, env: Clock, core: EngineCore) -> None:
        self.core = core
        self._env = env
        self._finished: dict[str, tuple[Request, simpy.Event]] = {}
        self._wake = env.event()
        self._is_asleep = False
        env.process(self._running())

    def submit(self, request: Request) -> simpy.Event:
        """Queue a request for the next step; the event fires when it has finished."""
        finished = self._env.event()
        self._finished[request.request_id] = request, finished
        self.core.submit(request)
        self._rouse()
        return finished

    def has(self, request_id: str) -> bool:
        """Tell whether it has a request that has not finished."""
        return request_id in self._finished

    def request(self, request_id: str) -> Request:
        """Return a request that has not finished."""
        return self._finished[request_id][0]

    def _running(self) -> Generator[simpy.Event, object, None]:
        env, core = self._env, self.core
        while True:
            if env.others_act_now():
                yield Instant(env, STEP)
            finished = core.run_until(env.horizon_s())
            if not finished and core.is_idle:
                yield from self._sleep()
                continue
            yield env.at(core.time_s if finished else core.next_change_s)
            for request in finished or core.advance():
                self._finished.pop(request.request_id)[1].succeed()

    def _sleep(self) -> Generator[simpy.Event, object, None]:
        """Wait until a request arrives, or until the core has something to do by itself."""
        self._wake, self._is_asleep = self._env.event(), True
        if self.core.next_change_s < inf:
            alarm = self._env.at(self.core.next_change_s)
            assert alarm.callbacks is not None
            alarm.callbacks.append(self._rouse)
        yield self._wake

    def _rouse(self, _: simpy.Event | None = None) -> None:
        if self._is_asleep:
            self._is_asleep = False
            self._wake.succeed()
