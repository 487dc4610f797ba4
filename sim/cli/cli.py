"""The simulator's verbs: `simulate`, `compare`, `report`, `trace`.

Results go to stdout, progress and diagnostics to stderr.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from concur.sim.cli import compare as compare_cli
from concur.sim.errors import RecordError
from concur.sim.lab import sweep_cli, tune_cli
from concur.sim.paper.cli import paper
from concur.sim.record.provenance import git_commit, short_commit, versions
from concur.sim.record.record import RunRecord, check_writable, load_record, write_record
from concur.sim.runs.policies import of_one_workload
from concur.sim.runs.progress import counting, say, say_if_many, warn
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario, load_scenario
from concur.sim.show.perfetto import check_trace_name, write_perfetto
from concur.sim.show.report import check_report_folder, num_figures
from concur.sim.show.run_folders import REPORT, left_out_below, runs_below
from concur.sim.show.seeds_report import write_seeds_report
from concur.sim.show.tables import metrics_table, phase_table, print_tables, trace_table
from concur.sim.traces.trace import read_trace
from concur.sim.workload.describe import default_losses, describe_trace
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate as run_scenario

_Scenario = Annotated[Path, typer.Argument(metavar="SCENARIO.toml", help="The experiment.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one key; repeatable.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print the metrics as JSON instead of tables.")]
_Trace = Annotated[Path, typer.Argument(metavar="FILE", help="A trace, .jsonl or .jsonl.gz.")]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        commit = git_commit()
        print(f"concur {versions()['concur']}" + (f" (commit {short_commit(commit)})" if commit else ""))
        raise typer.Exit


def register(app: typer.Typer) -> None:
    """Add this package's verbs to the `concur` command, and what it says of itself."""
    app.callback(no_args_is_help=True)(root)
    trace = typer.Typer(help="Look at agent traces.", no_args_is_help=True)
    trace.command("describe")(describe)
    trace.command("check")(check)
    app.command("simulate")(simulate)
    compare_cli.register(app)
    app.command("report")(report)
    app.command("paper")(paper)
    app.add_typer(trace, name="trace")
    sweep_cli.register(app)
    tune_cli.register(app)


def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Agent-level admission control for LLM inference: simulate, compare, report."""


def simulate(
    scenario: _Scenario,
    overrides: _Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Folder of the record; default runs/NAME.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Simulate one scenario and write its run record."""
    config = load_scenario(scenario, overrides or ())
    folder = out or Path("runs") / f"{scenario.stem}-{config.controller.label}"
    check_writable(folder)
    say_if_many(config.workload.num_drawn_agents)
    workload = build_workload(config)
    warn(workload.warnings)
    try:
        record = _simulated(config, workload)
    except KeyboardInterrupt:
        say("stopped: nothing is written")
        raise
    write_record(record, folder)
    if as_json:
        print(json.dumps(record.metrics, indent=1))
    else:
        print_tables(metrics_table(record), phase_table([record]))
        print(f"record: {folder}")


def _simulated(config: Scenario, workload: Workload) -> RunRecord:
    with counting(f"simulating {config.controller.label}", len(workload.agents)) as advance:
        return run_scenario(
            config,
            workload,
            on_progress=lambda done, _all: advance.to(done),
            on_warning=lambda warning: advance.say(f"concur: warning: {warning}"),
        )


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders with run.json, or one that `concur compare` made."),
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
    """Write PNG figures and one self-contained HTML page from run records, or one of them as a trace."""
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


def describe(trace: _Trace) -> None:
    """Print the distributions of a trace."""
    print_tables(trace_table(describe_trace(read_trace(trace)), trace.name))


def check(trace: _Trace) -> None:
    """Check that a trace keeps to the format."""
    agents = read_trace(trace)
    print(f"{trace}: ok, {len(agents)} agents, {sum(len(agent.steps) for agent in agents)} calls")
    for line in default_losses(agents):
        print(f"by default: {line}")


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
    return compare_cli.draw_report(records, out)


def _seeds_report(records: Sequence[RunRecord], out: Path) -> Path:
    seeds = {record.run["seed"] for record in records}
    num_figures_in_all = sum(
        num_figures([record for record in records if record.run["seed"] == seed]) for seed in seeds
    )
    with counting("drawing", num_figures_in_all) as advance:
        return write_seeds_report(records, out, on_progress=advance)
