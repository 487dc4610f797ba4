"""What a live run leaves behind: the rows of `concur.sim.record.record`, and what went wrong.

What vLLM does not publish is null: recomputed tokens, evictions, time by kind, and per call preemptions and
host tokens. Counters start at 0, as in a simulated run: what the server had counted before is subtracted.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import pandas as pd

from concur.controllers import Controller
from concur.live.controlling import StaleTick
from concur.signals import PUBLISHED, Snapshot
from concur.sim.record.fleet import fleet_metrics
from concur.sim.record.metrics import compute_metrics, no_metrics
from concur.sim.record.publish import run_json
from concur.sim.record.record import RunRecord
from concur.sim.record.rows import RequestRow
from concur.sim.record.tables import RunTables, columns_of
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import SloConfig
from concur.sim.workload.spec import StepSpec, Workload
from concur.validate.errors import OutOfScopeError
from concur.validate.live.account import Account, account
from concur.validate.live.client import Completion

_FEW: Final = 5
_POOL: Final = ("num_gpu_blocks", "block_size", "kv_cache_size_tokens")


@dataclass(frozen=True, slots=True)
class Failure:
    """One agent that did not get to its end: which call, when, why."""

    agent_id: str
    call_index: int
    t_s: float
    cause: str


@dataclass(slots=True)
class Faults:
    """What went wrong in a run, as it happens."""

    failures: list[Failure] = field(default_factory=list)
    stale_ticks: list[StaleTick] = field(default_factory=list)
    missed_samples: list[StaleTick] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    num_counter_resets: int = 0
    is_interrupted: bool = False
    breakdown: str = ""
    odd_metrics: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every agent made all its calls and no reading of the engine is missing."""
        missing = (self.failures, self.stale_ticks, self.missed_samples, self.num_counter_resets)
        return not self.is_interrupted and not self.breakdown and not any(missing)

    def warnings(self) -> list[str]:
        """Say what went wrong, one line each."""
        lines = ["the run was interrupted"] if self.is_interrupted else []
        lines += [f"the run broke down: {self.breakdown}"] if self.breakdown else []
        lines += _failure_lines(self.failures)
        lines += self.odd_metrics
        for name, missed in (
            ("decisions were not taken", self.stale_ticks),
            ("samples of the timeline are missing", self.missed_samples),
        ):
            if missed:
                first, last = missed[0], missed[-1]
                lines.append(
                    f"{len(missed)} {name}, {first.time_s:.1f} to {last.time_s:.1f} s, because the engine's "
                    f"metrics could not be read; first: {first.reason}"
                )
        if self.num_counter_resets:
            lines.append(f"the engine's counters were reset {self.num_counter_resets} times: did it restart?")
        lines += [
            f"{count} attempts of calls were repeated: {cause}" for cause, count in self.retries.items()
        ]
        return lines


def _failure_lines(failures: Iterable[Failure]) -> Iterator[str]:
    """Name each agent that failed; of many that failed for one reason, the first."""
    by_cause: defaultdict[str, list[Failure]] = defaultdict(list)
    for failure in failures:
        by_cause[failure.cause].append(failure)
    for cause, group in by_cause.items():
        for failure in group if len(group) <= _FEW else group[:1]:
            others = f" (and {len(group) - 1} more agents)" if len(group) > _FEW else ""
            yield (
                f"agent {failure.agent_id} failed at call {failure.call_index}, {failure.t_s:.1f} s: "
                f"{cause}{others}"
            )


def request_row(
    *,
    agent_index: int,
    call_index: int,
    step: StepSpec,
    ready_s: float,
    submitted_s: float,
    done: Completion,
    engine_index: int | None = None,
) -> RequestRow:
    """Return the row of one call; the engine's scheduling is placed before the first token that we saw."""
    first_token_s = math.nan if done.first_token_s is None else done.first_token_s
    ttft_s = math.nan if done.engine_ttft_s is None else done.engine_ttft_s
    return RequestRow(
        agent_index=agent_index,
        call_index=call_index,
        ready_s=ready_s,
        submitted_s=submitted_s,
        scheduled_s=max(first_token_s - ttft_s, submitted_s) if ttft_s == ttft_s else math.nan,
        first_token_s=first_token_s,
        finished_s=done.finished_s,
        prompt_tokens=done.prompt_tokens,
        kept_tokens=step.kept_tokens,
        cached_tokens=done.cached_tokens,
        host_tokens=None,
        recomputed_tokens=None,
        output_tokens=len(done.token_ids),
        num_preemptions=None,
        engine_index=engine_index,
    )


