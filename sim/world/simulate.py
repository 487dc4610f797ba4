"""Run one scenario in the simulated world: agents, gate, controller and engine on one SimPy clock."""

import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from json import dumps
from typing import Any, Final

import simpy

from concur.controllers import Law, interval_of, make_controller
from concur.signals import Snapshot
from concur.sim.engine.core import EngineCore
from concur.sim.engine.output import SchedulerStats
from concur.sim.engine.vllm.build import build_core, build_reference_core
from concur.sim.kv.history import Histories
from concur.sim.kv.segments import DuplicateBlockError
from concur.sim.record.metrics import compute_metrics
from concur.sim.record.provenance import git_commit, versions
from concur.sim.record.record import SCHEMA_VERSION, AgentRow, Rows, RunRecord, TickRow, TimelineRow, frame
from concur.sim.scenario.build import build_workload, check_fits
from concur.sim.scenario.scenario import Scenario
from concur.sim.step_time.config import profile_hash
from concur.sim.step_time.make import make_step_time
from concur.sim.workload.spec import Workload
from concur.sim.world.agent import Agent, SimGate
from concur.sim.world.clock import CONTROL, Clock, Instant
from concur.sim.world.engine import Engine
from concur.sim.world.gate import build_gate
from concur.sim.world.restart import OnProgress, another, forward_only, why_again
from concur.sim.world.tenant import Tenant

_PUBLISHED: Final = (
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_frac",
    "kv_cache_resident_frac",
    "prefix_cache_queries_tokens",
    "prefix_cache_hits_tokens",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
)


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
    step_time = make_step_time(scenario.step_time)
    core = core or build_core(scenario.engine, step_time)
    world = _World(scenario, workload, core, new_law(), report)
    try:
        world.env.run(until=world.all_finished)
    except DuplicateBlockError as duplicate:
        call = world.engine.request(duplicate.request_id)
        warning = why_again(duplicate, call, scenario, workload, time_s=world.env.now)
        if on_warning is not None:
            on_warning(warning)
        controller = another(new_law, than=world.controller)
        core = build_reference_core(scenario.engine, make_step_time(scenario.step_time))
        world = _World(scenario, workload, core, controller, report)
        world.warnings.append(warning)
        world.env.run(until=world.all_finished)
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
        self.histories = Histories(scenario.engine.block_size)
        self.controller = controller
        self.interval_s = interval_of(controller, scenario.controller.interval_s)
        self.gate = build_gate(scenario, controller.window)
        self.shell = SimGate(env, self.gate)
        self.requests = Rows("requests")
        self.agents: list[AgentRow] = []
        self.ticks = Rows("ticks")
        self.timeline = Rows("timeline")
        self.warnings: list[str] = []
        self.all_finished = env.event()
        self._on_progress = on_progress
        self._start()

    def _start(self) -> None:
        for spec in self.workload.agents:
            agent = Agent(
                spec,
                self.shell,
                self.engine,
                self.histories,
                on_call=self.requests.append,
                on_leave=self._on_leave,
            )
            self.env.process(agent.living())
        after_all = 1 + max(spec.index for spec in self.workload.agents)
        Tenant(self.env, self.engine, self.histories, self.scenario.tenant, first_index=after_all)
        self.env.process(self._sampling())
        self.env.process(self._controlling())

    def _on_leave(self, row: AgentRow) -> None:
        self.agents.append(row)
        if self._on_progress is not None:
            self._on_progress(len(self.agents), len(self.workload.agents))
        if len(self.agents) == len(self.workload.agents):
            self.all_finished.succeed()

    def _controlling(self) -> Generator[simpy.Event, object, None]:
        """Decide every `interval_s`; the first decision is one interval after the start."""
        number = 0
        while True:
            number += 1
            yield Instant(self.env, CONTROL, number * self.interval_s - self.env.now)
            snapshot = self._snapshot()
            window_before, active = self.controller.window, self.gate.active
            window = self.controller.update(snapshot, active=active)
            self.ticks.append(self._tick_row(snapshot, active, window_before, window))
            if window != self.gate.window:
                self.shell.wake(self.gate.resize(window, time_s=self.env.now))

    def _sampling(self) -> Generator[simpy.Event, object, None]:
        interval_s = self.scenario.record.timeline_interval_s
        number = 0
        while True:
            yield Instant(self.env, CONTROL, number * interval_s - self.env.now)
            self.sample()
            number += 1

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            time_s=self.env.now,
            **_published(self.core.stats),
            num_gpu_blocks=self.scenario.engine.num_gpu_blocks,
            block_size=self.scenario.engine.block_size,
            agents_paused=self.gate.paused,
            agents_waiting=self.gate.waiting,
            agents=tuple(self.gate.views()) if self.controller.reads_agents else (),
            departed=self.gate.departed,
        )

    def _tick_row(self, snapshot: Snapshot, active: int, window_before: int, window: int) -> TickRow:
        return TickRow(
            t_s=snapshot.time_s,
            **_published(snapshot),
            agents_active=active,
            agents_paused=snapshot.agents_paused,
            agents_waiting=snapshot.agents_waiting,
            window_before=window_before,
            window=window,
            state=dumps(self.controller.log_state()),
        )

    def sample(self) -> None:
        """Add one row to the timeline."""
        stats, totals, gate = self.core.stats, self.core.totals, self.gate
        self.timeline.append(
            TimelineRow(
                t_s=self.env.now,
                **_published(stats),
                recomputed_tokens=totals.recomputed_tokens,
                num_evictions=stats.num_evictions,
                prefill_s=totals.prefill_s,
                recompute_s=totals.recompute_s,
                decode_s=totals.decode_s,
                agents_active=gate.active,
                agents_paused=gate.paused,
                agents_waiting=gate.waiting,
                agents_finished=len(self.agents),
                window=gate.window,
            )
        )

    def to_record(self, began_s: float) -> RunRecord:
        """Put the tables, the metrics and the provenance together."""
        tables = {
            "requests": self.requests.frame(),
            "agents": frame("agents", sorted(self.agents)),  # by agent_index
            "ticks": self.ticks.frame(),
            "timeline": self.timeline.frame(),
        }
        engine = self.scenario.engine
        metrics = compute_metrics(
            requests=tables["requests"],
            agents=tables["agents"],
            timeline=tables["timeline"],
            pool_tokens=engine.pool_tokens,
            block_size=engine.block_size,
            num_agents_skipped=self.workload.num_agents_skipped,
            num_engine_steps=self.core.totals.num_steps,
        )
        metrics["wall_clock_s"] = time.perf_counter() - began_s
        return RunRecord(run=self._run_json(metrics), **tables)

    def _run_json(self, metrics: dict[str, Any]) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "world": "sim",
            "label": self.scenario.controller.label,
            "scenario": self.scenario.model_dump(mode="json"),
            "seed": self.scenario.seed,
            "workload": {"source": self.workload.source, "sha256": self.workload.sha256},
            "versions": versions() | self.scenario.packages,
            "git_commit": git_commit(),
            "profile_hash": profile_hash(self.scenario.step_time),
            "metrics": metrics,
            "warnings": [*self.workload.warnings, *self.core.warnings(), *self.warnings],
        }


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


def _published(source: SchedulerStats | Snapshot) -> dict[str, Any]:
    """Return what snapshots, ticks and the timeline all hold of an engine, under one name everywhere."""
    return {name: getattr(source, name) for name in _PUBLISHED}
