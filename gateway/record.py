"""A run record of what is served, while it is served: `concur report`, `--perfetto` and the simulator read
it.

A record is a stretch of time. In the folder `again` beside it lie a trace of the same calls and a scenario:
`concur simulate` of it is the served hour again. An agent that lives longer than a stretch is in each
record as an agent of its own.

What a gateway cannot see is null, as in a live run: when the engine scheduled a call, what it recomputed.
How much of a prompt is the agent's history is taken to be all of it where the prompt is no shorter, and
else none.
"""

import gzip
import json
import shutil
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import nan
from pathlib import Path
from typing import Any, Final

from concur.decision import Tick
from concur.gate import Gate
from concur.signals import Snapshot, Usage
from concur.sim.engine.config import EngineConfig
from concur.sim.errors import RecordError
from concur.sim.record.metrics import compute_metrics, no_metrics
from concur.sim.record.publish import StepWork, agent_row, run_json, since, tick_row, timeline_row
from concur.sim.record.record import RunRecord, write_record
from concur.sim.record.rows import RequestRow
from concur.sim.record.tables import RunTables, columns_of
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import ControllerConfig, GateConfig
from concur.sim.traces.format import TraceAgent, TraceStep, to_line
from concur.sim.workload.config import WorkloadConfig
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload

_NAME: Final = "%Y%m%dT%H%M%S"
_NAME_GLOB: Final = "[0-9]*T[0-9]*Z"
_TRACE: Final = ".trace.jsonl.gz"
AGAIN: Final = "again"
"""Of a folder of records: the traces and the scenarios of the same stretches."""

_LARGEST_MODEL_LEN: Final = 131_072


@dataclass(slots=True)
class _Life:
    """An agent's calls in one stretch."""

    index: int
    agent_id: str
    arrived_s: float
    admitted_s: float
    finished_s: float
    context_tokens: int = 0
    gate_wait_s: float = 0.0
    num_pauses: int = 0
    steps: list[StepSpec] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)

    def spec(self) -> AgentSpec:
        return AgentSpec(self.agent_id, self.index, None, 0, self.arrived_s, tuple(self.steps))

    def trace(self) -> TraceAgent:
        steps = [
            TraceStep(
                step.new_prompt_tokens,
                step.output_tokens,
                step.tool_latency_s,
                kept_tokens=step.kept_tokens if number else None,  # a first step has no history
            )
            for number, step in enumerate(self.steps)
        ]
        steps[-1] = replace(steps[-1], tool_latency_s=None)
        return TraceAgent(self.agent_id, tuple(steps), source="gateway", arrival_s=self.arrived_s)


@dataclass(frozen=True, slots=True)
class ServedCall:
    """One call that was answered; instants in seconds of the gateway's clock."""

    agent_id: str
    arrived_s: float
    ready_s: float
    began_s: float
    first_byte_s: float | None
    finished_s: float
    usage: Usage
    num_pauses: int


