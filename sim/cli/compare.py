"""The verb `concur compare`: one workload under several policies, in one table.

Results go to stdout, progress and diagnostics to stderr.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from concur.sim.cli.compare_engines import compare_engines
from concur.sim.cli.comparing import Comparison, draw_report, of_whole_seeds
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
from concur.sim.record.record import RunRecord
from concur.sim.runs.bands import PolicyBands, check_has_profile, run_draws
from concur.sim.runs.compare import by_policy
from concur.sim.runs.intervals import summary
from concur.sim.runs.parallel import LocalWorkers
from concur.sim.runs.policies import best_static_run, in_order, is_static_cap
from concur.sim.runs.progress import counting, say_if_many, warn
from concur.sim.runs.seeds import read_seeds
from concur.sim.scenario.engine_texts import engine_variants
from concur.sim.scenario.scenario import load_scenario
from concur.sim.show.engines_table import engines_tables
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
    engines: Annotated[
        str | None,
        typer.Option(
            "--engines",
            metavar="ENGINE[,ENGINE]",
            help="vllm, sglang, sglang+KEY=VALUE, ...: the same agents on each, in one table.",
        ),
    ] = None,
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
    With --engines (or `compare.engines`) every policy runs on each of them, in a pool of as many tokens.
    """
    of_seeds = [] if seeds is None else [f"compare.seeds={read_seeds(seeds, '--seeds')}"]
    config = load_scenario(scenario, [*(overrides or ()), *of_seeds])
    texts = policy_texts(context, controllers)
    names = config.compare.engines if engines is None else engines.split(",")
    if draws and names:
        raise typer.BadParameter("--draws is of one engine; leave it or the engines out")
    if draws:
        check_has_profile(config)
    say_if_many(config.workload.num_drawn_agents)
    if names:
        variants = engine_variants(
            config, names, origin="compare.engines" if engines is None else "--engines"
        )
        compare_engines(variants, texts, out=out, jobs=jobs, as_json=as_json, wide=wide)
        return
    comparison = Comparison(config, out=out, jobs=jobs)
    warn(comparison.warnings)
    comparison.choose(texts)
    try:
        comparison.run()
    except (KeyboardInterrupt, WorkersLostError):
        comparison.say_what_has_ended()
        _show(comparison, [], as_json=as_json, wide=wide)
        raise
    drawn = _run_draws(comparison, draws, LocalWorkers(jobs)) if draws else []
    _show(comparison, drawn, as_json=as_json, wide=wide)
    if comparison.folder is not None:
        ordered, place = in_order(comparison.records), comparison.folder.clear_report()
        page = write_seeds_page(ordered, place) if comparison.has_seeds else draw_report(ordered, place)
        _print_places(comparison.folder, page, as_json=as_json)


def _run_draws(comparison: Comparison, num_draws: int, workers: LocalWorkers) -> list[PolicyBands]:
    runs, chosen = comparison.runs, comparison.chosen
    with counting("drawing step times", len(chosen) * num_draws) as advance:
        return run_draws(runs.scenario, chosen, runs.workloads, num_draws, workers=workers, on_run=advance)


def _show(comparison: Comparison, drawn: Sequence[PolicyBands], *, as_json: bool, wide: bool) -> None:
    records, has_seeds = comparison.records, comparison.has_seeds
    if not records:
        return
    ordered = in_order(records)
    table = by_policy(of_whole_seeds(records)) if has_seeds else {}
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


def _print_places(folder: ComparisonFolder, page: Path, *, as_json: bool) -> None:
    if not as_json:
        print(f"records: {folder.folder}")
        print(f"report: {page}")


def _noteworthy(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Pick the runs whose phases are worth a table: all but the static caps, and the best of those."""
    best = best_static_run(records)
    return [record for record in records if record is best or not is_static_cap(record.label)]
