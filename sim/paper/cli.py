"""`concur paper`: the paper's tables and figures again, in one command."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sim.errors import ScenarioError
from sim.paper import a1, fig1, fig3, fig6, sensitivity, table1, table2
from sim.paper.page import tables_of, write_results
from sim.paper.parts import Part
from sim.paper.runs import Book, Job
from sim.report import check_report_folder

PARTS: Final[dict[str, tuple[Callable[[], list[Job]], Callable[[Book], Part]]]] = {
    "fig1": (fig1.jobs, fig1.part),
    "fig3": (fig3.jobs, fig3.part),
    "table1": (table1.jobs, table1.part),
    "table2": (table2.jobs, table2.part),
    "fig6": (fig6.jobs, fig6.part),
    "a1": (a1.jobs, a1.part),
    "sensitivity": (sensitivity.jobs, sensitivity.part),
}
"""What each part needs run, and what it makes of it."""

_WIDTH_WITHOUT_TERMINAL: Final = 200


def paper(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path(
        "runs/paper"
    ),
    only: Annotated[
        str, typer.Option("--only", metavar="PART,...", help=f"Some of {', '.join(PARTS)}.")
    ] = ",".join(PARTS),
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,...", help="Seeds of the agents.")] = "0,1,2",
) -> None:
    """Regenerate the CONCUR paper's tables and figures beside the printed numbers."""
    names, chosen_seeds = _names(only), _seeds(seeds)
    check_report_folder(out)
    book = Book(chosen_seeds)
    jobs = [job for name in names for job in PARTS[name][0]()]
    num_runs = sum(batch.num_runs for batch in book.missing(jobs))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("simulating", total=num_runs + len(names))
        book.run(jobs, on_run=lambda: progress.advance(task))
        progress.update(task, description="drawing")
        parts = [PARTS[name][1](book) for name in names]
        page = write_results(
            parts,
            out,
            seeds=chosen_seeds,
            on_progress=lambda: progress.advance(task),
        )
    console = Console()
    console = console if console.is_terminal else Console(width=_WIDTH_WITHOUT_TERMINAL)
    for part in parts:
        console.print(f"\n{part.title}", *tables_of(part), sep="\n")
    print(f"page: {page}")


def _names(only: str) -> list[str]:
    asked = [name.strip() for name in only.split(",")]
    for name in asked:
        if name not in PARTS:
            raise ScenarioError(f"--only {name!r}: no such part; choose from {', '.join(PARTS)}")
    return [name for name in PARTS if name in asked]


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise ScenarioError(f"--seeds {text!r}: not whole numbers; give them as 0,1,2") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ScenarioError(f"--seeds {text!r}: each must be at least 0 and named once; give them as 0,1,2")
    return seeds
