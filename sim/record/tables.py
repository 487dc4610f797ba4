"""The tables of a run in the making, and the types of their columns."""

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, Union, get_args, get_origin

import numpy as np
import pyarrow as pa

from concur.sim.record.rows import FLEET_COLUMNS, FLEET_TABLES, TABLES, AgentRow, Row

Columns = Mapping[str, np.ndarray]
"""A table by columns."""


class Rows:
    """The rows of one table as they come in; all but the last few thousand are held as Arrow columns."""

    _MOST_LOOSE: Final = 4096

    def __init__(self, table: str, *, is_fleet: bool = False) -> None:
        self._schema = arrow_schema(table, is_fleet=is_fleet)
        self._batches: list[pa.RecordBatch] = []
        self._loose: list[Row] = []

    def __len__(self) -> int:
        return len(self._loose) + sum(int(batch.num_rows) for batch in self._batches)

    def append(self, row: Row) -> None:
        """Add one row."""
        self._loose.append(row)
        if len(self._loose) == self._MOST_LOOSE:
            self._pack()

    def table(self) -> pa.Table:
        """Return all rows, with exactly the table's columns and types."""
        self._pack()
        return pa.Table.from_batches(self._batches, self._schema).combine_chunks()

    def _pack(self) -> None:
        if self._loose:
            columns = list(zip(*self._loose, strict=True))[: len(self._schema)]
            arrays = [
                pa.array(column, field.type, from_pandas=True)
                for column, field in zip(columns, self._schema, strict=True)
            ]
            self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
            self._loose.clear()


def table_of(name: str, rows: Iterable[Row]) -> pa.Table:
    """Return the rows of one table with exactly that table's columns and types."""
    collected = Rows(name)
    for row in rows:
        collected.append(row)
    return collected.table()


def columns_of(table: pa.Table) -> Columns:
    """Return the columns of a table, shape (num_rows,) each; a number that is not known is NaN."""
    return {name: column.to_numpy() for name, column in zip(table.column_names, table.columns, strict=True)}


@dataclass(frozen=True, slots=True)
class RunTables:
    """The four tables, filled as the run goes, and `engines` where there is a fleet."""

    requests: Rows = field(default_factory=lambda: Rows("requests"))
    agents: list[AgentRow] = field(default_factory=list)
    ticks: Rows = field(default_factory=lambda: Rows("ticks"))
    timeline: Rows = field(default_factory=lambda: Rows("timeline"))
    engines: Rows | None = None

    @classmethod
    def of_fleet(cls) -> Self:
        """Return the tables of a fleet, which say of everything which engine it was."""
        return cls(
            requests=Rows("requests", is_fleet=True),
            ticks=Rows("ticks", is_fleet=True),
            engines=Rows("engines"),
        )

    def finished(self) -> dict[str, pa.Table]:
        """Return them as they are kept, agents by index."""
        tables = {
            "requests": self.requests.table(),
            "agents": table_of("agents", sorted(self.agents)),
            "ticks": self.ticks.table(),
            "timeline": self.timeline.table(),
        }
        return tables if self.engines is None else tables | {"engines": self.engines.table()}


def with_all_columns(name: str, table: pa.Table) -> pa.Table:
    """Return a table of an older record with the columns that came later: null where it may be, else 0."""
    for field_ in arrow_schema(name):
        if field_.name not in table.column_names:
            nothing = pa.nulls(len(table), field_.type)
            hint = {**TABLES, **FLEET_TABLES}[name].__annotations__[field_.name]
            column = nothing if type(None) in get_args(hint) else nothing.fill_null(0)
            table = table.append_column(field_, column)
    return table


def _arrow_type(annotation: Any) -> pa.DataType:
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return {int: pa.int64(), float: pa.float64(), str: pa.string()}[annotation]


def arrow_schema(table: str, *, is_fleet: bool = False) -> pa.Schema:
    """Return names and types of a table's columns, with those that only a fleet has if it is one."""
    columns = {**TABLES, **FLEET_TABLES}[table].__annotations__
    is_of_all = is_fleet or table in FLEET_TABLES
    return pa.schema(
        [
            (name, _arrow_type(hint))
            for name, hint in columns.items()
            if is_of_all or name not in FLEET_COLUMNS
        ]
    )
