"""A.1: how CONCUR's thresholds matter, U_high x U_low, Qwen3-32B on two GPUs."""

import math
from typing import Final

from rich.table import Table

from concur.sim.paper.numbers import printed
from concur.sim.paper.parts import Finding, Part, times
from concur.sim.paper.runs import NONE, Book, Job, Policy, concur
from concur.sim.paper.settings import READINGS, Reading, Setting, qwen
from concur.sim.runs.intervals import Interval, speed_up

U_HIGH: Final = (0.4, 0.5, 0.6, 0.8)
U_LOW: Final = (0.1, 0.2, 0.3, 0.5)
LAW_U_LOW: Final = 0.2  # the column of the paper's constants


def jobs() -> list[Job]:
    """Return what the grid needs run."""
    cells = tuple(cell(high, low) for low in U_LOW for high in U_HIGH if low <= high)
    return [Job(qwen(2, reading), (NONE, *cells)) for reading in READINGS]


def cell(u_high_frac: float, u_low_frac: float) -> Policy:
    """Return CONCUR with those thresholds."""
    return concur(u_high_frac=u_high_frac, u_low_frac=u_low_frac)


def part(book: Book) -> Part:
    """Return the grid and its findings."""
    return Part(
        name="a1",
        title="A.1: thresholds of CONCUR, Qwen3-32B TP2, 256 agents",
        findings=[found for reading in READINGS for found in _findings(book, reading)],
        tables=[_table(book, reading) for reading in READINGS],
        series={reading: _grid(book, qwen(2, reading)) for reading in READINGS},
    )


def _findings(book: Book, reading: Reading) -> list[Finding]:
    setting = qwen(2, reading)
    found = []
    for u_high_frac, key in ((0.6, "a1.u_high_06"), (0.8, "a1.u_high_08")):
        number = printed(key)
        ours = against_half(book, setting, u_high_frac)
        what = f"speed at U_high {u_high_frac} over 0.5"
        hits = book.mean(setting, cell(u_high_frac, LAW_U_LOW), "hit_rate").mean
        usage = book.mean(setting, NONE, "mean_kv_usage").mean
        why = (
            f"a cut needs hits below 20 %, CONCUR's are {100 * hits:.0f} %; and where it thrashes, without "
            f"control, U is {100 * usage:.0f} % on average"
        )
        found.append(
            Finding(reading=reading, setting=setting.title, what=what, printed=number, ours=ours, why=why)
        )
    return found


def against_half(book: Book, setting: Setting, u_high_frac: float) -> Interval:
    """Return makespan at U_high = 0.5 over that at another, U_low = 0.2, paired by seed."""
    half = book.runs(setting, cell(0.5, LAW_U_LOW))
    other = book.runs(setting, cell(u_high_frac, LAW_U_LOW))
    return speed_up(other, half)


def _grid(book: Book, setting: Setting) -> list[list[float]]:
    """Return mean speed-ups over no control, rows U_low, columns U_high; NaN where U_low > U_high."""
    return [
        [book.speed_up(setting, cell(high, low)).mean if low <= high else math.nan for high in U_HIGH]
        for low in U_LOW
    ]


def _table(book: Book, reading: Reading) -> Table:
    setting = qwen(2, reading)
    caption = "speed-up over no control; printed: 0.5 to 0.6 nearly free, 0.8 is 4-5x slower"
    table = Table(title=reading, caption=caption)
    table.add_column("U_low")
    for high in U_HIGH:
        table.add_column(f"U_high {high}", justify="right")
    for low in U_LOW:
        cells = [times(book.speed_up(setting, cell(high, low))) if low <= high else "-" for high in U_HIGH]
        table.add_row(f"{low}", *cells)
    return table
