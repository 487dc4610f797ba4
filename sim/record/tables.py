"""The tables of a run in the making, and the types of their columns."""

import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Union, get_args, get_origin

import pandas as pd
import pyarrow as pa

from concur.sim.record.rows import TABLES, AgentRow, Row


class Rows:
    """The rows of one table as they come in; all but the last few thousand are held as Arrow columns."""

    _MOST_LOOSE: Final = 4096

    def __init__(self, table: str) -> None:
        self._schema = arrow_schema(table)
        self._batches: list[pa.RecordBatch] = []
        self._loose: list[Row] = []

    def __len__(self) -> int:
        return len(self._loose) + sum(int(batch.num_rows) for batch in self._batches)

    def append(self, row: Row) -> None:
        """Add one row."""
        self._loose.append(row)
        if len(self._loose) == self._MOST_LOOSE:
            self._pack()

    def frame(self) -> pd.DataFrame:
        """Return all rows as a data frame with exactly the table's columns and types."""
        self._pack()
        return to_pandas(pa.Table.from_batches(self._batches, self._schema))

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


@dataclass(frozen=True, slots=True)
class RunTables:
    """The four tables, filled as the run goes."""

    requests: Rows = field(default_factory=lambda: Rows("requests"))
    agents: list[AgentRow] = field(default_factory=list)
    ticks: Rows = field(default_factory=lambda: Rows("ticks"))
    timeline: Rows = field(default_factory=lambda: Rows("timeline"))

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return them as data frames, agents by index."""
        return {
            "requests": self.requests.frame(),
            "agents": frame("agents", sorted(self.agents)),
            "ticks": self.ticks.frame(),
            "timeline": self.timeline.frame(),
        }


def _arrow_type(annotation: Any) -> pa.DataType:
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return {int: pa.int64(), float: pa.float64(), str: pa.string()}[annotation]


def arrow_schema(table: str) -> pa.Schema:
    """Return names and types of a table's columns."""
    return pa.schema([(name, _arrow_type(hint)) for name, hint in TABLES[table].__annotations__.items()])


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Return a table as a data frame with null apart from NaN."""
    data_frame: pd.DataFrame = table.to_pandas(types_mapper=_pandas_type)
    return data_frame


def _pandas_type(arrow_type: pa.DataType) -> Any:
    """Keep null apart from NaN for whole numbers; plain NumPy types otherwise."""
    return pd.Int64Dtype() if pa.types.is_integer(arrow_type) else None
