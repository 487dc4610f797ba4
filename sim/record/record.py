"""The record of a run: the same files and columns whether the engine was simulated or live.

A folder with `run.json` (what was run, where, and the metrics) and four parquet tables whose columns are the
fields of the row classes below. `t_s` and every `*_s` time are seconds since the start of the run. Files are
written under a temporary name and renamed, the folder last: a run that failed leaves nothing behind.
"""

import json
import os
import shutil
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from concur.sim.errors import RecordError
from concur.sim.record.metrics import no_metrics

SCHEMA_VERSION: Final = 1
_RUN_KEYS: Final = {"schema_version", "world", "label", "scenario", "seed", "workload", "metrics", "warnings"}


class RequestRow(NamedTuple):
    """One model call, in order of finish.

    `ready_s` the agent wants it, `submitted_s` the gate lets it, `scheduled_s` the engine first schedules it,
    then `first_token_s` and `finished_s`. `cached_tokens` were credited at `scheduled_s` (prefix cache and
    host cache together; `host_tokens` is the latter's part). `recomputed_tokens` were prefilled although
    computed before for this agent, preemptions included. `kept_tokens` of the prompt are the agent's history.
    """

    agent_index: int
    call_index: int
    ready_s: float
    submitted_s: float
    scheduled_s: float
    first_token_s: float
    finished_s: float
    prompt_tokens: int
    kept_tokens: int
    cached_tokens: int | None
    host_tokens: int | None
    recomputed_tokens: int | None
    output_tokens: int
    num_preemptions: int | None


class AgentRow(NamedTuple):
    """One agent. `gate_wait_s` sums its waits at the gate; `num_pauses` counts lost slots."""

    agent_index: int
    agent_id: str
    prefix_group: str | None
    shared_prefix_tokens: int
    num_calls: int
    peak_context_tokens: int
    arrived_s: float
    admitted_s: float
    finished_s: float
    gate_wait_s: float
    num_pauses: int


class TickRow(NamedTuple):
    """One controller decision: the snapshot in, the window out."""

    t_s: float
    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage_frac: float
    kv_cache_resident_frac: float | None
    prefix_cache_queries_tokens: int
    prefix_cache_hits_tokens: int
    num_preemptions: int
    prompt_tokens: int
    generation_tokens: int
    agents_active: int
    agents_paused: int
    agents_waiting: int
    window_before: int
    window: int
    state: str


class TimelineRow(NamedTuple):
    """One sample of gauges and cumulative counters; what a live engine does not publish is null there."""

    t_s: float
    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage_frac: float
    kv_cache_resident_frac: float | None
    prefix_cache_queries_tokens: int
    prefix_cache_hits_tokens: int
    num_preemptions: int
    prompt_tokens: int
    generation_tokens: int
    recomputed_tokens: int | None
    num_evictions: int | None
    prefill_s: float | None
    recompute_s: float | None
    decode_s: float | None
    agents_active: int
    agents_paused: int
    agents_waiting: int
    agents_finished: int
    window: int


Row = RequestRow | AgentRow | TickRow | TimelineRow
TABLES: Final[Mapping[str, type[Row]]] = {
    "requests": RequestRow,
    "agents": AgentRow,
    "ticks": TickRow,
    "timeline": TimelineRow,
}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run: `run` is the content of `run.json`, the tables are data frames with the rows' columns."""

    run: dict[str, Any]
    requests: pd.DataFrame
    agents: pd.DataFrame
    ticks: pd.DataFrame
    timeline: pd.DataFrame

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


class Rows:
    """The rows of one table as they come in; all but the last few thousand are held as Arrow columns."""

    _MOST_LOOSE: Final = 4096

    def __init__(self, table: str) -> None:
        self._schema = _arrow_schema(table)
        self._batches: list[pa.RecordBatch] = []
        self._loose: list[Row] = []

    def append(self, row: Row) -> None:
        """Add one row."""
        self._loose.append(row)
        if len(self._loose) == self._MOST_LOOSE:
            self._pack()

    def frame(self) -> pd.DataFrame:
        """Return all rows as a data frame with exactly the table's columns and types."""
        self._pack()
        return _to_pandas(pa.Table.from_batches(self._batches, self._schema))

    def _pack(self) -> None:
        if self._loose:
            columns = zip(*self._loose, strict=True)
            arrays = [
                pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)
            ]
            self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
            self._loose.clear()


def frame(table: str, rows: Iterable[Row]) -> pd.DataFrame:
    """Return the rows of one table as a data frame with exactly that table's columns and types."""
    collected = Rows(table)
    for row in rows:
        collected.append(row)
    return collected.frame()


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
        for name in TABLES:
            table = pa.Table.from_pandas(
                getattr(record, name), schema=_arrow_schema(name), preserve_index=False
            ).replace_schema_metadata(None)
            pq.write_table(table, partial / f"{name}.parquet", compression="zstd")
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
        "run.json" in names and names <= {"run.json", *(f"{name}.parquet" for name in TABLES)}
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
        tables = {name: _to_pandas(pq.read_table(folder / f"{name}.parquet")) for name in TABLES}
    except (OSError, KeyError, TypeError, json.JSONDecodeError, pa.ArrowException) as error:
        raise RecordError(f"{folder}: not a run record ({error}); name a folder with run.json") from None
    return RunRecord(run=run, **tables)


def _arrow_type(annotation: Any) -> pa.DataType:
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return {int: pa.int64(), float: pa.float64(), str: pa.string()}[annotation]


def _arrow_schema(table: str) -> pa.Schema:
    return pa.schema([(name, _arrow_type(hint)) for name, hint in TABLES[table].__annotations__.items()])


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    data_frame: pd.DataFrame = table.to_pandas(types_mapper=_pandas_type)
    return data_frame


def _pandas_type(arrow_type: pa.DataType) -> Any:
    """Keep null apart from NaN for whole numbers; plain NumPy types otherwise."""
    return pd.Int64Dtype() if pa.types.is_integer(arrow_type) else None
