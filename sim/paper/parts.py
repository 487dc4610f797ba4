"""What a part is made of: findings (a number of ours beside the printed one) and tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from concur.sim.paper.numbers import Printed, find_printed
from concur.sim.paper.runs import CONCUR, NONE, Book, Policy
from concur.sim.paper.settings import READINGS, Reading, Setting, without_cache
from concur.sim.paper.verdict import INPUT, REPRODUCED, TOLERANCE, VERDICTS, judge
from concur.sim.runs.intervals import Interval, metric_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Our number beside the printed one; `why` says what was measured where they part."""

    reading: Reading | None
    setting: str
    what: str
    printed: Printed
    ours: Interval
    why: str = ""

    @property
    def verdict(self) -> str:
        """What the rule says."""
        return judge(self.printed, self.ours)

    def to_json(self) -> dict[str, Any]:
        """Return everything by name."""
        return {
            "key": self.printed.key,
            "where": self.printed.where,
            "grade": self.printed.grade,
            "reading": self.reading,
            "setting": self.setting,
            "what": self.what,
            "printed": self.printed.value,
            "ours": self.ours.to_json(),
            "verdict": self.verdict,
            "why": self.why,
        }


def finding(
    key: str, *, reading: Reading | None, setting: str, what: str, ours: Interval, why: str = ""
) -> list[Finding]:
    """Return the finding on a printed number, or none where the paper's number is not known."""
    known = find_printed(key)
    if known is None:
        return []
    return [Finding(reading=reading, setting=setting, what=what, printed=known, ours=ours, why=why)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One table or figure of the paper, again; `series` is what its figure draws."""

    name: str
    title: str
    findings: Sequence[Finding]
    tables: Sequence[Table] = ()
    series: Mapping[str, Any] = field(default_factory=dict)


def why_gain(book: Book, setting: Setting, wanted: Printed, caps: Iterable[Policy]) -> str:
    """Say what bounds CONCUR's gain in a setting: nothing to cure, too little to cure, or its own window."""
    demand = book.mean(setting, NONE, "peak_demand_frac").mean
    recompute = book.mean(setting, NONE, "recompute_time_fraction").mean
    if demand <= 1:
        return f"peak demand is {demand:.2f} of the pool: nothing thrashes, nothing is to be gained"
    best = book.fastest(setting, caps)
    gain = book.speed_up(setting, best).mean
    active = book.mean(setting, CONCUR, "mean_active_agents").mean
    all_saved = 1 / (1 - recompute)
    said = [
        f"peak demand {demand:.1f} of the pool",
        f"no control recomputes {100 * recompute:.0f} % of the time (all of it saved: {all_saved:.1f}x)",
        f"best cap ({best.label.partition('=')[2]}) {gain:.2f}x",
        f"CONCUR runs {active:.0f} agents on average",
    ]
    may_grow = metric_interval(book.runs(setting, CONCUR), "may_grow_frac")
    if may_grow is not None:
        said.append(f"while others wait, U lets it grow in {100 * may_grow.mean:.0f} % of its decisions")
    if gain < (1 - TOLERANCE) * wanted.value:
        said.append("no window that stays put reaches the print")
    return "; ".join(said)


def why_seconds(book: Book, setting: Setting) -> str:
    """Say how long the same agents take with no prefix cache at all."""
    longest_s = book.mean(without_cache(setting), NONE, "makespan_s").mean
    return f"with no prefix cache at all these agents take {longest_s:,.0f} s"


def why_hits(book: Book, setting: Setting) -> str:
    """Say how far the demand is from the pool."""
    demand = book.mean(setting, NONE, "peak_demand_frac").mean
    ideal = book.mean(setting, NONE, "ideal_hit_rate").mean
    return f"peak demand {demand:.2f} of the pool; a cache that never evicts has {100 * ideal:.1f} %"


def verdicts_table(parts: Sequence[Part]) -> Table:
    """Return how many findings of each reading have which verdict."""
    table = Table(title="verdicts", caption="findings by reading; `-`: the same in both")
    table.add_column("reading")
    for verdict in VERDICTS:
        table.add_column(verdict, justify="right")
    for reading in (*READINGS, None):
        own = [row.verdict for part in parts for row in part.findings if row.reading == reading]
        table.add_row(reading or "-", *(str(own.count(verdict)) for verdict in VERDICTS))
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return one row per finding."""
    table = Table(title="beside the printed numbers", caption="ours: mean and 95 % interval over seeds")
    for heading in ("setting", "reading", "what"):
        table.add_column(heading)
    for heading in ("printed (grade)", "ours", "ours / printed"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    table.add_column("measured")
    for row in findings:
        is_agreed = row.verdict in (REPRODUCED, INPUT)
        table.add_row(
            row.setting,
            row.reading or "-",
            row.what,
            f"{number(row.printed.value, row.printed)} ({row.printed.grade})",
            plus_minus(row.ours, row.printed),
            f"{row.ours.mean / row.printed.value:.2f}",
            row.verdict,
            "" if is_agreed else row.why,
        )
    return table


def number(value: float, printed: Printed) -> str:
    """Format a value in the printed number's unit."""
    scale, digits, unit = _unit(printed)
    return f"{value / scale:,.{digits}f}{unit}"


def plus_minus(interval: Interval, printed: Printed) -> str:
    """Format a mean and its interval in the printed number's unit."""
    scale, digits, unit = _unit(printed)
    half = "" if interval.half_width is None else f" ± {interval.half_width / scale:,.{digits}f}"
    return f"{interval.mean / scale:,.{digits}f}{half}{unit}"


def _unit(printed: Printed) -> tuple[float, int, str]:
    """Return what one unit is, how many digits, and its name."""
    if printed.kind == "rate":
        return 0.01, 1, " %"
    if printed.kind == "speed_up":
        return 1.0, 2, "x"
    if printed.value >= 1e8:
        return 1e9, 2, " GB"
    return (1.0, 0, " s") if printed.value >= 10 else (0.001, 0, " ms")


def seconds(interval: Interval) -> str:
    """Format seconds with their interval."""
    half = "" if interval.half_width is None else f" ± {interval.half_width:,.0f}"
    return f"{interval.mean:,.0f}{half}"


def times(interval: Interval) -> str:
    """Format a speed-up with its interval."""
    half = "" if interval.half_width is None else f" ± {interval.half_width:.2f}"
    return f"{interval.mean:.2f}{half}"


def rate(interval: Interval) -> str:
    """Format a fraction as a percentage with its interval."""
    half = "" if interval.half_width is None else f" ± {100 * interval.half_width:.1f}"
    return f"{100 * interval.mean:.1f}{half} %"
