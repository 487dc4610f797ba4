"""The verb `concur doctor`: what phase running engines are in, which one thrashes, and what would help.

It only reads `/metrics`. Results go to stdout, progress and diagnostics to stderr.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from concur.live.diagnosis import Diagnosis
from concur.live.doctor import Watch, percent, sentences
from concur.live.errors import ScrapeError

app = typer.Typer()


@app.command("doctor")
def doctor(
    urls: Annotated[list[str], typer.Argument(metavar="URL...", help="Each engine's own address.")],
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="For how long to watch.")] = 30.0,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two readings.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
) -> None:
    """Watch running engines and say which phase each is in, what it costs, and what would help.

    Nothing is sent to the engines but requests for /metrics. Stopped early, it judges what it has seen.
    """
    watch = Watch(urls)
    print(f"watching for {seconds:g} s", file=sys.stderr)
    try:
        asyncio.run(watch.run(seconds, every))
    except KeyboardInterrupt:
        if not watch.found():
            raise
    for warning in watch.warnings:
        print(f"concur: warning: {warning}", file=sys.stderr)
    found = watch.found()
    if not found:
        raise ScrapeError(f"no second reading in {seconds:g} s ({watch.num_failed} failed); watch for longer")
    if as_json:
        print(
            json.dumps(
                {name: {"phase": each.phase, **asdict(each)} for name, each in found.items()}, indent=1
            )
        )
        return
    Console(width=None if sys.stdout.isatty() else 130).print(table_of(found))
    print("\n".join(sentences(found)))


def table_of(found: Mapping[str, Diagnosis]) -> Table:
    """Return one row per engine."""
    table = Table(title=f"{next(iter(found.values())).seconds:.0f} s of each engine")
    table.add_column("engine")
    table.add_column("phase")
    for heading in (
        "running",
        "waiting",
        "pool used",
        "hits",
        "before",
        "prefill tok/s",
        "output tok/s",
        "preempted",
    ):
        table.add_column(heading, justify="right")
    for name, each in found.items():
        table.add_row(
            name,
            each.phase,
            f"{each.num_running:.1f}",
            f"{each.num_waiting:.1f}",
            percent(each.kv_cache_usage_frac, 1),
            percent(each.hit_rate, 1),
            percent(each.hit_rate_before, 1),
            _count(each.prefill_tokens_per_s),
            _count(each.generation_tokens_per_s),
            _count(each.num_preemptions),
        )
    return table


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
