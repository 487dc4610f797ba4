"""What each engine of a fleet did."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from concur.sim.record.record import RunRecord
from concur.sim.show.tables import percent


def engines_tables(records: Sequence[RunRecord]) -> Iterator[Table]:
    """Yield a table of a row for each policy and engine, if any of the runs is one of a fleet."""
    fleets = [record for record in records if "engines" in record.metrics]
    if fleets:
        yield _engines_table(fleets)


def _engines_table(records: Sequence[RunRecord]) -> Table:
    moves = ", ".join(f"{record.label} {record.metrics['num_moves']:,}" for record in records)
    table = Table(
        title="engines", caption=f"calls on another engine than the agent's last one, num_moves: {moves}"
    )
    table.add_column("policy")
    for heading in ("engine", "calls", "hits", "tokens/s", "preempted", "mean usage", "peak usage"):
        table.add_column(heading, justify="right")
    for record in records:
        rows = record.metrics["engines"]
        for number, row in enumerate(rows):
            table.add_row(
                record.label if number == 0 else "",
                str(row["engine_index"]),
                f"{row['num_requests']:,}",
                percent(row["hit_rate"]),
                f"{row['throughput_tokens_per_s']:,.0f}",
                "-" if row["num_preemptions"] is None else f"{row['num_preemptions']:,}",
                percent(row["mean_kv_usage"]),
                percent(row["peak_kv_usage"]),
                end_section=number == len(rows) - 1,
            )
    return table
