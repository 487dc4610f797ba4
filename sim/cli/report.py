"""The verb `concur report`. Results go to stdout, progress and diagnostics to stderr."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from concur.sim.cli.comparing import draw_report
from concur.sim.errors import RecordError
from concur.sim.lab.sweep_report import is_sweep, write_sweep_report
from concur.sim.record.record import RunRecord, load_record
from concur.sim.runs.policies import in_order, of_one_workload
from concur.sim.runs.progress import counting, say
from concur.sim.show.engines_report import engines_in, write_engines_page
from concur.sim.show.perfetto import check_trace_name, write_perfetto
from concur.sim.show.report import check_report_folder, num_figures
from concur.sim.show.run_folders import REPORT, left_out_below, runs_below
from concur.sim.show.seeds_report import write_seeds_report

app = typer.Typer()


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders with run.json, or what `compare` or `sweep` left."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the report goes; of a comparison, its own folder."),
    ] = None,
    perfetto: Annotated[
        Path | None,
        typer.Option(
            "--perfetto", metavar="FILE.json.gz", help="Write one run as a trace for the Perfetto UI."
        ),
    ] = None,
) -> None:
    """Write figures and one self-contained HTML page from run records, or one of them as a trace."""
    if len(runs) == 1 and (page := _page_over_all(runs[0], out, perfetto)):
        print(f"report: {page}")
        return
    is_comparison = len(runs) == 1 and runs[0].is_dir() and not (runs[0] / "run.json").exists()
    if out is None and perfetto is None and is_comparison:
        out = runs[0] / REPORT
    if out is None and perfetto is None:
        raise typer.BadParameter("nothing to write; give --out DIR, --perfetto FILE.json.gz, or both")
    named = runs if is_comparison else [run for run in runs if not out or run.resolve() != out.resolve()]
    found = [path for run in named for path in _runs_below(run)]
    if perfetto is not None:
        _check_trace(perfetto, num_runs=len(found))
    if out is not None:
        check_report_folder(out)
    records = [load_record(path) for path in found]
    is_of_seeds = is_comparison and len({record.run["seed"] for record in records}) > 1
    records = records if is_of_seeds else of_one_workload(records)
    if perfetto is not None:
        write_perfetto(records[0], perfetto)
        print(f"trace: {perfetto} (open it at https://ui.perfetto.dev)")
    if out is not None:
        print(f"report: {_seeds_report(records, out) if is_of_seeds else _report(records, out)}")


def _page_over_all(folder: Path, out: Path | None, perfetto: Path | None) -> Path | None:
    """Write the page of a sweep or of a comparison of engines; `None` if the folder is neither."""
    engines = engines_in(folder)
    if not engines and not is_sweep(folder):
        return None
    if perfetto is not None:
        kept = "a comparison of engines is many runs" if engines else "a sweep keeps no timelines"
        raise typer.BadParameter(f"{kept}; --perfetto needs a run of `compare`")
    place = out or folder / REPORT
    return _engines_report(folder, engines, place) if engines else write_sweep_report(folder, place)


def _engines_report(folder: Path, engines: Sequence[str], out: Path) -> Path:
    records = {name: in_order([load_record(path) for path in _runs_below(folder / name)]) for name in engines}
    return write_engines_page(records, out, comparison=folder)


def _runs_below(folder: Path) -> list[Path]:
    """Return the records that a RUN stands for; say which of an earlier comparison are not among them."""
    found = runs_below(folder)
    if left_out := left_out_below(folder, found):
        say(f"{folder}: not of the latest comparison, and left out: {', '.join(left_out)}")
    return found


def _check_trace(path: Path, *, num_runs: int) -> None:
    check_trace_name(path)
    if num_runs != 1:
        raise RecordError(f"{path}: a trace shows one run but {num_runs} were given; name one RUN")


def _report(records: Sequence[RunRecord], out: Path) -> Path:
    if not records:
        raise RecordError("no run record given; name at least one folder with run.json")
    return draw_report(records, out)


def _seeds_report(records: Sequence[RunRecord], out: Path) -> Path:
    seeds = {record.run["seed"] for record in records}
    num_figures_in_all = sum(
        num_figures([record for record in records if record.run["seed"] == seed]) for seed in seeds
    )
    with counting("drawing", num_figures_in_all) as advance:
        return write_seeds_report(records, out, on_progress=advance)
