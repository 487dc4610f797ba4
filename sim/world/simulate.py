"""Run one scenario in the simulated world: agents, gate, controller and engine on one SimPy clock."""

import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial

import simpy

from concur.controllers import Law, hurry_of, interval_of, make_controller
from concur.decision import decide
from concur.signals import Snapshot
from concur.sim.engine.core import EngineCore
from concur.sim.kv.history import Histories
from concur.sim.kv.segments import DuplicateBlockError
from concur.sim.record.metrics import compute_metrics
from concur.sim.record.publish import StepWork, published, run_json, tick_row, timeline_row
from concur.sim.record.record import RunRecord
from concur.sim.record.rows import AgentRow
from concur.sim.record.tables import RunTables, columns_of
from concur.sim.scenario.build import build_workload, check_fits
from concur.sim.scenario.scenario import Scenario
from concur.sim.step_time.config import profile_hash
from concur.sim.workload.spec import Workload
from concur.sim.world.agent import SimGate
from concur.sim.world.clock import CONTROL, Clock, Instant
from concur.sim.world.cores import core_of, reference_core_of
from concur.sim.world.engine import Engine
from concur.sim.world.gate import build_gate
from concur.sim.world.restart import OnProgress, another, forward_only, why_again
from concur.sim.world.society import Society
from concur.sim.world.tenant import Tenant


def simulate(
    scenario: Scenario,
    workload: Workload | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_warning: Callable[[str], None] | None = None,
    core: EngineCore | None = None,
    law: Callable[[], Law] | None = None,
) -> RunRecord:
    """Run a scenario to its end and return its record.

    `workload` saves building it again when several controllers face the same one; `core` puts another engine,
    fresh, in the place of the scenario's. `law` makes a controller that is not in the catalog (any
    class with the methods of `concur.controllers.Law`, or a function that returns one); it decides every
    `interval_s` of its own, else every `controller.interval_s` of the scenario, through the gate of the
    scenario's kind. Its run is labelled with its class, and says that the record alone does not repeat it.
    `on_warning` is told at once what makes the run take longer; the record has it too.

    Raises
    ------
    ConcurError
        If the workload cannot be built or does not fit the engine, or `law` gives a used controller.
    """
    began_s = time.perf_counter()
    if workload is None:
        workload = build_workload(scenario)
    else:
        check_fits(workload, scenario.engine)
    new_law = law or partial(_catalog_law, scenario)
    report = None if on_progress is None else forward_only(on_progress)
    world = _World(scenario, workload, core or core_of(scenario), new_law(), report)
    try:
        world.env.run(until=world.society.all_ended)
    except DuplicateBlockError as duplicate:
        call = world.engine.request(duplicate.request_id)
        warning = why_again(duplicate, call, scenario, workload, time_s=world.env.now)
        if on_warning is not None:
            on_warning(warning)
        controller = another(new_law, than=world.controller)
        world = _World(scenario, workload, reference_core_of(scenario), controller, report)
        world.warnings.append(warning)
        world.env.run(until=world.society.all_ended)
    world.sample()
    record = world.to_record(began_s)
    return (
        record if law is None else _of_foreign_law(record, type(world.controller).__name__, world.interval_s)
    )


class _World:
    """Everything that lives during one run."""

    def __init__(
        self,
        scenario: Scenario,
        workload: Workload,
        core: EngineCore,
        controller: Law,
        on_progress: OnProgress | None,
    ) -> None:
        self.scenario = scenario
        self.workload = workload
        self.env = env = Clock()
        self.core = core
        self.engine = Engine(env, core)
        self.histories = Histories(scenario.engine.name_tokens)
        self.controller = controller
        self.interval_s = interval_of(controller, scenario.controller.interval_s)
        self.gate = build_gate(scenario, controller.window)
        self.shell = SimGate(env, self.gate, are_ends_told=scenario.gate.are_ends_told)
        self.tables = RunTables()
        self.warnings: list[str] = []
        self._on_progress = on_progress
        self._start()

    def _start(self) -> None:
        self.society = Society(
            self.workload,
            self.shell,
            self.engine,
            self.histories,
            on_call=self.tables.requests.append,
            on_leave=self._on_leave,
        )
        after_all = 1 + max(spec.index for spec in self.workload.agents)
        Tenant(self.env, self.engine, self.histories, self.scenario.tenant, first_index=after_all)
        self.env.process(self._sampling())
        self.env.process(self._controlling())

    def _on_leave(self, row: AgentRow) -> None:
        agents = self.tables.agents
        agents.append(row)
        if self._on_progress is not None:
            self._on_progress(len(agents), len(self.workload.agents))

    def _controlling(self) -> Generator[simpy.Event, object, None]:
        """Decide every `interval_s`, first after one of them, and whenever the law wants to before that."""
        number = 1
        while True:
            left_s, hurry_s = number * self.interval_s - self.env.now, hurry_of(self.controller)
            number += left_s <= hurry_s
            yield Instant(self.env, CONTROL, min(left_s, hurry_s))
            tick = decide(self.controller, self.gate, self._reading())
            self.tables.ticks.append(tick_row(tick))
            if not tick.is_in_force(self.gate):
                self.shell.wake(self.gate.resize(tick.window, time_s=self.env.now, budget=tick.budget))

    def _sampling(self) -> Generator[simpy.Event, object, None]:
        interval_s = self.scenario.record.timeline_interval_s
        number = 0
        while True:
            yield Instant(self.env, CONTROL, number * interval_s - self.env.now)
            self.sample()
            number += 1

    def _reading(self) -> Snapshot:
        """Return what a live engine would answer now."""
        stats = self.core.stats
        return Snapshot(
            time_s=self.env.now,
            **published(stats),
            external_prefix_cache_queries_tokens=stats.external_prefix_cache_queries_tokens,
            external_prefix_cache_hits_tokens=stats.external_prefix_cache_hits_tokens,
            **self.scenario.engine.capacity,
            num_engine_steps=self.core.totals.num_steps,
        )

    def sample(self) -> None:
        """Add one row to the timeline."""
        stats, totals = self.core.stats, self.core.totals
        work = StepWork(
            totals.recomputed_tokens,
            stats.num_evictions,
            totals.prefill_s,
            totals.recompute_s,
            totals.decode_s,
        )
        num_finished = len(self.tables.agents)
        row = timeline_row(self.env.now, stats, self.gate, num_finished=num_finished, work=work)
        self.tables.timeline.append(row)

    def to_record(self, began_s: float) -> RunRecord:
        """Put the tables, the metrics and the provenance together."""
        tables = self.tables.finished()
        engine = self.scenario.engine
        metrics = compute_metrics(
            requests=columns_of(tables["requests"]),
            agents=columns_of(tables["agents"]),
            timeline=columns_of(tables["timeline"]),
            pool_tokens=engine.pool_tokens,
            block_size=engine.unit_tokens,
            num_agents_skipped=self.workload.num_agents_skipped,
            num_engine_steps=self.core.totals.num_steps,
            slo=self.scenario.slo,
        )
        metrics |= self.core.host_metrics()
        metrics["wall_clock_s"] = time.perf_counter() - began_s
        run = run_json(
            self.scenario,
            self.workload,
            world="sim",
            profile_hash=profile_hash(self.scenario.step_time),
            metrics=metrics,
            warnings=[
                *self.workload.warnings,
                *self.core.warnings(),
                *self.society.turns.warnings(),
                *self.warnings,
            ],
        )
        return RunRecord(run, tables)


def _catalog_law(scenario: Scenario) -> Law:
    config = scenario.controller
    return make_controller(config.kind, wrappers=config.wrappers, **config.parameters)


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
