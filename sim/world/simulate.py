"""Run one scenario in the simulated world: agents, gates, controllers and engines on one SimPy clock."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

import simpy

from concur.controllers import Law, hurry_of, interval_of
from concur.decision import decide
from concur.measures.fleet import sum_of
from concur.sim.engine.core import EngineCore
from concur.sim.errors import ScenarioError
from concur.sim.kv.segments import DuplicateBlockError
from concur.sim.record.fleet import fleet_metrics
from concur.sim.record.metrics import compute_metrics, counts_of, no_metrics
from concur.sim.record.publish import run_json, tick_row, timeline_row
from concur.sim.record.record import RunRecord
from concur.sim.record.rows import AgentRow
from concur.sim.record.tables import RunTables, columns_of
from concur.sim.scenario.build import build_workload, check_fits_everywhere
from concur.sim.scenario.scenario import Scenario
from concur.sim.step_time.config import profile_hash
from concur.sim.workload.spec import Workload
from concur.sim.world.clock import CONTROL, Clock, Instant
from concur.sim.world.cores import core_of, cores_of, reference_core_of, reference_cores_of
from concur.sim.world.fleet import Fleet
from concur.sim.world.gate import build_controllers, num_gates
from concur.sim.world.restart import OnProgress, forward_only, others, why_again
from concur.sim.world.society import Society
from concur.sim.world.tenant import Tenant


def simulate(
    scenario: Scenario,
    workload: Workload | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_warning: Callable[[str], None] | None = None,
    core: EngineCore | None = None,
    cores: Sequence[EngineCore] | None = None,
    law: Callable[[], Law] | None = None,
    end_s: float | None = None,
) -> RunRecord:
    """Run a scenario to its end and return its record.

    `workload` saves building it again when several controllers face the same one; `core` puts another engine,
    fresh, in the place of the scenario's, and `cores` in the place of a fleet's. `law` makes a controller
    that is not in the catalog (any class with the methods of `concur.controllers.Law`, or a function that
    returns one), one for each gate; it decides every `interval_s` of its own, else every
    `controller.interval_s` of the scenario, through the gate of the scenario's kind. Its run is labelled with
    its class, and says that the record alone does not repeat it.
    `end_s` cuts the run off there: its record has what was over by then, is not complete, and has no metrics
    but the counts. `on_warning` is told at once what makes the run take longer; the record has it too.

    Raises
    ------
    ConcurError
        If the workload cannot be built or does not fit the engines, or `law` gives a used controller.
    """
    began_s = time.perf_counter()
    if workload is None:
        workload = build_workload(scenario)
    else:
        check_fits_everywhere(workload, scenario)
    new_laws = (
        partial(build_controllers, scenario) if law is None else partial(_laws, law, num_gates(scenario))
    )
    report = None if on_progress is None else forward_only(on_progress)
    chosen = _chosen(scenario, core, cores)
    world = _World(scenario, workload, chosen, new_laws(), report, core_of)
    try:
        world.run(end_s)
    except DuplicateBlockError as duplicate:
        call = world.fleet.request(duplicate.request_id)
        warning = why_again(duplicate, call, scenario, workload, time_s=world.env.now)
        if on_warning is not None:
            on_warning(warning)
        laws = others(new_laws, than=world.controllers)
        cores = reference_cores_of(scenario)
        world = _World(scenario, workload, cores, laws, report, reference_core_of)
        world.warnings.append(warning)
        world.run(end_s)
    world.sample()
    record = world.to_record(began_s)
    if law is None:
        return record
    return _of_foreign_law(record, type(world.controllers[0]).__name__, world.interval_s)


def _chosen(
    scenario: Scenario, core: EngineCore | None, cores: Sequence[EngineCore] | None
) -> Sequence[EngineCore]:
    """Return the engines to run: those given, or the scenario's."""
    given = [core] if core is not None else cores
    if given is None:
        return cores_of(scenario)
    if len(given) != len(scenario.engines):
        raise ScenarioError(
            f"{len(given)} cores are given but the scenario has {len(scenario.engines)} engines; give as many"
        )
    return given


def _laws(new_law: Callable[[], Law], number: int) -> list[Law]:
    """Return a law for each gate, no two of them one object."""
    laws = [new_law()]
    while len(laws) < number:
        laws += others(lambda: [new_law()], than=laws[-1:])
    return laws


