"""The verb `concur tune`: better parameters for a law, and whether the gain holds on other seeds.

Results go to stdout, progress and diagnostics to stderr.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from concur.sim.cli.options import Jobs, Overrides, ScenarioFile
from concur.sim.errors import ExtraMissingError, ScenarioError
from concur.sim.lab.held_out import check
from concur.sim.record.provenance import git_commit
from concur.sim.runs.parallel import LocalWorkers
from concur.sim.runs.progress import counting, say, tallying, warn
from concur.sim.runs.seeds import read_seeds
from concur.sim.scenario.build import build_workloads
from concur.sim.scenario.scenario import Scenario, load_scenario
from concur.sim.show.remarks import warnings_of_workloads
from concur.sim.show.report import check_report_folder
from concur.sim.show.tables import print_tables

app = typer.Typer()


@app.command()
def tune(
    scenario: ScenarioFile,
    controller: Annotated[
        str, typer.Option("--controllers", metavar="POLICY", help="The law: concur, hybrid, agent_cap, ...")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A page, trials, best.toml, sensitivity.png.")
    ],
    objectives: Annotated[
        str,
        typer.Option("--objective", "--objectives", metavar="METRIC[,METRIC]", help="As in run.json."),
    ] = "makespan_s",
    num_trials: Annotated[int, typer.Option("--trials", min=1, help="The defaults are the first.")] = 60,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="N[,N]|N..N", help="To tune on; default 0,1.")
    ] = None,
    held_out_seeds: Annotated[
        str | None, typer.Option("--held-out-seeds", metavar="N[,N]|N..N", help="Default 100..104.")
    ] = None,
    overrides: Overrides = None,
    jobs: Jobs = None,
) -> None:
    """Search a law's parameters, and check the best on seeds that it was not tuned on.

    DIR/best.toml has the section to paste. Stopped, the same command goes on, up to --trials. Several
    objectives give a Pareto front; best.toml is then the best of it in the first.
    """
    try:
        from concur.sim.lab import tune as tuning  # needs the extra `tune`
        from concur.sim.lab import tune_report as report
        from concur.sim.lab.tune_figures import write_sensitivity
        from concur.sim.lab.tune_page import write_tune_page
    except ImportError as error:
        raise ExtraMissingError(error, extra="tune") from None
    config = load_scenario(scenario, overrides or ())
    on, held_out = _seeds(config, seeds, held_out_seeds)
    check_report_folder(out)
    workers = LocalWorkers(jobs)
    with _saying_what_is_kept(out):
        workloads = build_workloads(config, on)
        warn(warnings_of_workloads(workloads))
        question = tuning.ask(config, controller, objectives.split(","), workloads)
        num_done = len(tuning.trials_in(question, out))  # refuses another question's folder, before the bar
        with counting(f"tuning {question.policy}", num_trials) as advance:
            advance.to(num_done)
            trials = tuning.search(question, out, num_trials=num_trials, workers=workers, on_done=advance.to)
        if doubt := report.doubt_of_code(trials, today=git_commit()):
            say(doubt)
        front = tuning.front(question, trials)
        report.write_trials(question, trials, out / "trials.parquet")
        report.write_best(question, trials, front[0], out / "best.toml")
        shares = tuning.importances(question, trials)
        write_sensitivity(question, trials, front[0], shares, out / "sensitivity.png")
        print_tables(report.best_table(question, trials, front))
        with tallying("checking on other seeds, against the best static caps") as on_run:
            checked = check(
                config,
                start=question.start,
                tuned=question.controller(front[0].parameters),
                tuning_seeds=on,
                seeds=held_out or on,
                objective=question.objectives[0],
                is_higher_better=question.objectives[0] in tuning.HIGHER_IS_BETTER,
                workers=workers,
                on_run=on_run,
            )
    print_tables(report.check_table(question, checked, is_held_out=bool(held_out)))
    print(report.verdicts(question, checked, is_held_out=bool(held_out)))
    warnings = [*warnings_of_workloads(workloads), *([doubt] if doubt else [])]
    page = write_tune_page(
        question, trials, front, checked, out, is_held_out=bool(held_out), warnings=warnings
    )
    print(f"section to paste: {out / 'best.toml'}")
    print(f"page: {page}")


@contextmanager
def _saying_what_is_kept(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        is_begun = (out / "study.log").exists()
        say(
            f"finished trials are kept in {out}; the same command continues"
            if is_begun
            else "stopped before the first trial; nothing is kept, the same command starts anew"
        )
        raise


def _seeds(config: Scenario, on: str | None, held_out: str | None) -> tuple[list[int], list[int]]:
    """Return the seeds to tune on and to check on, none of the latter where all draws are the same."""
    if config.workload.trace is not None and config.workload.arrival == "batch":
        if on is not None or held_out is not None:
            raise ScenarioError(
                "a trace that arrives as a batch is the same on every seed; leave out --seeds and "
                "--held-out-seeds, nothing can be held out"
            )
        say("a trace is the same on every seed: no held-out check is possible")
        return [config.seed], []
    tuning, checking = (
        read_seeds("0,1" if on is None else on, "--seeds"),
        read_seeds("100..104" if held_out is None else held_out, "--held-out-seeds"),
    )
    both = sorted(set(tuning) & set(checking))
    if both:
        raise ScenarioError(f"seed {both[0]} is to tune on and held out; a gain on it would prove nothing")
    return tuning, checking
