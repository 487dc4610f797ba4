"""Grids of scenarios on all cores or on a cluster: each finished run is kept, and runs once.

A folder with `sweep.json` (what was asked for, by which versions and commit), `runs/KEY.json` for each
finished run, and, when all have ended, `runs.parquet`: one row per run in the order of the grid.

A run is reused where all that decides it is the same (`Point.key`). Versions are part of that. The commit is
not, for most commits change no number: each row has the commit that made it, and the command says where there
is more than one. A run that failed is a row with its `error`, and is tried again the next time.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from concur.errors import ConcurError
from concur.sim.errors import RecordError, WorkersLostError
from concur.sim.files import whole_file
from concur.sim.lab.grid import Grid, Point
from concur.sim.record.provenance import git_commit, short_commit, versions
from concur.sim.runs.parallel import Workers, run_tasks
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.scenario.toml_files import dotted
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate

TABLE: Final = "runs.parquet"
PLAN: Final = "sweep.json"
_KEPT: Final = ("scenario", "workload", "metrics", "warnings", "profile_hash", "git_commit")
_NOT_IN_TABLE: Final = {"phases.rule"}

Result = Mapping[str, Any]
"""What is kept of a run: its metrics, or its error, and where it came from."""


class Store:
    """The finished runs of a folder, one small file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "runs"

    def load(self, points: Sequence[Point]) -> dict[str, Result]:
        """Return those of the points that are there, by key.

        Raises
        ------
        RecordError
            If one of the files cannot be read.
        """
        there = {path.stem for path in self.folder.glob("*.json")}
        return {point.key: self.read(point.key) for point in points if point.key in there}

    def save(self, key: str, result: Result) -> None:
        """Keep a finished run, whole or not at all."""
        with whole_file(self.folder / f"{key}.json", RecordError) as temporary:
            temporary.write_text(json.dumps(result, allow_nan=False) + "\n", encoding="utf-8")

    def remark_on_commits(self, commits: Collection[str | None]) -> str | None:
        """Return what to say if runs of several commits were taken together."""
        if len(commits) < 2:
            return None
        names = ", ".join(sorted(map(short_commit, commits)))
        return f"runs of several commits are in the table ({names}); remove {self.folder} to make all anew"

    def read(self, key: str) -> Result:
        """Return a finished run.

        Raises
        ------
        RecordError
            If it is not there or cannot be read.
        """
        path = self.folder / f"{key}.json"
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            return {name: result[name] for name in _KEPT}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path}: not a run of a sweep ({error!r}); remove it") from None


def run_points(
    points: Sequence[Point], store: Store, *, workers: Workers, on_done: Callable[[], None] = lambda: None
) -> dict[str, Result]:
    """Run the points, each kept in `store` as it ends; return the results by key, errors among them."""
    results: dict[str, Result] = {}
    try:
        tasks = [(point.scenario, point.trace_sha256) for point in points]
        for number, result in run_tasks(_measure, tasks, workers=workers):
            key = points[number].key
            results[key] = result
            if "error" not in result:
                store.save(key, result)
            on_done()
    except WorkersLostError as error:
        lost = {"error": str(error)}
        results |= {point.key: lost for point in points if point.key not in results}
    return results


def write_plan(grid: Grid, folder: Path) -> None:
    """Write `sweep.json`: the grid and its runs, and which versions and commit were to make them.

    A table of an earlier grid goes: the folder never has one plan and the runs of another.
    """
    plan = {
        "grid": grid.config.model_dump(mode="json"),
        "versions": versions(),
        "git_commit": git_commit(),
        "points": [
            {"key": each.key, **each.values, "policy": each.policy, "seed": each.scenario.seed}
            for each in grid.points
        ],
    }
    with whole_file(folder / PLAN, RecordError) as temporary:
        temporary.write_text(json.dumps(plan) + "\n", encoding="utf-8")
        (folder / TABLE).unlink(missing_ok=True)


def rows(points: Sequence[Point], results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Return one row per point: the grid's keys, policy, seed, metrics (`agent_latency_s.p99`), origin."""
    return [_row(point, results[point.key]) for point in points]


def write_table(table: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write the rows as `runs.parquet`; a column of mixed types is text, as JSON."""
    names = dict.fromkeys(name for row in table for name in row)
    columns = {name: _column([row.get(name) for row in table]) for name in names}
    path = folder / TABLE
    with whole_file(path, RecordError) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
    return path


def kept_runs(folder: Path, table: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the finished runs of a table's rows, as they are kept, each with its seed.

    Raises
    ------
    RecordError
        If one of them is not there or cannot be read.
    """
    store = Store(folder)
    return [{**store.read(row["key"]), "seed": row["seed"]} for row in table if row.get("error") is None]


def _row(point: Point, result: Result) -> dict[str, Any]:
    metrics = dotted(result.get("metrics", {}))
    return {
        **point.values,
        "policy": point.policy,
        "seed": point.scenario.seed,
        **{name: value for name, value in metrics if name not in _NOT_IN_TABLE},
        "profile_hash": result.get("profile_hash"),
        "git_commit": result.get("git_commit"),
        "warnings": "; ".join(result.get("warnings", ())) or None,
        "error": result.get("error"),
        "key": point.key,
    }


def _column(values: Sequence[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str}):
        return list(values)
    return [None if value is None else json.dumps(value) for value in values]


def _measure(task: tuple[Scenario, str | None]) -> Result:
    """Run one scenario, in a worker; return its metrics alone, for the tables are heavy to send."""
    scenario, trace_sha256 = task
    try:
        record = simulate(scenario, _workload(_without_controller(scenario), trace_sha256))
    except ConcurError as error:
        return {"error": " ".join(str(error).split())}
    return {name: record.run[name] for name in _KEPT}


def _without_controller(scenario: Scenario) -> str:
    return scenario.with_controller(ControllerConfig()).model_dump_json()


@lru_cache(maxsize=2)
def _workload(scenario: str, trace_sha256: str | None) -> Workload:
    """Build a workload once for the runs in a row that share it; the hash tells traces at one path apart."""
    return build_workload(Scenario.model_validate_json(scenario))
