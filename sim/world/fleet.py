"""The engines of a run on its one clock, and the gate in front of them; without `[fleet]` a fleet of one."""

from collections.abc import Generator, Sequence

import simpy

from concur.controllers import Law
from concur.measures.fleet import sum_of
from concur.signals import Snapshot
from concur.sim.engine.core import EngineCore
from concur.sim.engine.request import Request
from concur.sim.record.publish import StepWork, engine_row
from concur.sim.record.tables import Rows
from concur.sim.scenario.scenario import Scenario
from concur.sim.world.agent import SimGate
from concur.sim.world.clock import CONTROL, Clock, Instant
from concur.sim.world.engine import Engine
from concur.sim.world.gate import build_fleet_gate, build_router
from concur.sim.world.histories import FleetHistories
from concur.sim.world.readings import reading, sum_of_work, work_of


class Fleet:
    """Engines, router and gates. `scenarios` are those of the engines; agents turn to `shell` and `engines`.

    `is_routed`: whether somebody looks at where a call could go, and so at what it begins with.
    """

    def __init__(
        self, env: Clock, scenario: Scenario, cores: Sequence[EngineCore], controllers: Sequence[Law]
    ) -> None:
        self.scenarios = scenario.engines
        self.cores = tuple(cores)
        self.engines = [Engine(env, core) for core in cores]
        self.histories = FleetHistories([each.engine.name_tokens for each in self.scenarios])
        self._env = env
        self._router = build_router(scenario)
        self.is_routed = self._router is not None and len(self.cores) > 1
        self.gate = build_fleet_gate(scenario, [each.window for each in controllers], self._router)
        self.shell = SimGate(env, self.gate, are_ends_told=scenario.gate.are_ends_told)

    def start(self) -> None:
        """Begin to read the engines for a router that wants it."""
        if self._router is not None and self._router.reads_every_s is not None and self.is_routed:
            self._env.process(self._reading_for_router(self._router.reads_every_s))

    def request(self, request_id: str) -> Request:
        """Return a request that has not finished, of whichever engine."""
        return next(engine.request(request_id) for engine in self.engines if engine.has(request_id))

    def readings(self) -> list[Snapshot]:
        """Return what each engine says now."""
        pairs = zip(self.scenarios, self.cores, strict=True)
        return [reading(scenario, core, time_s=self._env.now) for scenario, core in pairs]

    def reading_for(self, gate_number: int) -> Snapshot:
        """Return what the law of a gate sees: its engine, or all of them."""
        if len(self.gate.gates) == 1:
            return sum_of(self.readings())
        return reading(self.scenarios[gate_number], self.cores[gate_number], time_s=self._env.now)

    def work(self) -> StepWork:
        """Return what the steps of all went into so far."""
        return sum_of_work([work_of(core) for core in self.cores])

    def sample(self, rows: Rows, readings: Sequence[Snapshot]) -> None:
        """Add one row for each engine."""
        gates = self.gate.gates if len(self.gate.gates) == len(self.cores) else [None] * len(self.cores)
        for index, (snapshot, core) in enumerate(zip(readings, self.cores, strict=True)):
            load, gate = self.gate.loads[index], gates[index]
            work = work_of(core)
            rows.append(engine_row(self._env.now, snapshot, load, gate, engine_index=index, work=work))

    def _reading_for_router(self, interval_s: float) -> Generator[simpy.Event, object, None]:
        assert self._router is not None
        number = 0
        while True:
            yield Instant(self._env, CONTROL, number * interval_s - self._env.now)
            for load, core in zip(self.gate.loads, self.cores, strict=True):
                load.num_requests_running = core.stats.num_requests_running
                load.num_requests_waiting = core.stats.num_requests_waiting
                load.kv_cache_usage_frac = core.stats.kv_cache_usage_frac
            self._router.observe(self.gate.loads)
            number += 1