def make_record(
    scenario: Scenario,
    workload: Workload,
    tables: RunTables,
    faults: Faults,
    *,
    first: Snapshot,
    facts: Mapping[str, Any],
    wall_clock_s: float,
    num_begun: int,
    remarks: Sequence[str],
    num_moves: int = 0,
    engine: Snapshot | None = None,
) -> RunRecord:
    """Put tables, metrics and provenance together; `complete` in `run.json`: whether nothing is missing.

    `num_begun` agents have begun, and `remarks` are what else there is to say of the run. `first` is the
    reading that counters count from, of a fleet the sum; there `engine` is that of its first engine.
    """
    record = RunRecord({}, tables.finished())
    balance = _account(record, faults)
    metrics = _metrics(record, faults, first, workload, balance, scenario.slo)
    if "engines" in record.tables and len(record.requests):
        requests, engines = (columns_of(record.tables[name]) for name in ("requests", "engines"))
        metrics |= fleet_metrics(requests, engines, num_engines=len(scenario.engines), num_moves=num_moves)
    metrics["wall_clock_s"] = wall_clock_s
    run = run_json(
        scenario,
        workload,
        world="live",
        profile_hash=None,
        metrics=metrics,
        warnings=[
            *faults.warnings(),
            *(balance.warnings() if balance else ()),
            *_departures(scenario, facts),
            *workload.warnings,
            *remarks,
        ],
    )
    run["versions"]["engine"] = facts.get("vllm")
    run |= {
        "engine": {**facts, **{name: getattr(engine or first, name) for name in _POOL}},
        "complete": faults.is_complete and 0 < num_begun == len(tables.agents),
        "interrupted": faults.is_interrupted,
        "failures": [asdict(failure) for failure in faults.failures],
        "foreign_tokens": balance.foreign_tokens if balance else None,
    }
    return replace(record, run=run)


def recorded_ticks(record: RunRecord, controller: Controller) -> Iterator[tuple[Snapshot, int]]:
    """Yield (snapshot, active agents) of every decision of a record, for `controller` to decide again.

    Raises
    ------
    OutOfScopeError
        If the controller looks at single agents: ticks do not hold them.
    """
    if controller.reads_agents:
        raise OutOfScopeError("this controller reads the gate's agents, which ticks do not hold; record anew")
    engine = record.run.get("engine") or record.run["scenario"]["engine"]
    ticks: Iterable[dict[str, Any]] = record.ticks.to_dict("records")  # type: ignore[assignment]
    for tick in ticks:
        values = {name: tick[name] for name in PUBLISHED}
        if pd.isna(values["kv_cache_resident_frac"]):
            values["kv_cache_resident_frac"] = None
        snapshot = Snapshot(
            time_s=tick["t_s"],
            **values,
            num_gpu_blocks=engine["num_gpu_blocks"],
            block_size=engine["block_size"],
            kv_cache_size_tokens=engine.get("kv_cache_size_tokens"),
            agents_paused=tick["agents_paused"],
            agents_waiting=tick["agents_waiting"],
        )
        yield snapshot, tick["agents_active"]


def _account(record: RunRecord, faults: Faults) -> Account | None:
    """Hold calls against counters; `None` for a run that did not come to its end."""
    if faults.failures or record.agents.empty:
        return None
    is_once = faults.is_complete and not faults.retries
    return account(record.requests, record.timeline, is_once=is_once)


def _metrics(
    record: RunRecord,
    faults: Faults,
    first: Snapshot,
    workload: Workload,
    balance: Account | None,
    slo: SloConfig,
) -> dict[str, Any]:
    requests, agents, timeline = (
        columns_of(record.tables[name]) for name in ("requests", "agents", "timeline")
    )
    if balance is None:  # a makespan of part of the work is no makespan
        return no_metrics() | {
            "num_agents": len(agents["agent_index"]),
            "num_agents_skipped": workload.num_agents_skipped,
            "num_requests": len(requests["agent_index"]),
            "prompt_tokens": int(requests["prompt_tokens"].sum()),
            "generated_tokens": int(requests["output_tokens"].sum()),
        }
    metrics = compute_metrics(
        requests=requests,
        agents=agents,
        timeline=timeline,
        pool_tokens=first.pool_tokens,
        block_size=first.block_size,
        num_agents_skipped=workload.num_agents_skipped,
        num_engine_steps=None,
        slo=slo,
        num_engines=max(1, len(record.engines["engine_index"].unique())),
    )
    counted = None if faults.num_counter_resets else int(timeline["num_preemptions"][-1])
    # vLLM counts preemptions for the engine, not per call
    return metrics | balance.cache_metrics() | {"num_preemptions": counted}


def _departures(scenario: Scenario, facts: Mapping[str, Any]) -> list[str]:
    """Say where the engine is not what the scenario asks for."""
    wanted = scenario.engine.model_dump()
    return [
        f"the engine's {name} is {facts[name]}, the scenario's {wanted[name]}"
        for name in sorted(wanted.keys() & facts.keys())
        if facts[name] != wanted[name]
    ]
