"""Fig. 6: fixed levels of concurrency against CONCUR, Qwen3-32B on two GPUs, and a fine sweep of levels."""

from typing import Final

from rich.table import Table

from concur.sim.paper.numbers import printed
from concur.sim.paper.parts import Finding, Part, finding, rate, seconds, times, why_gain, why_seconds
from concur.sim.paper.runs import CONCUR, HYBRID, NONE, Book, Job, Policy, agent_cap
from concur.sim.paper.settings import READINGS, Reading, Setting, qwen, without_cache
from concur.sim.paper.table1 import fine_caps
from concur.sim.runs.intervals import Interval

LEVELS: Final = (30, 32, 64, 128)


def jobs() -> list[Job]:
    """Return what the figure needs run."""
    wanted: list[Job] = []
    for reading in READINGS:
        setting = qwen(2, reading)
        wanted.append(Job(setting, (NONE, CONCUR, HYBRID, *fine_caps(setting))))
        wanted.append(Job(without_cache(setting), (NONE,)))
    return wanted


def part(book: Book) -> Part:
    """Return the figure's numbers and findings."""
    return Part(
        name="fig6",
        title="Fig. 6: fixed levels against CONCUR, Qwen3-32B TP2, 256 agents",
        findings=[found for reading in READINGS for found in _findings(book, reading)],
        tables=[_table(book, reading) for reading in READINGS],
        series={reading: _series(book, qwen(2, reading)) for reading in READINGS},
    )


def _policies() -> dict[str, Policy]:
    return {"none": NONE, "agent_cap_64": agent_cap(64), "concur": CONCUR}


def _findings(book: Book, reading: Reading) -> list[Finding]:
    setting = qwen(2, reading)
    longest = why_seconds(book, setting)
    found: list[Finding] = []
    for name, policy in _policies().items():
        took, gain = book.mean(setting, policy, "makespan_s"), book.speed_up(setting, policy)
        found += finding(
            f"fig6.{name}_s",
            what=policy.label,
            ours=took,
            why=longest,
            reading=reading,
            setting=setting.title,
        )
        if policy is not NONE:
            why = why_gain(book, setting, printed(f"fig6.{name}"), fine_caps(setting))
            found += finding(
                f"fig6.{name}",
                what=f"{policy.label} over no control",
                ours=gain,
                why=why,
                reading=reading,
                setting=setting.title,
            )
    return found


def _table(book: Book, reading: Reading) -> Table:
    setting = qwen(2, reading)
    best = book.fastest(setting, fine_caps(setting))
    known = {name: printed(f"fig6.{name}_s").value for name in _policies()}
    caption = "printed: " + ", ".join(f"{name} {value:,.0f} s" for name, value in known.items())
    table = Table(title=reading, caption=caption)
    table.add_column("policy")
    for heading in ("makespan s", "speed-up", "hits", "recompute", "agents"):
        table.add_column(heading, justify="right")
    shown = [NONE, *(agent_cap(level) for level in LEVELS), best, CONCUR, HYBRID]
    for policy in dict.fromkeys(shown):
        table.add_row(
            policy.label + (" (best of the fine sweep)" if policy == best else ""),
            seconds(book.mean(setting, policy, "makespan_s")),
            times(book.speed_up(setting, policy)),
            rate(book.mean(setting, policy, "hit_rate")),
            rate(book.mean(setting, policy, "recompute_time_fraction")),
            f"{book.mean(setting, policy, 'mean_active_agents').mean:.0f}",
        )
    return table


def _series(book: Book, setting: Setting) -> dict[str, Interval]:
    shown = (NONE, CONCUR, HYBRID, *fine_caps(setting))
    return {policy.label: book.speed_up(setting, policy) for policy in shown}
