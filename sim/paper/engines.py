"""The printed numbers again on the paper's own engine, SGLang, beside vLLM: the same agents, the same pools.

HiCache's numbers have a table of their own, because 0.5.8 is not simulated with it; those of Fig. 1 ask no
scheduler. CONCUR counts as the fastest here where it beats no control and the request cap.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from concur.sim.paper import a1, fig3
from concur.sim.paper.numbers import Printed, printed
from concur.sim.paper.parts import Part, number, plus_minus
from concur.sim.paper.runs import CONCUR, NONE, Book, Job, agent_cap, request_cap
from concur.sim.paper.settings import Reading, Setting, deepseek, on_hicache, on_sglang, qwen, with_hicache
from concur.sim.paper.verdict import INPUT, VERDICTS, judge
from concur.sim.runs.intervals import Interval

ENGINES: Final[Mapping[str, Callable[[Setting], Setting]]] = {
    "vLLM 0.32.0": lambda setting: setting,
    "SGLang 0.5.23": lambda setting: on_sglang(setting, "0.5.23"),
    "SGLang 0.5.8": lambda setting: on_sglang(setting, "0.5.8"),
}
"""Each engine, and how a setting is put on it."""

TIERS: Final[Mapping[str, Callable[[Setting], Setting]]] = {
    "vLLM 0.32.0, what is evicted": with_hicache,
    "SGLang 0.5.23, write_through": lambda setting: on_hicache(setting, "write_through"),
    "SGLang 0.5.23, write_through_selective": lambda setting: on_hicache(setting, "write_through_selective"),
    "SGLang 0.5.23, write_back": lambda setting: on_hicache(setting, "write_back"),
}
"""Each host tier of twice the pool, and how a setting is put on it."""

NAMES: Final[Mapping[Reading, str]] = {"as printed": "engines", "lengthened": "engines_lengthened"}
"""What the part of a reading is called."""

_U_HIGH: Final = {"a1.u_high_06": 0.6, "a1.u_high_08": 0.8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A printed number and ours on each engine."""

    printed: Printed
    what: str
    ours: Mapping[str, Interval]

    def verdict(self, engine: str) -> str:
        """What the rule says of an engine's number."""
        return judge(self.printed, self.ours[engine])


def jobs(reading: Reading) -> list[Job]:
    """Return what the tables of a reading need run."""
    wanted = []
    for put in ENGINES.values():
        wanted += [Job(put(setting), (NONE, request_cap(setting), CONCUR)) for setting in _settings(reading)]
        tighter = tuple(a1.cell(high, a1.LAW_U_LOW) for high in _U_HIGH.values())
        wanted.append(Job(put(qwen(2, reading)), (agent_cap(64), *tighter)))
    for put in TIERS.values():
        wanted += [Job(put(deepseek(num_gpus, 40, reading)), (NONE,)) for num_gpus in (16, 8)]
    return wanted


def part(book: Book, reading: Reading) -> Part:
    """Return the tables of a reading; the findings stay those of the other parts."""
    found = rows(book, reading)
    return Part(
        name=NAMES[reading],
        title=f"The same on SGLang, the paper's engine: agents {reading}",
        findings=(),
        tables=[
            _shares_table(found),
            _numbers_table(found, reading, ENGINES),
            _hits_table(book, reading),
            _numbers_table(hicache_rows(book, reading), f"{reading}: HiCache", TIERS),
        ],
        series={"rows": found},
    )


def rows(book: Book, reading: Reading) -> list[Row]:
    """Return every printed number that a scheduler has to do with, and ours on each engine."""
    by_engine = {name: _measured(book, reading, put) for name, put in ENGINES.items()}
    first = next(iter(by_engine.values()))
    return [
        Row(printed=printed(key), what=what, ours={name: own[key][1] for name, own in by_engine.items()})
        for key, (what, _) in first.items()
        if all(key in own for own in by_engine.values())
    ]


def hicache_rows(book: Book, reading: Reading) -> list[Row]:
    """Return the printed numbers of HiCache, and ours on each host tier, on an engine as that of the tier."""
    faster, hits = {}, {}
    for name, put in TIERS.items():
        tier, bare = put(deepseek(16, 40, reading)), deepseek(16, 40, reading)
        baseline = bare if tier.sglang_release is None else on_sglang(bare, tier.sglang_release)
        faster[name] = book.speed_up(tier, NONE, baseline=baseline)
        hits[name] = book.mean(put(deepseek(8, 40, reading)), NONE, "hit_rate")
    return [
        Row(
            printed=printed("table1.deepseek_tp16_40.hicache"),
            what="DeepSeek-V3 TP16, 40: HiCache over no control",
            ours=faster,
        ),
        Row(printed=printed("table2.hicache.40"), what="DeepSeek-V3 TP8, 40: hits, HiCache", ours=hits),
    ]


def _settings(reading: Reading) -> tuple[Setting, ...]:
    return (
        qwen(8, reading),
        qwen(2, reading),
        *(deepseek(num_gpus, num_agents, reading) for num_gpus in (16, 8) for num_agents in (16, 32, 40)),
    )


