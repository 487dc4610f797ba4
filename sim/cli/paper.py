"""`concur paper`: the paper's tables and figures again, in one command."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from concur.sim.cli.options import Jobs, Seeds
from concur.sim.errors import ScenarioError
from concur.sim.paper import a1, engines, fig1, fig3, fig6, sensitivity, table1, table2
from concur.sim.paper.page import tables_of, write_results
from concur.sim.paper.parts import Part
from concur.sim.paper.runs import Book, Job
from concur.sim.runs.parallel import LocalWorkers
from concur.sim.runs.progress import counting, say
from concur.sim.runs.seeds import read_seeds
from concur.sim.show.report import check_report_folder
from concur.sim.show.tables import print_tables

PARTS: Final[dict[str, tuple[Callable[[], list[Job]], Callable[[Book], Part]]]] = {
    "fig1": (fig1.jobs, fig1.part),
    "fig3": (fig3.jobs, fig3.part),
    "table1": (table1.jobs, table1.part),
    "table2": (table2.jobs, table2.part),
    "fig6": (fig6.jobs, fig6.part),
    "a1": (a1.jobs, a1.part),
    "sensitivity": (sensitivity.jobs, sensitivity.part),
    **{
        name: (partial(engines.jobs, reading), partial(engines.part, reading=reading))
        for reading, name in engines.NAMES.items()
    },
}
"""What each part needs run, and what it makes of it."""

USUAL: Final = tuple(name for name in PARTS if name not in engines.NAMES.values())
"""Made without asking by name. Runs on SGLang take several times as long, and have a page of their own."""

_WIDTH_WITHOUT_TERMINAL: Final = 200


app = typer.Typer()


@app.command()
def paper(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path(
        "runs/paper"
    ),
    only: Annotated[
        str, typer.Option("--only", metavar="PART,...", help=f"Some of {', '.join(PARTS)}.")
    ] = ",".join(USUAL),
    seeds: Seeds = "0,1,2",
    jobs: Jobs = None,
) -> None:
    """Regenerate the CONCUR paper's tables and figures beside the printed numbers."""
    names, chosen_seeds = _names(only), read_seeds(seeds or "", "--seeds")
    check_report_folder(out)
    book = Book(chosen_seeds, workers=LocalWorkers(jobs))
    wanted = [job for name in names for job in PARTS[name][0]()]
    num_runs = sum(batch.num_runs for batch in book.missing(wanted))
    with counting("simulating and drawing", num_runs + len(names)) as advance:
        try:
            book.run(wanted, on_run=advance)
        except KeyboardInterrupt:
            say("stopped: nothing is kept; --only PART and --seeds take less time")
            raise
        parts = [PARTS[name][1](book) for name in names]
        page = write_results(parts, out, seeds=chosen_seeds, on_progress=advance)
    for part in parts:
        print(f"\n{part.title}")
        print_tables(*tables_of(part), width=_WIDTH_WITHOUT_TERMINAL)
    print(f"page: {page}")


def _names(only: str) -> list[str]:
    asked = [name.strip() for name in only.split(",")]
    for name in asked:
        if name not in PARTS:
            raise ScenarioError(f"--only {name!r}: no such part; choose from {', '.join(PARTS)}")
    return [name for name in PARTS if name in asked]