class _World:
    """Everything that lives during one run."""

    def __init__(
        self,
        scenario: Scenario,
        workload: Workload,
        cores: Sequence[EngineCore],
        controllers: Sequence[Law],
        on_progress: OnProgress | None,
        new_core: Callable[[Scenario], EngineCore],
    ) -> None:
        self.scenario = scenario
        self.workload = workload
        self.env = env = Clock()
        self.controllers = controllers
        self.interval_s = interval_of(controllers[0], scenario.controller.interval_s)
        self.fleet = Fleet(env, scenario, cores, controllers, new_core)
        self.tables = RunTables() if scenario.fleet is None else RunTables.of_fleet()
        self.warnings: list[str] = []
        self._on_progress = on_progress
        self._start()

    def _start(self) -> None:
        fleet = self.fleet
        self.society = Society(
            self.workload, fleet, on_call=self.tables.requests.append, on_leave=self._on_leave
        )
        self._start_tenants()
        fleet.start()
        self.env.process(self._sampling())
        for number, controller in enumerate(self.controllers):
            self.env.process(self._controlling(number, controller))

    def _start_tenants(self) -> None:
        fleet, tenant = self.fleet, self.scenario.tenant
        first = 1 + max(spec.index for spec in self.workload.agents)
        for number in tenant.engines(len(fleet.engines)):
            engine = fleet.engines[number]
            Tenant(self.env, engine, fleet.histories, tenant, engine_index=number, first_index=first)
            first += tenant.num_requests

    def run(self, end_s: float | None) -> None:
        """Run until all agents have ended, or to `end_s` if that is before."""
        over = self.society.all_ended
        self.env.run(until=over if end_s is None else over | Instant(self.env, CONTROL, end_s))

    def _on_leave(self, row: AgentRow) -> None:
        agents = self.tables.agents
        agents.append(row)
        if self._on_progress is not None:
            self._on_progress(len(agents), len(self.workload.agents))

    def _controlling(self, gate_number: int, law: Law) -> Generator[simpy.Event, object, None]:
        """Decide every `interval_s`, first after one of them, and whenever the law wants to before that."""
        shell, gate = self.fleet.shell, self.fleet.gate.gates[gate_number]
        engine_index = None if len(self.controllers) == 1 else gate_number
        number = 1
        while True:
            left_s, hurry_s = number * self.interval_s - self.env.now, hurry_of(law)
            number += left_s <= hurry_s
            yield Instant(self.env, CONTROL, min(left_s, hurry_s))
            if not self.fleet.is_deciding(gate_number):
                continue
            tick = decide(law, gate, self.fleet.reading_for(gate_number))
            self.tables.ticks.append(tick_row(tick, engine_index=engine_index))
            if not tick.is_in_force(gate):
                resize = self.fleet.gate.resize
                shell.wake(resize(gate_number, tick.window, time_s=self.env.now, budget=tick.budget))

    def _sampling(self) -> Generator[simpy.Event, object, None]:
        interval_s = self.scenario.record.timeline_interval_s
        number = 0
        while True:
            yield Instant(self.env, CONTROL, number * interval_s - self.env.now)
            self.sample()
            number += 1

    def sample(self) -> None:
        """Add one row to the timeline, and one for each engine of a fleet."""
        fleet, readings = self.fleet, self.fleet.readings()
        num_finished = len(self.tables.agents)
        row = timeline_row(
            self.env.now, sum_of(readings), fleet.gate, num_finished=num_finished, work=fleet.work()
        )
        self.tables.timeline.append(row)
        if self.tables.engines is not None:
            fleet.sample(self.tables.engines, readings)

    def to_record(self, began_s: float) -> RunRecord:
        """Put the tables, the metrics and the provenance together."""
        is_complete = self.society.all_ended.triggered
        tables = self.tables.finished()
        columns = {name: columns_of(table) for name, table in tables.items()}
        engines = [each.engine for each in self.fleet.scenarios]
        metrics = (
            no_metrics() | counts_of(columns)
            if not is_complete
            else compute_metrics(
                requests=columns["requests"],
                agents=columns["agents"],
                timeline=columns["timeline"],
                pool_tokens=sum(engine.pool_tokens for engine in engines),
                block_size=min(engine.unit_tokens for engine in engines),
                num_agents_skipped=self.workload.num_agents_skipped,
                num_engine_steps=self.fleet.num_steps,
                slo=self.scenario.slo,
                num_engines=len(engines),
            )
        )
        metrics |= self.fleet.host_metrics()
        if "engines" in columns and len(columns["requests"]["finished_s"]):
            metrics |= fleet_metrics(
                columns["requests"],
                columns["engines"],
                num_engines=len(engines),
                num_moves=self.fleet.gate.num_moves,
                num_calls_aborted=self.fleet.num_calls_aborted,
            )
        metrics["wall_clock_s"] = time.perf_counter() - began_s
        run = run_json(
            self.scenario,
            self.workload,
            world="sim",
            profile_hash=profile_hash(self.scenario.step_time),
            metrics=metrics,
            warnings=[
                *self.workload.warnings,
                *dict.fromkeys(text for core in self.fleet.cores for text in core.warnings()),
                *self.society.turns.warnings(),
                *self.fleet.outages.told(self.env.now),
                *self.warnings,
            ],
        )
        return RunRecord(run if is_complete else run | {"complete": False}, tables)


def _of_foreign_law(record: RunRecord, name: str, interval_s: float) -> RunRecord:
    """Say whose decisions these were, where the scenario names another law."""
    given = record.run["scenario"]
    controller = {"kind": name, "wrappers": [], "parameters": {"interval_s": interval_s}}
    warning = f"{name} is not in the catalog: to repeat this run, its code is needed too"
    run = {
        "label": name,
        "scenario": given | {"controller": controller},
        "warnings": [*record.run["warnings"], warning],
    }
    return replace(record, run=record.run | run)
