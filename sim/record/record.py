"""The record of a run: the same files and columns whether the engine was simulated or live.

A folder with `run.json` (what was run, where, and the metrics) and four parquet tables whose columns are the
row classes' fields in `concur.sim.record.rows`; a fleet's has a fifth one, `engines`. Files are written under
a temporary name and renamed, the folder last: a run that failed leaves nothing behind.
"""

import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from concur.sim.errors import RecordError
from concur.sim.record.metrics import no_metrics
from concur.sim.record.rows import FLEET_TABLES, TABLES
from concur.sim.record.tables import arrow_schema, with_all_columns

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION: Final = 1
_RUN_KEYS: Final = {"schema_version", "world", "label", "scenario", "seed", "workload", "metrics", "warnings"}


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run: the content of `run.json`, and the tables, as they are kept and as data frames."""

    run: dict[str, Any]
    tables: dict[str, pa.Table]

    @cached_property
    def requests(self) -> "pd.DataFrame":
        """One row per call, see `RequestRow`."""
        return _to_pandas(self.tables["requests"])

    @cached_property
    def agents(self) -> "pd.DataFrame":
        """One row per agent, see `AgentRow`."""
        return _to_pandas(self.tables["agents"])

    @cached_property
    def ticks(self) -> "pd.DataFrame":
        """One row per decision, see `TickRow`."""
        return _to_pandas(self.tables["ticks"])

    @cached_property
    def timeline(self) -> "pd.DataFrame":
        """One row per sample, see `TimelineRow`."""
        return _to_pandas(self.tables["timeline"])

    @cached_property
    def engines(self) -> "pd.DataFrame":
        """One row per sample and engine of a fleet, see `EngineRow`; none where there is no fleet."""
        return _to_pandas(self.tables.get("engines", arrow_schema("engines").empty_table()))

    @property
    def metrics(self) -> dict[str, Any]:
        """All metrics by name, `None` where one is not known; see `concur.sim.record.metrics`."""
        metrics: dict[str, Any] = self.run["metrics"]
        return metrics

    @property
    def label(self) -> str:
        """Short name of the policy."""
        return str(self.run["label"])

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end with nothing missing; a simulated one always has."""
        return bool(self.run.get("complete", True))


def write_record(record: RunRecord, folder: Path) -> None:
    """Write the record; an earlier run record in `folder` is replaced, anything else in it is refused.

    Raises
    ------
    RecordError
        If the folder holds something that is not a run record, or cannot be written.
    """
    check_writable(folder)
    folder = folder.absolute()
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in (*TABLES, *(FLEET_TABLES.keys() & record.tables.keys())):
            pq.write_table(record.tables[name], partial / f"{name}.parquet", compression="zstd")
        (partial / "run.json").write_text(
            json.dumps(record.run, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written ({error}); choose another --out") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Refuse, before any work is done, a folder that a record could not be written to.

    Raises
    ------
    RecordError
        If something is there that is not a run record and nothing else, or its place cannot be written to.
    """
    folder = folder.absolute()
    try:
        is_record = folder.is_dir() and not folder.is_symlink() and is_record_or_empty(folder)
        if folder.is_symlink() or (folder.exists() and not is_record):
            raise RecordError(f"{folder}: holds more than a run record; choose another --out or remove it")
        ancestor = next(parent for parent in folder.parents if parent.exists())
        is_writable = ancestor.is_dir() and os.access(ancestor, os.W_OK)
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written ({error}); choose another --out") from None
    if not is_writable:
        raise RecordError(f"{folder}: {ancestor} is no writable folder; choose another --out")


def is_record_or_empty(folder: Path) -> bool:
    """Tell whether a folder holds a record and nothing else, or nothing at all."""
    names = {path.name for path in folder.iterdir()}
    return not names or (
        "run.json" in names
        and names <= {"run.json", *(f"{name}.parquet" for name in (*TABLES, *FLEET_TABLES))}
    )


def load_record(folder: Path) -> RunRecord:
    """Read a record back.

    Raises
    ------
    RecordError
        If `run.json` is missing or of a newer schema, or a table is missing or broken.
    """
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        missing = _RUN_KEYS - set(run)
        if missing:
            raise RecordError(f"{folder}: run.json has no {sorted(missing)[0]!r}; it is not a run record")
        if run["schema_version"] > SCHEMA_VERSION:
            raise RecordError(
                f"{folder}: schema version {run['schema_version']} but this release reads up to "
                f"{SCHEMA_VERSION}; update it"
            )
        run["metrics"] = no_metrics() | run["metrics"]  # an incomplete or an older run wrote fewer
        there = [name for name in FLEET_TABLES if (folder / f"{name}.parquet").exists()]
        tables = {
            name: with_all_columns(name, pq.read_table(folder / f"{name}.parquet"))
            for name in (*TABLES, *there)
        }
    except (OSError, KeyError, TypeError, json.JSONDecodeError, pa.ArrowException) as error:
        raise RecordError(f"{folder}: not a run record ({error}); name a folder with run.json") from None
    return RunRecord(run, tables)


def _to_pandas(table: pa.Table) -> "pd.DataFrame":
    """Return a table with null apart from NaN for whole numbers, and plain NumPy types otherwise."""
    import pandas as pd  # half a second, for who wants it

    def typed(arrow_type: pa.DataType) -> Any:
        return pd.Int64Dtype() if pa.types.is_integer(arrow_type) else None

    data_frame: pd.DataFrame = table.to_pandas(types_mapper=typed)
    return data_frame
