"""Table 2: hit rates of DeepSeek-V3 on eight GPUs, by the number of agents."""

from typing import Final

from rich.table import Table

from concur.sim.paper.numbers import find_printed
from concur.sim.paper.parts import Finding, Part, finding, rate, why_hits
from concur.sim.paper.runs import CONCUR, NONE, Book, Job, request_cap
from concur.sim.paper.settings import READINGS, Reading, Setting, deepseek, with_hicache
from concur.sim.runs.intervals import Interval

NUM_AGENTS: Final = (16, 32, 40)
NAMES: Final = {
    "none": "no control",
    "request_cap": "request cap",
    "hicache": "HiCache",
    "concur": "CONCUR",
}


def jobs() -> list[Job]:
    """Return what the table needs run."""
    wanted: list[Job] = []
    for reading in READINGS:
        for setting in _settings(reading):
            wanted.append(Job(setting, (NONE, request_cap(setting), CONCUR)))
            wanted.append(Job(with_hicache(setting), (NONE,)))
    return wanted


def part(book: Book) -> Part:
    """Return the table and its findings."""
    hits: dict[str, dict[str, list[Interval]]] = {reading: _hits(book, reading) for reading in READINGS}
    return Part(
        name="table2",
        title="Table 2: hit rates of DeepSeek-V3, TP8",
        findings=[found for reading in READINGS for found in _findings(book, reading, hits[reading])],
        tables=[_table(reading, hits[reading]) for reading in READINGS],
        series=hits,
    )


def _settings(reading: Reading) -> tuple[Setting, ...]:
    return tuple(deepseek(8, num_agents, reading) for num_agents in NUM_AGENTS)


def _hits(book: Book, reading: Reading) -> dict[str, list[Interval]]:
    hits: dict[str, list[Interval]] = {name: [] for name in NAMES}
    for setting in _settings(reading):
        hits["none"].append(book.mean(setting, NONE, "hit_rate"))
        hits["request_cap"].append(book.mean(setting, request_cap(setting), "hit_rate"))
        hits["hicache"].append(book.mean(with_hicache(setting), NONE, "hit_rate"))
        hits["concur"].append(book.mean(setting, CONCUR, "hit_rate"))
    return hits


def _findings(book: Book, reading: Reading, hits: dict[str, list[Interval]]) -> list[Finding]:
    return [
        found
        for name, intervals in hits.items()
        for setting, ours in zip(_settings(reading), intervals, strict=True)
        for found in finding(
            f"table2.{name}.{setting.num_agents}",
            reading=reading,
            setting=setting.title,
            what=f"hit rate, {NAMES[name]}",
            ours=ours,
            why=why_hits(book, setting),
        )
    ]


def _table(reading: Reading, hits: dict[str, list[Interval]]) -> Table:
    table = Table(title=reading, caption="hit rate: cached / prompt tokens, ours (printed)")
    table.add_column("policy")
    for num_agents in NUM_AGENTS:
        table.add_column(f"{num_agents} agents", justify="right")
    for name, intervals in hits.items():
        cells = []
        for num_agents, ours in zip(NUM_AGENTS, intervals, strict=True):
            number = find_printed(f"table2.{name}.{num_agents}")
            cells.append(rate(ours) + (f" ({100 * number.value:.1f} %)" if number else ""))
        table.add_row(NAMES[name], *cells)
    return table
