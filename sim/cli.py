"""The simulator's verbs: `simulate`, `compare`, `report`, `trace`.

Results go to stdout, progress and diagnostics to stderr.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sim.compare import by_policy, policies, run_policies, run_seeds, write_records
from sim.driver import simulate as run_scenario
from sim.errors import RecordError
from sim.intervals import summary
from sim.paper.cli import paper
from sim.policies import best_static_cap, in_order, of_one_workload
from sim.record import RunRecord, check_writable, load_record, write_record
from sim.report import check_report_folder, num_figures, write_report
from sim.scenario import ControllerConfig, Scenario, load_scenario
from sim.tables import comparison_table, interval_table, metrics_table, phase_table, trace_table
from sim.workload.build import build_workload
from sim.workload.describe import describe_trace
from sim.workload.trace import read_trace

_Scenario = Annotated[Path, typer.Argument(metavar="SCENARIO.toml", help="The experiment.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one key; repeatable.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print the metrics as JSON instead of tables.")]
_Trace = Annotated[Path, typer.Argument(metavar="FILE", help="A trace, .jsonl or .jsonl.gz.")]

_WIDTH_WITHOUT_TERMINAL = 150  # wide enough for the comparison table in a log file


def register(app: typer.Typer) -> None:
    """Add this package's verbs to the `concur` command."""
    trace = typer.Typer(help="Look at agent traces.", no_args_is_help=True)
    trace.command("describe")(describe)
    trace.command("check")(check)
    app.command("simulate")(simulate)
    app.command("compare", context_settings={"allow_extra_args": True})(compare)
    app.command("report")(report)
    app.command("paper")(paper)
    app.add_typer(trace, name="trace")


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
    workload = build_workload(config)
    with _progress(f"simulating {config.controller.label}", len(workload.agents)) as advance:
        record = run_scenario(config, workload, on_progress=lambda done, _all: advance.to(done))
    write_record(record, folder)
    if as_json:
        print(json.dumps(record.metrics, indent=1))
    else:
        _stdout().print(metrics_table(record), phase_table([record]))
        print(f"record: {folder}")


def compare(
    context: typer.Context,
    scenario: _Scenario,
    overrides: _Set = None,
    controllers: Annotated[
        list[str] | None,
        typer.Option(
            "--controllers",
            metavar="POLICY...",
            help="none, request_cap=N[,N], agent_cap=N[,N] or FIRST..LAST[..STEP], concur, hybrid, ...; "
            "all that follow belong to it.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Keep the records and a report here.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Run one workload under several policies and compare them in one table.

    With `compare.seeds` the table has the mean over seeds and its 95 % interval.
    """
    config = load_scenario(scenario, overrides or ())
    texts = _policy_texts(context, controllers)
    workload = build_workload(config)
    chosen = policies(config, texts, num_agents=len(workload.agents))
    if config.compare.seeds:
        _compare_seeds(config, chosen, out, as_json=as_json)
        return
    if out is not None:
        check_report_folder(out / "report")
        for controller in chosen:
            check_writable(out / controller.label)
    records: list[RunRecord] = []
    with _progress("simulating policies", len(chosen)) as advance:
        for record in run_policies(config, chosen, workload=workload):
            records.append(record)
            advance()
    records = in_order(records)
    if as_json:
        print(json.dumps({record.label: record.metrics for record in records}, indent=1))
    else:
        _stdout().print(comparison_table(records), phase_table(_noteworthy(records)))
    if out is not None:
        write_records(records, out)
        page = _report(records, out / "report")
        if not as_json:
            print(f"records: {out}\nreport: {page}")


def _compare_seeds(
    config: Scenario, chosen: Sequence[ControllerConfig], out: Path | None, *, as_json: bool
) -> None:
    seeds = config.compare.seeds
    if out is not None:
        for seed in seeds:
            for controller in chosen:
                check_writable(out / f"seed-{seed}" / controller.label)
    records: list[RunRecord] = []
    with _progress("simulating policies and seeds", len(chosen) * len(seeds)) as advance:
        for record in run_seeds(config, chosen, seeds):
            records.append(record)
            advance()
    runs = by_policy(records)
    if as_json:
        print(json.dumps(summary(runs), indent=1))
    else:
        _stdout().print(interval_table(runs))
    if out is not None:
        for record in records:
            write_records([record], out / f"seed-{record.run['seed']}")
        if not as_json:
            print(f"records: {out}")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders with run.json.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the report goes.")],
) -> None:
    """Write PNG figures and one self-contained HTML page from run records."""
    records = of_one_workload(load_record(run) for run in runs if run.resolve() != out.resolve())
    print(f"report: {_report(records, out)}")


def describe(trace: _Trace) -> None:
    """Print the distributions of a trace."""
    _stdout().print(trace_table(describe_trace(read_trace(trace)), trace.name))


def check(trace: _Trace) -> None:
    """Check that a trace keeps to the format."""
    agents = read_trace(trace)
    print(f"{trace}: ok, {len(agents)} agents, {sum(len(agent.steps) for agent in agents)} calls")


def _policy_texts(context: typer.Context, controllers: Sequence[str] | None) -> list[str]:
    """Join what `--controllers` took with the bare policies after it."""
    if context.args and not controllers:
        raise typer.BadParameter(f"unexpected {context.args[0]!r}; policies come after --controllers")
    return [*(controllers or ()), *context.args]


def _noteworthy(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Pick the runs whose phases are worth a table: all but the static caps, and the best of those."""
    best = best_static_cap(records)
    return [record for record in records if record is best or not record.label.startswith("agent_cap")]


def _report(records: Sequence[RunRecord], out: Path) -> Path:
    if not records:
        raise RecordError("no run record given; name at least one folder with run.json")
    with _progress("drawing", num_figures(records)) as advance:
        return write_report(records, out, on_progress=advance)


def _stdout() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_WITHOUT_TERMINAL)


@contextmanager
def _progress(what: str, total: int) -> "Iterator[_Advance]":
    """Show a progress bar on stderr while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield _Advance(progress, task)


class _Advance:
    """Move one progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def __call__(self) -> None:
        self._progress.advance(self._task)

    def to(self, completed: int) -> None:
        """Set the bar to `completed`."""
        self._progress.update(self._task, completed=completed)
