"""The simulator's verbs: `simulate`, `compare`, `report`, `trace`.

Results go to stdout, progress and diagnostics to stderr.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from sim.compare import Runs, by_policy, policies, write_records
from sim.driver import simulate as run_scenario
from sim.errors import RecordError
from sim.intervals import summary
from sim.lab import sweep_cli, tune_cli
from sim.lab.oracle import expand_oracle
from sim.paper.cli import paper
from sim.perfetto import check_trace_name, write_perfetto
from sim.policies import best_static_cap, in_order, of_one_workload
from sim.progress import counting, say, warn
from sim.provenance import git_commit, short_commit, versions
from sim.record import RunRecord, check_writable, load_record, write_record
from sim.remarks import warnings_of_workloads
from sim.report import check_report_folder, num_figures, write_report
from sim.scenario import ControllerConfig, Scenario, load_scenario
from sim.tables import comparison_table, interval_table, metrics_table, phase_table, print_tables, trace_table
from sim.workload.build import build_workload
from sim.workload.describe import default_losses, describe_trace
from sim.workload.trace import read_trace

_MANY_AGENTS: Final = 50_000

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
    app.command("compare", context_settings={"allow_extra_args": True})(compare)
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
    _say_if_many(config)
    workload = build_workload(config)
    warn(workload.warnings)
    with counting(f"simulating {config.controller.label}", len(workload.agents)) as advance:
        record = run_scenario(
            config,
            workload,
            on_progress=lambda done, _all: advance.to(done),
            on_warning=lambda warning: advance.say(f"concur: warning: {warning}"),
        )
    write_record(record, folder)
    if as_json:
        print(json.dumps(record.metrics, indent=1))
    else:
        print_tables(metrics_table(record), phase_table([record]))
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
            help="none, request_cap=N[,N], agent_cap=N[,N] or FIRST..LAST[..STEP], concur, hybrid, ..., "
            "oracle (the best static cap, by search); all that follow belong to it.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Keep the records here; of one seed, a report."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Run one workload under several policies and compare them in one table.

    With `compare.seeds` the table has the mean over seeds and its 95 % interval.
    """
    config = load_scenario(scenario, overrides or ())
    texts = _policy_texts(context, controllers)
    if out is not None:
        check_report_folder(out / "report")
    _say_if_many(config)
    runs = Runs(config, config.compare.seeds or (config.seed,))
    warn(warnings_of_workloads(runs.workloads))
    num_agents = len(next(iter(runs.workloads.values())).agents)
    texts = expand_oracle(texts, runs, say)
    chosen = policies(config, texts, num_agents=num_agents)
    (_compare_seeds if config.compare.seeds else _compare_once)(runs, chosen, out, as_json=as_json)


def _compare_once(runs: Runs, chosen: Sequence[ControllerConfig], out: Path | None, *, as_json: bool) -> None:
    if out is not None:
        for controller in chosen:
            check_writable(out / controller.label)
    records = in_order(_run_all(runs, chosen))
    if as_json:
        print(json.dumps({record.label: record.metrics for record in records}, indent=1))
    else:
        print_tables(comparison_table(records), phase_table(_noteworthy(records)))
    if out is not None:
        write_records(records, out)
        page = _report(records, out / "report")
        if not as_json:
            print(f"records: {out}\nreport: {page}")


def _compare_seeds(
    runs: Runs, chosen: Sequence[ControllerConfig], out: Path | None, *, as_json: bool
) -> None:
    if out is not None:
        for seed in runs.workloads:
            for controller in chosen:
                check_writable(out / f"seed-{seed}" / controller.label)
    records = _run_all(runs, chosen)
    table = by_policy(records)
    if as_json:
        print(json.dumps(summary(table), indent=1))
    else:
        print_tables(interval_table(table))
    if out is not None:
        for record in records:
            write_records([record], out / f"seed-{record.run['seed']}")
        if not as_json:
            print(f"records: {out}")


def _run_all(runs: Runs, chosen: Sequence[ControllerConfig]) -> list[RunRecord]:
    records: list[RunRecord] = []
    with counting("simulating", len(chosen) * len(runs.workloads)) as advance:
        for record in runs.run(chosen):
            records.append(record)
            advance()
    return records


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders with run.json.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the report goes.")] = None,
    perfetto: Annotated[
        Path | None,
        typer.Option(
            "--perfetto", metavar="FILE.json.gz", help="Write one run as a trace for the Perfetto UI."
        ),
    ] = None,
) -> None:
    """Write PNG figures and one self-contained HTML page from run records, or one of them as a trace."""
    if out is None and perfetto is None:
        raise typer.BadParameter("nothing to write; give --out DIR, --perfetto FILE.json.gz, or both")
    runs = [run for run in runs if out is None or run.resolve() != out.resolve()]
    if perfetto is not None:
        _check_trace(perfetto, num_runs=len(runs))
    if out is not None:
        check_report_folder(out)
    records = of_one_workload(map(load_record, runs))
    if perfetto is not None:
        write_perfetto(records[0], perfetto)
        print(f"trace: {perfetto} (open it at https://ui.perfetto.dev)")
    if out is not None:
        print(f"report: {_report(records, out)}")


def describe(trace: _Trace) -> None:
    """Print the distributions of a trace."""
    print_tables(trace_table(describe_trace(read_trace(trace)), trace.name))


def check(trace: _Trace) -> None:
    """Check that a trace keeps to the format."""
    agents = read_trace(trace)
    print(f"{trace}: ok, {len(agents)} agents, {sum(len(agent.steps) for agent in agents)} calls")
    for line in default_losses(agents):
        print(f"by default: {line}")


def _policy_texts(context: typer.Context, controllers: Sequence[str] | None) -> list[str]:
    """Join what `--controllers` took with the bare policies after it."""
    if context.args and not controllers:
        raise typer.BadParameter(f"unexpected {context.args[0]!r}; policies come after --controllers")
    return [*(controllers or ()), *context.args]


def _say_if_many(config: Scenario) -> None:
    """Say what takes minutes before anything is shown: drawing very many agents."""
    parts = sum(part.num_agents for part in config.workload.parts)
    num_agents = 0 if config.workload.trace else config.workload.num_agents + parts
    if num_agents >= _MANY_AGENTS:
        say(f"drawing {num_agents:,} agents, which takes minutes")


def _noteworthy(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Pick the runs whose phases are worth a table: all but the static caps, and the best of those."""
    best = best_static_cap(records)
    return [record for record in records if record is best or not record.label.startswith("agent_cap")]


def _check_trace(path: Path, *, num_runs: int) -> None:
    check_trace_name(path)
    if num_runs != 1:
        raise RecordError(f"{path}: a trace shows one run but {num_runs} were given; name one RUN")


def _report(records: Sequence[RunRecord], out: Path) -> Path:
    if not records:
        raise RecordError("no run record given; name at least one folder with run.json")
    with counting("drawing", num_figures(records)) as advance:
        return write_report(records, out, on_progress=advance)
