"""The grid file of a sweep: a scenario, keys with their values, policies, seeds; every run of it checked.

::

    scenario = "react.toml"                     # relative to this file
    policies = ["none", "agent_cap=8..64..8"]   # as `concur compare` takes them; none: the scenario's own
    seeds = [0, 1, 2]                           # none: the scenario's own

    [grid]                                      # the runs are all combinations
    "engine.num_gpu_blocks" = [4001, 8001]
    "workload.num_agents" = [64, 128]
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from concur.sim.errors import ScenarioError
from concur.sim.record.provenance import versions
from concur.sim.scenario.scenario import Scenario, parse_scenario, read_scenario, what_decides
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.scenario.toml_files import apply_overrides, dotted, explain, read_toml, relative_to, set_key
from concur.sim.traces.trace import trace_sha256


class GridConfig(BaseModel):
    """The file as it is written, every list of it with something in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scenario: str
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    policies: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1)] | None = None

    @field_validator("grid", mode="before")
    @classmethod
    def _join(cls, raw: Any) -> Any:
        """Read `engine.block_size` without its quotes, which TOML takes for a table, as with them."""
        return dict(dotted(raw)) if isinstance(raw, dict) else raw


@dataclass(frozen=True, slots=True)
class Point:
    """One run: the grid's keys with their values, the policy, the seed, and the scenario they make.

    `trace_sha256` is of the trace, where there is one. `key` is the SHA-256 of all that decides the result:
    the scenario, the content of trace and profile in the place of their paths, and the versions.
    """

    values: dict[str, Any]
    policy: str
    scenario: Scenario
    trace_sha256: str | None
    key: str

    @property
    def name(self) -> str:
        """The run in words, for people."""
        values = [f"{key} = {value}" for key, value in self.values.items()]
        return ", ".join([*values, self.policy, f"seed {self.scenario.seed}"])


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid file and its runs, those of one workload in a row."""

    config: GridConfig
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of the grid: its keys with their values, and the scenario that they make."""

    values: dict[str, Any]
    scenario: Scenario
    trace_sha256: str | None

    def point(self, controller: ControllerConfig, seed: int) -> Point:
        """Return the run of one policy on one seed."""
        scenario = self.scenario.with_seed(seed).with_controller(controller)
        key = _key(scenario, self.trace_sha256)
        return Point(self.values, controller.label, scenario, self.trace_sha256, key)


def load_grid(path: Path, overrides: Sequence[str] = ()) -> Grid:
    """Read a grid file and check every run of it; `overrides` are of the scenario that all start from.

    Raises
    ------
    ScenarioError
        If the file or one of its scenarios is not one, a list is empty, or two runs are the same.
    TraceError
        If there is no such trace.
    """
    config, cells = load_cells(path, overrides)
    points = tuple(point for cell in cells for point in _runs(config, cell, origin=str(path)))
    _check_distinct(points, origin=str(path))
    return Grid(config, points)


def load_cells(path: Path, overrides: Sequence[str] = ()) -> tuple[GridConfig, tuple[Cell, ...]]:
    """Read a grid file as `load_grid` does, but leave open which policies run on it, and on which seeds."""
    raw = read_toml(path, what="grid")
    try:
        config = GridConfig.model_validate(raw)
    except ValidationError as error:
        raise explain(error, str(path), can_set=False) from None
    if config.seeds is not None and "seed" in config.grid:
        raise ScenarioError(f"{path}: seed is in [grid] and in seeds; leave one of them out")
    folder = path.parent.resolve()  # workers may have another working folder
    base = read_scenario(folder / config.scenario)
    apply_overrides(base, overrides)
    return config, tuple(_cells(config, base, folder, origin=str(path)))


def _cells(config: GridConfig, base: dict[str, Any], folder: Path, *, origin: str) -> Iterator[Cell]:
    traces: dict[str, str] = {}
    for values in product(*config.grid.values()):
        named = dict(zip(config.grid, values, strict=True))
        raw = deepcopy(base)
        for key, value in named.items():
            set_key(raw, key, relative_to(folder, key, value), origin=f"{origin}: grid")
        where = ", ".join(f"{key} = {value!r}" for key, value in named.items())
        scenario = parse_scenario(raw, origin=f"{origin}: {where}" if where else origin)
        trace = scenario.workload.trace
        if trace is not None and trace not in traces:
            traces[trace] = trace_sha256(Path(trace))
        yield Cell(named, scenario, traces[trace] if trace is not None else None)


def _runs(config: GridConfig, cell: Cell, *, origin: str) -> Iterator[Point]:
    """Yield the runs of a cell: on every seed under every policy."""
    controllers = [cell.scenario.controller]
    if config.policies is not None:
        controllers = [
            each
            for text in config.policies
            for each in cell.scenario.policies(text, origin=f"{origin}: policies:")
        ]
    for seed in config.seeds if config.seeds is not None else (cell.scenario.seed,):
        for controller in controllers:
            yield cell.point(controller, seed)


def _key(scenario: Scenario, trace: str | None) -> str:
    decides = what_decides(scenario)
    decides["workload"]["trace"] = trace
    text = json.dumps([decides, versions() | scenario.packages], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_distinct(points: Sequence[Point], *, origin: str) -> None:
    first: dict[str, Point] = {}
    for point in points:
        other = first.setdefault(point.key, point)
        if other is not point:
            raise ScenarioError(
                f"{origin}: ({other.name}) and ({point.name}) are the same run; leave one of them out"
            )
