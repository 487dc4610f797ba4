"""Fig. 3: the three phases of the DeepSeek-V3 run without control, and what recompute takes of it."""

from typing import Final

from rich.table import Table

from concur.sim.paper.numbers import printed
from concur.sim.paper.parts import Finding, Part, rate, why_hits
from concur.sim.paper.runs import NONE, Book, Job
from concur.sim.paper.settings import READINGS, Reading, Setting, deepseek
from concur.sim.runs.intervals import Interval, mean_interval

_PHASES: Final = ("warm_up", "middle", "cool_down")


def jobs() -> list[Job]:
    """Return what the figure needs run."""
    return [Job(_setting(reading), (NONE,)) for reading in READINGS]


def part(book: Book) -> Part:
    """Return the phases, their findings, and the first seed's runs to draw."""
    return Part(
        name="fig3",
        title="Fig. 3: phases of DeepSeek-V3 TP16, 40 agents, without control",
        findings=[found for reading in READINGS for found in _findings(book, reading)],
        tables=[_table(book, reading) for reading in READINGS],
        series={reading: next(iter(book.runs(_setting(reading), NONE).values())) for reading in READINGS},
    )


def _setting(reading: Reading) -> Setting:
    return deepseek(16, 40, reading)


def measured(book: Book, setting: Setting) -> dict[str, tuple[str, Interval | None]]:
    """Return what the figure says of a setting: by the printed number's key, its name and our value."""
    return {
        "warm_up_hits": ("hit rate of the warm-up", _phase_hits(book, setting, "warm_up")),
        "middle": ("middle's share of the run", _phase_share(book, setting, "middle")),
        "recompute": ("recompute's share of the time", book.mean(setting, NONE, "recompute_time_fraction")),
    }


def _findings(book: Book, reading: Reading) -> list[Finding]:
    setting = _setting(reading)
    return [
        Finding(
            reading=reading,
            setting=setting.title,
            what=what,
            printed=printed(f"fig3.{key}"),
            ours=interval,
            why=why_hits(book, setting),
        )
        for key, (what, interval) in measured(book, setting).items()
        if interval is not None
    ]


def _phase_hits(book: Book, setting: Setting, phase: str) -> Interval | None:
    hits = [run.metrics["phases"][phase]["hit_rate"] for run in book.runs(setting, NONE).values()]
    return None if None in hits else mean_interval(hits)


def _phase_share(book: Book, setting: Setting, phase: str) -> Interval:
    """Return the share of the run that a phase lasts."""
    metrics = [run.metrics for run in book.runs(setting, NONE).values()]
    spans = [(own["phases"][phase], own["makespan_s"]) for own in metrics]
    return mean_interval([(span["end_s"] - span["start_s"]) / makespan_s for span, makespan_s in spans])


def _table(book: Book, reading: Reading) -> Table:
    setting = _setting(reading)
    table = Table(title=reading, caption="phases by the rule of sim/record/phases.py; mean over seeds")
    table.add_column("phase")
    for heading in ("share of the run", "hit rate"):
        table.add_column(heading, justify="right")
    for phase in _PHASES:
        hits = _phase_hits(book, setting, phase)
        share = rate(_phase_share(book, setting, phase))
        table.add_row(phase.replace("_", "-"), share, "-" if hits is None else rate(hits))
    return table
