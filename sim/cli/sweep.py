"""The verb for many runs: `concur sweep`.

Results go to stdout, progress and diagnostics to stderr.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from concur.sim.cli.examples import or_example
from concur.sim.cli.options import Jobs, Json, Overrides
from concur.sim.errors import ExtraMissingError
from concur.sim.lab.grid import load_grid
from concur.sim.lab.sweep import Store, rows, run_points, write_plan, write_table
from concur.sim.lab.sweep_table import sweep_table
from concur.sim.runs.parallel import LocalWorkers, Workers
from concur.sim.runs.progress import counting, say, warn
from concur.sim.show.remarks import merged_warnings
from concur.sim.show.report import check_report_folder
from concur.sim.show.tables import print_tables

app = typer.Typer()


@app.command()
def sweep(
    grid: Annotated[
        Path,
        typer.Argument(
            metavar="GRID.toml",
            help="A scenario, keys with lists of values, policies, seeds.",
            callback=or_example,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Finished runs and the table.")],
    overrides: Overrides = None,
    jobs: Jobs = None,
    backend: Annotated[
        Literal["loky", "ray"], typer.Option("--backend", help="Processes on this machine, or Ray.")
    ] = "loky",
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", metavar="HOST:PORT", help="The cluster; default: one made here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run all combinations of a grid; one row per run in DIR/runs.parquet.

    Stopped, it goes on where it was; a changed grid reuses the runs that are the same. Exit status 1 if runs
    failed.
    """
    if ray_address is not None and backend != "ray":
        raise typer.BadParameter("--ray-address needs --backend ray")
    plan = load_grid(grid, overrides or ())
    check_report_folder(out / "runs")
    store = Store(out)
    results = store.load(plan.points)
    left = [point for point in plan.points if point.key not in results]
    say(f"{len(plan.points):,} runs, {len(results):,} of them done before")
    with _workers(backend, jobs, ray_address) if left else nullcontext(LocalWorkers()) as workers:
        write_plan(plan, out)
        with counting("sweeping", len(left)) as advance:
            try:
                results |= run_points(left, store, workers=workers, on_done=advance)
            except KeyboardInterrupt:
                say(f"finished runs are kept in {store.folder}; the same command continues")
                raise
    table = rows(plan.points, results)
    path = write_table(table, out)
    if as_json:
        print(json.dumps(table, indent=1))
    else:
        print_tables(sweep_table(table, list(plan.config.grid)))
        print(f"table: {path}")
    if (
        remark := store.remark_on_commits({row["git_commit"] for row in table if row["error"] is None})
    ) is not None:
        say(remark)
    warn(merged_warnings((each.name, results[each.key].get("warnings", ())) for each in plan.points))
    errors = [row["error"] for row in table if row["error"] is not None]
    if errors:
        say(f"{len(errors)} of {len(table)} runs failed, see the column error; the first: {errors[0]}")
    raise typer.Exit(1 if errors else 0)


@contextmanager
def _workers(backend: str, jobs: int | None, address: str | None) -> Iterator[Workers]:
    if backend == "loky":
        yield LocalWorkers(jobs)
        return
    try:
        from concur.sim.lab.ray_workers import ray_workers  # needs the extra `ray`
    except ImportError as error:
        raise ExtraMissingError(error, extra="ray") from None
    with ray_workers(address, jobs) as workers:
        yield workers
