"""Where the time of runs went, as a table: the numbers behind the bars."""

from collections.abc import Sequence

from rich.table import Table

from concur.sim.record.record import RunRecord
from concur.sim.show.figures import time_split


def time_split_table(records: Sequence[RunRecord]) -> Table:
    """Return one row per run: seconds of useful prefill, recompute, decode and idle."""
    split = time_split(records)
    table = Table(title="where the time goes", caption="seconds; a live engine does not publish them by kind")
    table.add_column("policy")
    for name in split:
        table.add_column(name, justify="right")
    for number, record in enumerate(records):
        table.add_row(record.label, *(f"{seconds[number]:,.1f}" for seconds in split.values()))
    return table
