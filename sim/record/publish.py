"""From what happens in a run, in either world, to the rows and the `run.json` of its record."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, NamedTuple

from concur.decision import Tick
from concur.gate import Gate
from concur.gate.fleet import FleetGate
from concur.routing import EngineLoad
from concur.signals import COUNTERS, PUBLISHED, UNBOUNDED, Snapshot
from concur.sim.record.provenance import git_commit, versions
from concur.sim.record.record import SCHEMA_VERSION
from concur.sim.record.rows import AgentRow, EngineRow, TickRow, TimelineRow
from concur.sim.record.sharing import outer_prefixes_text
from concur.sim.scenario.scenario import Scenario
from concur.sim.workload.spec import AgentSpec, Workload


class StepWork(NamedTuple):
    """What the engine's steps went into so far; a live engine does not publish it."""

    recomputed_tokens: int | None = None
    num_evictions: int | None = None
    prefill_s: float | None = None
    recompute_s: float | None = None
    decode_s: float | None = None


def since(snapshot: Snapshot, first: Snapshot) -> Snapshot:
    """Return `snapshot` with counters that count from `first` on."""
    return replace(snapshot, **{name: getattr(snapshot, name) - getattr(first, name) for name in COUNTERS})


def published(source: object) -> dict[str, Any]:
    """Return what an engine publishes, by name: of its stats or of a snapshot."""
    return {name: getattr(source, name) for name in PUBLISHED}


def tick_row(tick: Tick, *, engine_index: int | None = None) -> TickRow:
    """Return the row of one decision; `engine_index`: of one engine of a fleet."""
    return TickRow(
        t_s=tick.snapshot.time_s,
        **published(tick.snapshot),
        agents_active=tick.active,
        agents_paused=tick.snapshot.agents_paused,
        agents_waiting=tick.snapshot.agents_waiting,
        window_before=tick.window_before,
        window=tick.window,
        state=tick.state,
        admit_tokens=_bound(tick.budget.admit_tokens),
        pause_tokens=_bound(tick.budget.pause_tokens),
        newcomer_tokens=None if tick.budget == UNBOUNDED else tick.budget.newcomer_tokens,
        engine_index=engine_index,
    )


def _bound(tokens: float) -> float | None:
    return tokens if isfinite(tokens) else None


def timeline_row(
    time_s: float, source: object, gate: Gate | FleetGate, *, num_finished: int, work: StepWork
) -> TimelineRow:
    """Return one sample of engine and gate."""
    return TimelineRow(
        t_s=time_s,
        **published(source),
        **work._asdict(),
        agents_active=gate.active,
        agents_paused=gate.paused,
        agents_waiting=gate.waiting,
        agents_finished=num_finished,
        window=gate.window,
    )


def engine_row(
    time_s: float, source: object, load: EngineLoad, gate: Gate | None, *, engine_index: int, work: StepWork
) -> EngineRow:
    """Return one sample of one engine of a fleet, and of its own gate if it has one."""
    return EngineRow(
        t_s=time_s,
        engine_index=engine_index,
        is_up=int(load.is_up),
        num_in_flight=load.num_in_flight,
        **published(source),
        **work._asdict(),
        agents_active=None if gate is None else gate.active,
        agents_paused=None if gate is None else gate.paused,
        agents_waiting=None if gate is None else gate.waiting,
        window=None if gate is None else gate.window,
    )


def agent_row(
    spec: AgentSpec,
    *,
    arrived_s: float,
    admitted_s: float | None,
    finished_s: float,
    gate_wait_s: float,
    num_pauses: int,
) -> AgentRow:
    """Return the row of an agent that has made all its calls, and so was admitted."""
    assert admitted_s is not None
    return AgentRow(
        agent_index=spec.index,
        agent_id=spec.agent_id,
        prefix_group=spec.prefix_group,
        shared_prefix_tokens=spec.shared_prefix_tokens,
        num_calls=len(spec.steps),
        peak_context_tokens=spec.peak_context_tokens,
        arrived_s=arrived_s,
        admitted_s=admitted_s,
        finished_s=finished_s,
        gate_wait_s=gate_wait_s,
        num_pauses=num_pauses,
        outer_prefixes=outer_prefixes_text(spec.outer_prefixes),
        parent=spec.parent,
        parent_step=spec.parent_step,
        fork_tokens=spec.fork_tokens,
    )


def run_json(
    scenario: Scenario,
    workload: Workload,
    *,
    world: str,
    profile_hash: str | None,
    metrics: dict[str, Any],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return the content of `run.json`: what was run, where, and what came of it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "world": world,
        "label": scenario.controller.label,
        "scenario": scenario.model_dump(mode="json"),
        "seed": scenario.seed,
        "workload": {"source": workload.source, "sha256": workload.sha256, "lost": dict(workload.lost)},
        "versions": versions() | scenario.packages,
        "git_commit": git_commit(),
        "profile_hash": profile_hash,
        "metrics": metrics,
        "warnings": list(warnings),
    }
