"""Factories for tests: small scenarios and workloads, everything explicit that a test is about."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pytest

from concur.cli import main
from concur.signals import Snapshot
from concur.sim.record.record import RunRecord
from concur.sim.record.tables import arrow_schema
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload

ROOT: Final = Path(__file__).parents[1]
TRACES: Final = ROOT / "examples" / "traces"


def working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str]) -> Path:
    """Work in a folder that has these files, and return it."""
    monkeypatch.chdir(folder)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def concur(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the `concur` command in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["concur", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def make_scenario(*, seed: Any = 0, **sections: dict[str, Any]) -> Scenario:
    """A small scenario; each keyword adds to one section."""
    raw: dict[str, Any] = {
        "seed": seed,
        "workload": {"generator": "react", "num_agents": 8},
        "engine": {"num_gpu_blocks": 2001, "max_model_len": 16_384},
        "step_time": {},
        "controller": {"kind": "none"},
    }
    for name, section in sections.items():
        raw[name] = raw.get(name, {}) | section
    return parse_scenario(raw)


def with_tables(record: RunRecord, **tables: pa.Table) -> RunRecord:
    """The record with other tables."""
    return replace(record, tables=record.tables | tables)


def with_frames(record: RunRecord, **frames: pd.DataFrame) -> RunRecord:
    """The record with other tables, given as data frames."""
    tables = {
        name: pa.Table.from_pandas(frame, schema=arrow_schema(name), preserve_index=False)
        for name, frame in frames.items()
    }
    return with_tables(record, **tables)


def leave_figures_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a report write PNG and PDF files without a picture: drawing takes seconds."""

    def touch(_: object, path: Path) -> None:
        path.touch()
        path.with_suffix(".pdf").touch()

    monkeypatch.setattr("concur.sim.show.report.write_figure", touch)


def make_agent(
    index: int,
    steps: Sequence[tuple[int, int]],
    *,
    wait_s: float = 0.0,
    arrival_s: float = 0.0,
    group: str | None = None,
    shared: int = 0,
) -> AgentSpec:
    """An append-only agent from (new prompt tokens, output tokens) per step."""
    specs: list[StepSpec] = []
    history = shared
    for new, output in steps:
        specs.append(StepSpec(history, new, output, wait_s))
        history = specs[-1].context_tokens
    return AgentSpec(f"agent-{index}", index, group, shared, arrival_s, tuple(specs))


def make_workload(*agents: AgentSpec) -> Workload:
    """A workload of the given agents."""
    return Workload(tuple(agents), source="test")


def make_snapshot(time_s: float = 0.0, **fields: Any) -> Snapshot:
    """A snapshot with everything else at its default."""
    return Snapshot(time_s=time_s, **fields)
