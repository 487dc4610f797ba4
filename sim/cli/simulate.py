"""The verb `concur simulate`. Results go to stdout, progress and diagnostics to stderr."""

import json
from pathlib import Path
from typing import Annotated

import typer

from concur.sim.cli.options import Json, Overrides, ScenarioFile
from concur.sim.record.record import RunRecord, check_writable, write_record
from concur.sim.runs.progress import counting, say, say_if_many, warn
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario, load_scenario
from concur.sim.show.engines_table import engines_tables
from concur.sim.show.tables import metrics_table, phase_table, print_tables
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate as run_scenario

app = typer.Typer()


@app.command()
def simulate(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Folder of the record; default runs/NAME.")
    ] = None,
    as_json: Json = False,
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
        print_tables(metrics_table(record), *engines_tables([record]), phase_table([record]))
        print(f"record: {folder}")


def _simulated(config: Scenario, workload: Workload) -> RunRecord:
    with counting(f"simulating {config.controller.label}", len(workload.agents)) as advance:
        return run_scenario(
            config,
            workload,
            on_progress=lambda done, _all: advance.to(done),
            on_warning=lambda warning: advance.say(f"concur: warning: {warning}"),
        )