def _measured(
    book: Book, reading: Reading, put: Callable[[Setting], Setting]
) -> dict[str, tuple[str, Interval]]:
    """Return what was measured on one engine, by the key of the printed number: its name and our value."""
    found: dict[str, tuple[str, Interval]] = {}
    for key, (what, interval) in fig3.measured(book, put(deepseek(16, 40, reading))).items():
        if interval is not None:
            found[f"fig3.{key}"] = f"DeepSeek-V3 TP16, 40: {what}", interval
    for short, setting in (
        ("Qwen3-32B TP8", qwen(8, reading)),
        ("DeepSeek-V3 TP16, 40", deepseek(16, 40, reading)),
    ):
        found |= _gain(book, put(setting), f"table1.{setting.key}", short)
    found["table1.fastest"] = "share in which CONCUR is the fastest", _fastest(book, reading, put)
    found |= _hits(book, reading, put)
    found |= _fig6(book, put(qwen(2, reading)))
    for key, u_high_frac in _U_HIGH.items():
        speed = a1.against_half(book, put(qwen(2, reading)), u_high_frac)
        found[key] = f"Qwen3-32B TP2: speed at U_high {u_high_frac} over 0.5", speed
    return found


def _gain(book: Book, setting: Setting, key: str, short: str) -> dict[str, tuple[str, Interval]]:
    return {
        f"{key}.none_s": (f"{short}: no control", book.mean(setting, NONE, "makespan_s")),
        f"{key}.concur_s": (f"{short}: CONCUR", book.mean(setting, CONCUR, "makespan_s")),
        f"{key}.concur": (f"{short}: CONCUR over no control", book.speed_up(setting, CONCUR)),
    }


def _fastest(book: Book, reading: Reading, put: Callable[[Setting], Setting]) -> Interval:
    """Return in which share of Table 1's settings CONCUR is the fastest of the three."""
    settings = [put(each) for each in _settings(reading) if not each.key.startswith("deepseek_tp8")]
    wins = [book.fastest(each, (NONE, request_cap(each), CONCUR)) is CONCUR for each in settings]
    return Interval(sum(wins) / len(wins), None)


def _hits(book: Book, reading: Reading, put: Callable[[Setting], Setting]) -> dict[str, tuple[str, Interval]]:
    found = {}
    for num_agents in (16, 32, 40):
        setting = put(deepseek(8, num_agents, reading))
        policies = {"none": ("no control", NONE)}
        if num_agents == 40:
            policies |= {"request_cap": ("request cap", request_cap(setting)), "concur": ("CONCUR", CONCUR)}
        for key, (label, policy) in policies.items():
            what = f"DeepSeek-V3 TP8, {num_agents}: hits, {label}"
            found[f"table2.{key}.{num_agents}"] = what, book.mean(setting, policy, "hit_rate")
    return found


def _fig6(book: Book, setting: Setting) -> dict[str, tuple[str, Interval]]:
    short, cap = "Qwen3-32B TP2", agent_cap(64)
    return _gain(book, setting, "fig6", short) | {
        "fig6.agent_cap_64_s": (f"{short}: 64 agents", book.mean(setting, cap, "makespan_s")),
        "fig6.agent_cap_64": (f"{short}: 64 agents over no control", book.speed_up(setting, cap)),
    }


def _shares_table(own: list[Row]) -> Table:
    caption = "printed numbers that a scheduler has to do with, HiCache's left out, by verdict"
    table = Table(title="how many numbers each engine reproduces", caption=caption)
    table.add_column("engine")
    for verdict in VERDICTS:
        if verdict != INPUT:
            table.add_column(verdict, justify="right")
    table.add_column("share reproduced", justify="right")
    for engine in ENGINES:
        counts = {verdict: sum(row.verdict(engine) == verdict for row in own) for verdict in VERDICTS}
        del counts[INPUT]
        share = next(iter(counts.values())) / len(own)
        table.add_row(engine, *map(str, counts.values()), f"{100 * share:.0f} %")
    return table


def _numbers_table(own: list[Row], title: str, engines: Collection[str]) -> Table:
    table = Table(title=title, caption="ours: mean and 95 % interval over seeds, and the verdict")
    table.add_column("what")
    table.add_column("printed (grade)", justify="right")
    for engine in engines:
        table.add_column(engine, justify="right")
        table.add_column("verdict")
    for row in own:
        cells = []
        for engine in engines:
            cells += [plus_minus(row.ours[engine], row.printed), row.verdict(engine)]
        table.add_row(row.what, f"{number(row.printed.value, row.printed)} ({row.printed.grade})", *cells)
    return table


def _hits_table(book: Book, reading: Reading) -> Table:
    caption = (
        "means over seeds: cached share of the prompt tokens; makespans without control and under CONCUR"
    )
    table = Table(title=f"{reading}: what is cached", caption=caption)
    table.add_column("setting")
    for engine in ENGINES:
        for what in ("hits", "none s", "CONCUR s"):
            table.add_column(f"{engine}, {what}", justify="right")
    for setting in _settings(reading):
        cells = []
        for put in ENGINES.values():
            own = put(setting)
            cells.append(f"{100 * book.mean(own, NONE, 'hit_rate').mean:.1f} %")
            cells += [f"{book.mean(own, policy, 'makespan_s').mean:,.0f}" for policy in (NONE, CONCUR)]
        table.add_row(setting.title, *cells)
    return table