class Stretch:
    """What happens in one stretch of time, from `start_s` of the gateway's clock on."""

    def __init__(self, start_s: float, first: Snapshot, name: str) -> None:
        self.start_s = start_s
        self.name = name
        self.tables = RunTables()
        self.num_stale = 0
        self._first = first
        self._lives: dict[str, _Life] = {}

    @property
    def num_calls(self) -> int:
        """How many calls it has."""
        return len(self.tables.requests)

    def add_call(self, call: ServedCall) -> None:
        """Take in a call that has ended."""
        ready_s, began_s, finished_s = (
            max(0.0, instant_s - self.start_s) for instant_s in (call.ready_s, call.began_s, call.finished_s)
        )
        life = self._lives.get(call.agent_id)
        if life is None:
            arrived_s = max(0.0, call.arrived_s - self.start_s)
            life = _Life(len(self._lives), call.agent_id, arrived_s, began_s, finished_s)
            self._lives[call.agent_id] = life
        step = self._step(life, call.usage, ready_s)
        life.steps.append(step)
        life.ends_s.append(finished_s)
        life.finished_s = max(life.finished_s, finished_s)
        life.context_tokens = step.context_tokens
        life.gate_wait_s += began_s - ready_s
        life.num_pauses = call.num_pauses
        first_byte_s = nan if call.first_byte_s is None else max(0.0, call.first_byte_s - self.start_s)
        self.tables.requests.append(
            RequestRow(
                agent_index=life.index,
                call_index=len(life.steps) - 1,
                ready_s=ready_s,
                submitted_s=began_s,
                scheduled_s=nan,
                first_token_s=first_byte_s,
                finished_s=finished_s,
                prompt_tokens=step.prompt_tokens,
                kept_tokens=step.kept_tokens,
                cached_tokens=call.usage.cached_tokens,
                host_tokens=None,
                recomputed_tokens=None,
                output_tokens=step.output_tokens,
                num_preemptions=None,
            )
        )

    def _step(self, life: _Life, usage: Usage, ready_s: float) -> StepSpec:
        prompt, output = max(1, usage.prompt_tokens), max(1, usage.output_tokens)
        kept = life.context_tokens if prompt > life.context_tokens else 0
        if life.steps:
            waited_s = max(0.0, ready_s - life.ends_s[-1])
            life.steps[-1] = replace(life.steps[-1], tool_latency_s=waited_s)
        return StepSpec(kept, prompt - kept, output, 0.0)

    def add_tick(self, tick: Tick, gate: Gate, num_left: int) -> None:
        """Take in a decision; the gauges of the same moment are a sample of the timeline."""
        snapshot = self._relative(tick.snapshot)
        self.tables.ticks.append(tick_row(replace(tick, snapshot=snapshot)))
        row = timeline_row(snapshot.time_s, snapshot, gate, num_finished=num_left, work=StepWork())
        self.tables.timeline.append(row)

    def _relative(self, snapshot: Snapshot) -> Snapshot:
        snapshot = since(snapshot, self._first)
        return replace(snapshot, time_s=max(0.0, snapshot.time_s - self.start_s))

    def finish(
        self, controller: ControllerConfig, gate: GateConfig, facts: dict[str, Any]
    ) -> "Finished | None":
        """Return the record and its trace; `None` if there was no call.

        Raises
        ------
        RecordError
            If there were calls and no decision: a record has at least one.
        """
        lives = [life for life in self._lives.values() if life.steps]
        if not lives:
            return None
        if not len(self.tables.timeline):
            raise RecordError(
                f"{self.num_calls} calls, and the law has decided nothing in that time: the engines could "
                "not be read, or controller.interval_s is longer than the stretch"
            )
        for life in lives:
            self.tables.agents.append(
                agent_row(
                    life.spec(),
                    arrived_s=life.arrived_s,
                    admitted_s=max(life.admitted_s, life.arrived_s),
                    finished_s=life.finished_s,
                    gate_wait_s=life.gate_wait_s,
                    num_pauses=life.num_pauses,
                )
            )
        trace = [life.trace() for life in lives]
        workload = Workload(tuple(life.spec() for life in lives), source=f"{self.name}{_TRACE}")
        scenario = self._scenario(controller, gate, lives)
        return Finished(self.name, self._record(scenario, workload, facts), trace)

    def _scenario(self, controller: ControllerConfig, gate: GateConfig, lives: list[_Life]) -> Scenario:
        longest = max(step.context_tokens for life in lives for step in life.steps)
        return Scenario(
            workload=WorkloadConfig(
                trace=f"{self.name}{_TRACE}", fresh_only=False, arrival="trace", max_tool_latency_s=1e6
            ),
            engine=EngineConfig(
                block_size=self._first.block_size,
                num_gpu_blocks=self._first.num_gpu_blocks,
                max_model_len=max(longest, _LARGEST_MODEL_LEN),
            ),
            controller=controller,
            gate=GateConfig(**gate.model_dump()),
        )

    def _record(self, scenario: Scenario, workload: Workload, facts: dict[str, Any]) -> RunRecord:
        tables = self.tables.finished()
        columns = {name: columns_of(table) for name, table in tables.items()}
        metrics = no_metrics() | compute_metrics(
            requests=columns["requests"],
            agents=columns["agents"],
            timeline=columns["timeline"],
            pool_tokens=self._first.pool_tokens,
            block_size=self._first.block_size,
            num_agents_skipped=0,
            num_engine_steps=None,
            slo=scenario.slo,
        )
        warnings = ["served by the gateway: agents may have begun before it, or gone on after it"]
        if self.num_stale:
            warnings.append(f"{self.num_stale} decisions were not taken, for the engines could not be read")
        run = run_json(
            scenario, workload, world="live", profile_hash=None, metrics=metrics, warnings=warnings
        )
        sizes = ("num_gpu_blocks", "block_size", "kv_cache_size_tokens")
        run["engine"] = facts | {name: getattr(self._first, name) for name in sizes}
        return RunRecord(run, tables)


@dataclass(frozen=True, slots=True)
class Finished:
    """A stretch that is over, ready to be written."""

    name: str
    record: RunRecord
    trace: list[TraceAgent]

    def write(self, folder: Path, *, keep: int) -> Path:
        """Write record and trace, and remove the oldest but `keep` of the folder; return the record's folder.

        Raises
        ------
        RecordError
            If it cannot be written.
        """
        again = folder / AGAIN
        again.mkdir(parents=True, exist_ok=True)
        trace = again / f"{self.name}{_TRACE}"
        partial = trace.with_name(f".{trace.name}.partial")
        with gzip.open(partial, "wt", encoding="utf-8") as file:
            file.writelines(map(to_line, self.trace))
        partial.rename(trace)
        (again / f"{self.name}.toml").write_text(_toml(self.record.run["scenario"]), encoding="utf-8")
        write_record(self.record, folder / self.name)
        for old in sorted(path for path in folder.glob(_NAME_GLOB) if path.is_dir())[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
            for suffix in (_TRACE, ".toml"):
                (again / f"{old.name}{suffix}").unlink(missing_ok=True)
        return folder / self.name


def _toml(scenario: dict[str, Any]) -> str:
    """Return the scenario of a stretch as a file, without what is so by default."""
    workload, engine = scenario["workload"], scenario["engine"]
    sections = {
        "workload": {
            name: workload[name] for name in ("trace", "fresh_only", "arrival", "max_tool_latency_s")
        },
        "engine": {name: engine[name] for name in ("block_size", "num_gpu_blocks", "max_model_len")},
        "controller": {"kind": scenario["controller"]["kind"]} | scenario["controller"]["parameters"],
        "gate": scenario["gate"],
    }
    if wrappers := scenario["controller"]["wrappers"]:
        sections["controller"]["wrappers"] = list(wrappers)
    lines = ["# Served by the gateway; [step_time] is not known to it, and is the default.\n"]
    for section, values in sections.items():
        lines += [f"[{section}]\n", *(f"{name} = {json.dumps(value)}\n" for name, value in values.items())]
    return "".join(lines)


def stretch_name(now: datetime, number: int) -> str:
    """Return a name that sorts by time; `number` tells stretches of one second apart."""
    return f"{now.strftime(_NAME)}-{number:04}Z"
