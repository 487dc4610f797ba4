"""The table of a sweep for the terminal: makespans of each grid point, the best static cap marked."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from concur.sim.runs.policies import best_static_cap, is_static_cap

MOST_ROWS: Final = 30

Row = Mapping[str, Any]
"""One run, as `concur.sim.lab.sweep.rows` returns it."""


def sweep_table(rows: Sequence[Row], keys: Sequence[str], *, most_rows: int = MOST_ROWS) -> Table:
    """Return one row per value of the grid's `keys`: mean makespan over seeds by policy.

    All static caps share one column: the best of them, chosen afterwards. `-`: a run of it failed. More than
    `most_rows` are cut.
    """
    means = mean_makespans_s(rows, keys)
    policies = list(dict.fromkeys(policy for by_policy in means.values() for policy in by_policy))
    others = [policy for policy in policies if not is_static_cap(policy)]
    has_caps = len(others) < len(policies)
    table = Table(
        title="mean makespan over seeds (s)", caption=_caption(len(means), most_rows, has_caps=has_caps)
    )
    for key in keys:
        table.add_column(key)  # to the left: it names the row
    for heading in (*others, *(["best static cap *"] if has_caps else [])):
        table.add_column(heading, justify="right")
    for values, by_policy in list(means.items())[:most_rows]:
        cells = [_cell(by_policy.get(policy)) for policy in others]
        table.add_row(*values, *cells, *([_best_cap(by_policy)] if has_caps else []))
    return table


def mean_makespans_s(
    rows: Sequence[Row], keys: Sequence[str]
) -> dict[tuple[str, ...], dict[str, float | None]]:
    """Return grid point -> policy -> mean makespan, `None` where a run has none."""
    makespans_s: dict[tuple[str, ...], dict[str, list[float | None]]] = {}
    for row in rows:
        by_policy = makespans_s.setdefault(tuple(str(row[key]) for key in keys), {})
        by_policy.setdefault(row["policy"], []).append(row.get("makespan_s"))
    return {
        values: {policy: _mean(runs) for policy, runs in by_policy.items()}
        for values, by_policy in makespans_s.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def _best_cap(by_policy: Mapping[str, float | None]) -> str:
    best = best_static_cap(by_policy)
    return "-" if best is None else f"{_cell(by_policy[best])} ({best.partition('=')[2]})"


def _cell(mean_s: float | None) -> str:
    return "-" if mean_s is None else f"{mean_s:,.1f}"


def _caption(num_rows: int, most_rows: int, *, has_caps: bool) -> str:
    parts = ["* chosen afterwards, its cap in brackets"] if has_caps else []
    if num_rows > most_rows:
        parts.append(f"the first {most_rows} of {num_rows} grid points")
    return "; ".join(parts)
