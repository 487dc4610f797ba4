"""Table 1: end-to-end latency of the paper's policies, and beside them the best static cap and the hybrid."""

from collections import Counter
from typing import Final

from rich.table import Table

from concur.sim.paper.numbers import find_printed, printed
from concur.sim.paper.parts import Finding, Part, finding, seconds, why_gain, why_seconds
from concur.sim.paper.runs import CONCUR, HYBRID, NONE, Book, Job, Policy, agent_cap, request_cap
from concur.sim.paper.settings import READINGS, Reading, Setting, deepseek, qwen, with_hicache, without_cache
from concur.sim.runs.intervals import Interval

_QWEN_CAPS: Final = (16, 24, 30, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256)
_DEEPSEEK_CAPS: Final = (4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 40)


def settings(reading: Reading) -> tuple[Setting, ...]:
    """Return the settings of Table 1 that are known."""
    return (
        qwen(8, reading),
        qwen(2, reading),
        *(deepseek(16, num_agents, reading) for num_agents in (16, 32, 40)),
    )


def fine_caps(setting: Setting) -> tuple[Policy, ...]:
    """Return the fine sweep of static caps, up to all agents: that one never binds."""
    caps = _QWEN_CAPS if setting.key.startswith("qwen") else _DEEPSEEK_CAPS
    return tuple(agent_cap(cap) for cap in caps if cap <= setting.num_agents)


def jobs() -> list[Job]:
    """Return what the table needs run."""
    wanted: list[Job] = []
    for reading in READINGS:
        for setting in settings(reading):
            policies = (NONE, request_cap(setting), CONCUR, HYBRID, *fine_caps(setting))
            wanted += [Job(setting, policies), Job(with_hicache(setting), (NONE,))]
            wanted += [Job(without_cache(setting), (NONE,))]
    return wanted


def part(book: Book) -> Part:
    """Return the table and its findings."""
    findings = [
        found
        for reading in READINGS
        for setting in settings(reading)
        for found in _findings(book, setting, reading)
    ]
    findings += [_fastest(book, reading) for reading in READINGS]
    return Part(
        name="table1",
        title="Table 1: end-to-end latency",
        findings=findings,
        tables=[_table(book, reading) for reading in READINGS],
        series={reading: _series(book, reading) for reading in READINGS},
    )


def gains(book: Book, setting: Setting) -> dict[str, Interval]:
    """Return each policy's speed-up over no control, by its name in the paper or ours."""
    return {
        "request cap": book.speed_up(setting, request_cap(setting)),
        "HiCache": book.speed_up(with_hicache(setting), NONE, baseline=setting),
        "CONCUR": book.speed_up(setting, CONCUR),
        "best cap": book.speed_up(setting, book.fastest(setting, fine_caps(setting))),
        "hybrid": book.speed_up(setting, HYBRID),
    }


def _findings(book: Book, setting: Setting, reading: Reading) -> list[Finding]:
    key = f"table1.{setting.key}"
    wanted = find_printed(f"{key}.concur")
    if wanted is None:
        return []
    longest, gain = why_seconds(book, setting), gains(book, setting)
    none_s, concur_s = (book.mean(setting, policy, "makespan_s") for policy in (NONE, CONCUR))
    why = why_gain(book, setting, wanted, fine_caps(setting))
    rows = {
        "none_s": ("no control", none_s, longest),
        "concur_s": ("CONCUR", concur_s, longest),
        "concur": ("CONCUR over no control", gain["CONCUR"], why),
        "hicache": ("HiCache over no control", gain["HiCache"], _why_hicache(book, setting)),
    }
    return [
        found
        for name, (what, ours, why) in rows.items()
        for found in finding(
            f"{key}.{name}", reading=reading, setting=setting.title, what=what, ours=ours, why=why
        )
    ]


def _fastest(book: Book, reading: Reading) -> Finding:
    """Count the settings in which CONCUR is strictly the fastest of the paper's four policies."""
    winners: Counter[str] = Counter()
    for setting in settings(reading):
        gained = {name: gains(book, setting)[name].mean for name in ("request cap", "HiCache", "CONCUR")}
        winners[max(("no control", *gained), key=lambda name: gained.get(name, 1.0))] += 1
    return Finding(
        reading=reading,
        setting="all known settings",
        what="share in which CONCUR is the fastest",
        printed=printed("table1.fastest"),
        ours=Interval(winners["CONCUR"] / winners.total(), None),
        why="fastest: " + ", ".join(f"{name} {count}" for name, count in winners.most_common()),
    )


def _why_hicache(book: Book, setting: Setting) -> str:
    busy = book.mean(with_hicache(setting), NONE, "link_busy_frac").mean
    hits = book.mean(with_hicache(setting), NONE, "hit_rate").mean
    return (
        f"{100 * hits:.0f} % hits, and the link is busy {100 * busy:.0f} % of the time: "
        "at the printed rate of transfer it cannot make the batch slower"
    )


def _table(book: Book, reading: Reading) -> Table:
    caption = (
        "seconds, mean and 95 % interval (speed-up over no control); request cap: a quarter of the agents; "
        "best cap: of a fine sweep, all agents included"
    )
    table = Table(title=reading, caption=caption)
    table.add_column("setting")
    for heading in ("demand / pool", "no control", "request cap", "HiCache", "CONCUR", "best cap", "hybrid"):
        table.add_column(heading, justify="right")
    for setting in settings(reading):
        best = book.fastest(setting, fine_caps(setting))
        makespans = {
            "request cap": book.mean(setting, request_cap(setting), "makespan_s"),
            "HiCache": book.mean(with_hicache(setting), NONE, "makespan_s"),
            "CONCUR": book.mean(setting, CONCUR, "makespan_s"),
            "best cap": book.mean(setting, best, "makespan_s"),
            "hybrid": book.mean(setting, HYBRID, "makespan_s"),
        }
        cap = {"best cap": f" at {best.label.partition('=')[2]}"}
        table.add_row(
            setting.title,
            f"{book.mean(setting, NONE, 'peak_demand_frac').mean:.2f}",
            seconds(book.mean(setting, NONE, "makespan_s")),
            *(
                f"{seconds(makespans[name])} ({gain.mean:.2f}x{cap.get(name, '')})"
                for name, gain in gains(book, setting).items()
            ),
        )
    return table


def _series(book: Book, reading: Reading) -> dict[str, dict[str, Interval]]:
    return {setting.key: gains(book, setting) for setting in settings(reading)}
