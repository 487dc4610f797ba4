"""The engines of a run on its one clock, and the gate in front of them; without `[fleet]` a fleet of one."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import simpy

from concur.controllers import Law
from concur.measures.fleet import sum_of
from concur.signals import Snapshot
from concur.sim.engine.core import EngineCore
from concur.sim.engine.request import Request
from concur.sim.record.fleet import sum_of_metrics
from concur.sim.record.publish import StepWork, engine_row
from concur.sim.record.tables import Rows
from concur.sim.scenario.scenario import Scenario
from concur.sim.world.agent import SimGate
from concur.sim.world.clock import CONTROL, Clock, Instant
from concur.sim.world.engine import Engine
from concur.sim.world.gate import build_fleet_gate, build_router
from concur.sim.world.histories import FleetHistories
from concur.sim.world.outages import Outages
from concur.sim.world.readings import Past, reading, sum_of_work, work_of


class Fleet:
    """Engines, router and gates. `scenarios` are those of the engines; agents turn to `shell` and `engines`.

    `is_routed`: whether somebody looks at where a call could go, and so at what it begins with.
    """

    def __init__(
        self,
        env: Clock,
        scenario: Scenario,
        cores: Sequence[EngineCore],
        controllers: Sequence[Law],
        new_core: Callable[[Scenario], EngineCore],
    ) -> None:
        self.scenarios = scenario.engines
        self.engines = [Engine(env, core) for core in cores]
        self.histories = FleetHistories([each.engine.name_tokens for each in self.scenarios])
        self._env = env
        self._router = build_router(scenario)
        self.is_routed = self._router is not None and len(cores) > 1
        self.gate = build_fleet_gate(scenario, [each.window for each in controllers], self._router)
        self.shell = SimGate(env, self.gate, are_ends_told=scenario.gate.are_ends_told)
        self._past = [Past() for _ in cores]
        self.outages = Outages(
            self.shell,
            self.engines,
            scenario.fleet.outages if scenario.fleet is not None else (),
            lambda index: new_core(self.scenarios[index]),
            lambda index: self._past[index].add(self.engines[index].core),
        )

    @property
    def cores(self) -> list[EngineCore]:
        """The engines' cores, those that there are now."""
        return [engine.core for engine in self.engines]

    @property
    def num_steps(self) -> int:
        """Steps of all engines so far."""
        past = sum([each.num_steps for each in self._past])
        return past + sum([core.totals.num_steps for core in self.cores])

    @property
    def num_calls_aborted(self) -> int | None:
        """Calls that were at an engine when it died; `None` where none is to die."""
        return sum([engine.num_aborted for engine in self.engines]) if self.outages.are_any else None

    def host_metrics(self) -> dict[str, float]:
        """Return what is known of the traffic with host memory; see `EngineCore.host_metrics`."""
        past = [each.host for each in self._past if each.host]
        return sum_of_metrics([*[core.host_metrics() for core in self.cores], *past])

    def is_deciding(self, gate_number: int) -> bool:
        """Tell whether a gate's law takes decisions: where its engine is down there is nothing to decide."""
        is_of_one = len(self.gate.gates) == len(self.engines) > 1
        return not is_of_one or self.gate.loads[gate_number].is_up

    def start(self) -> None:
        """Begin to read the engines for a router that wants it, and to let them die."""
        self.outages.start()
        if self._router is not None and self._router.reads_every_s is not None and self.is_routed:
            self._env.process(self._reading_for_router(self._router.reads_every_s))

    def request(self, request_id: str) -> Request:
        """Return a request that has not finished, of whichever engine."""
        return next(engine.request(request_id) for engine in self.engines if engine.has(request_id))

    def readings(self) -> list[Snapshot]:
        """Return what each engine says now."""
        return [self._reading(index) for index in range(len(self.engines))]

    def _reading(self, index: int) -> Snapshot:
        core = self.engines[index].core
        return self._past[index].reading(reading(self.scenarios[index], core, time_s=self._env.now))

    def reading_for(self, gate_number: int) -> Snapshot:
        """Return what the law of a gate sees: its engine, or all of them."""
        if len(self.gate.gates) == 1:
            return sum_of(self.readings())
        return self._reading(gate_number)

    def work(self) -> StepWork:
        """Return what the steps of all went into so far."""
        return sum_of_work([self._work(index) for index in range(len(self.engines))])

    def _work(self, index: int) -> StepWork:
        return self._past[index].work(work_of(self.engines[index].core))

    def sample(self, rows: Rows, readings: Sequence[Snapshot]) -> None:
        """Add one row for each engine."""
        number = len(self.engines)
        gates = self.gate.gates if len(self.gate.gates) == number else [None] * number
        for index, (snapshot, engine) in enumerate(zip(readings, self.engines, strict=True)):
            load, gate = replace(self.gate.loads[index], is_up=engine.is_up), gates[index]
            work = self._work(index)
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
