"""The verb `concur compare`: one workload under several policies, in one table.

Results go to stdout, progress and diagnostics to stderr.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from concur.sim.cli.options import (
    TAKES_POLICIES,
    Controllers,
    Jobs,
    Json,
    Overrides,
    ScenarioFile,
    Seeds,
    Wide,
    policy_texts,
)
from concur.sim.errors import WorkersLostError
from concur.sim.lab.oracle import expand_oracle
from concur.sim.record.record import RunRecord
from concur.sim.runs.bands import PolicyBands, check_has_profile, run_draws
from concur.sim.runs.compare import Runs, by_policy, policies
from concur.sim.runs.intervals import summary
from concur.sim.runs.parallel import LocalWorkers
from concur.sim.runs.policies import best_static_run, in_order, is_static_cap
from concur.sim.runs.progress import counting, say, say_if_many, tallying, warn
from concur.sim.runs.seeds import read_seeds
from concur.sim.scenario.scenario import load_scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.show.engines_table import engines_tables
from concur.sim.show.remarks import warnings_of_workloads
from concur.sim.show.report import num_figures, write_report
from concur.sim.show.run_folders import ComparisonFolder
from concur.sim.show.seeds_report import write_seeds_page
from concur.sim.show.tables import bands_table, comparison_table, interval_table, phase_table, print_tables

app = typer.Typer()


@app.command(context_settings=TAKES_POLICIES)
def compare(
    context: typer.Context,
    scenario: ScenarioFile,
    overrides: Overrides = None,
    controllers: Controllers = None,
    seeds: Seeds = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Keep each record as it ends, and write a report."),
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", min=0, help="So many profiles within the errors of the profile, too.")
    ] = 0,
    jobs: Jobs = None,
    as_json: Json = False,
    wide: Wide = False,
) -> None:
    """Run one workload under several policies and compare them in one table.

    On several seeds (`--seeds`, or `compare.seeds`) the table has means and their 95 % intervals. Stopped, it
    shows what has ended; with --out, the same command goes on where it was. With --draws each policy also
    runs on step times that the profile's errors allow as well: bands of the makespan, and which cap is best.
    """
    of_seeds = [] if seeds is None else [f"compare.seeds={read_seeds(seeds, '--seeds')}"]
    config = load_scenario(scenario, [*(overrides or ()), *of_seeds])
    texts = policy_texts(context, controllers)
    has_seeds = bool(config.compare.seeds)
    if draws:
        check_has_profile(config)
    say_if_many(config.workload.num_drawn_agents)
    runs = Runs(config, config.compare.seeds or (config.seed,), workers=LocalWorkers(jobs))
    folder = None if out is None else ComparisonFolder(out, has_seeds=has_seeds)
    if folder is not None:
        folder.check(config, runs.workloads)
    warn(warnings_of_workloads(runs.workloads))
    num_agents = len(next(iter(runs.workloads.values())).agents)
    with tallying("searching the best static cap") as advance:
        texts = expand_oracle(texts, runs, say, on_run=advance)
    chosen = policies(config, texts, num_agents=num_agents)
    if folder is not None:
        _know_kept(runs, chosen, folder)
    records: list[RunRecord] = []
    try:
        _run_all(runs, chosen, records, folder)
    except (KeyboardInterrupt, WorkersLostError):
        _say_what_has_ended(records, len(chosen) * len(runs.workloads), folder)
        _show(records, [], has_seeds=has_seeds, as_json=as_json, wide=wide)
        raise
    drawn = _run_draws(runs, chosen, draws, LocalWorkers(jobs)) if draws else []
    _show(records, drawn, has_seeds=has_seeds, as_json=as_json, wide=wide)
    if folder is not None:
        ordered, place = in_order(records), folder.clear_report()
        page = write_seeds_page(ordered, place) if has_seeds else draw_report(ordered, place)
        _print_places(folder, page, as_json=as_json)


def _know_kept(runs: Runs, chosen: Sequence[ControllerConfig], folder: ComparisonFolder) -> None:
    """Take what an earlier comparison has left, if this very code made it."""
    kept = folder.kept(runs.scenario, chosen, runs.workloads)
    for record in kept:
        runs.know(record)
    if kept:
        say(f"{len(kept)} of {len(chosen) * len(runs.workloads)} runs are in {folder.folder} already")


def _run_all(
    runs: Runs, chosen: Sequence[ControllerConfig], records: list[RunRecord], folder: ComparisonFolder | None
) -> None:
    """Add each run to `records` as it ends, and keep it in the folder."""
    with counting("simulating", len(chosen) * len(runs.workloads)) as advance:
        for record in runs.run(chosen):
            if folder is not None:
                folder.keep(record)
            records.append(record)
            advance()


def _say_what_has_ended(records: Sequence[RunRecord], num_runs: int, folder: ComparisonFolder | None) -> None:
    kept = "" if folder is None or not records else f"; they are kept in {folder.folder}"
    say(f"stopped: {len(records)} of {num_runs} runs had ended{kept}")


def _run_draws(
    runs: Runs, chosen: Sequence[ControllerConfig], num_draws: int, workers: LocalWorkers
) -> list[PolicyBands]:
    with counting("drawing step times", len(chosen) * num_draws) as advance:
        return run_draws(runs.scenario, chosen, runs.workloads, num_draws, workers=workers, on_run=advance)


def _show(
    records: Sequence[RunRecord], drawn: Sequence[PolicyBands], *, has_seeds: bool, as_json: bool, wide: bool
) -> None:
    if not records:
        return
    ordered = in_order(records)
    table = by_policy(_of_whole_seeds(records)) if has_seeds else {}
    if as_json:
        found = summary(table) if has_seeds else {record.label: record.metrics for record in ordered}
        for each in drawn:
            found[each.policy] = found[each.policy] | {"profile_draws": each.to_json()}
        print(json.dumps(found, indent=1))
    elif has_seeds:
        print_tables(interval_table(table, is_wide=wide))
    else:
        shown = _noteworthy(ordered)
        print_tables(comparison_table(ordered, is_wide=wide), *engines_tables(shown), phase_table(shown))
    if drawn and not as_json:
        print_tables(bands_table(drawn))


def _of_whole_seeds(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs of the seeds on which most policies have ended, and the same ones on each."""
    ended: dict[int, set[str]] = {}
    for record in records:
        ended.setdefault(record.run["seed"], set()).add(record.label)
    most = max(ended.values(), key=len)
    return [record for record in records if ended[record.run["seed"]] == most]


def draw_report(records: Sequence[RunRecord], folder: Path) -> Path:
    """Write the report of runs under a bar; return the page's path."""
    with counting("drawing", num_figures(records)) as advance:
        return write_report(records, folder, on_progress=advance)


def _print_places(folder: ComparisonFolder, page: Path, *, as_json: bool) -> None:
    if not as_json:
        print(f"records: {folder.folder}")
        print(f"report: {page}")


def _noteworthy(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Pick the runs whose phases are worth a table: all but the static caps, and the best of those."""
    best = best_static_run(records)
    return [record for record in records if record is best or not is_static_cap(record.label)]
