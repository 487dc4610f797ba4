"""The verb `concur validate published`: predictions of what others measured."""

import json
from pathlib import Path
from typing import Annotated

import typer

from concur.sim.cli.options import Jobs, Json, Seeds
from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.runs.parallel import LocalWorkers
from concur.sim.runs.progress import counting, say
from concur.sim.runs.seeds import read_seeds
from concur.sim.show.report import check_report_folder
from concur.sim.show.tables import print_tables
from concur.validate.published.page import write_page
from concur.validate.published.predict import predict
from concur.validate.published.report import draw, prediction_json, prediction_table
from concur.validate.published.table import load_table, table_names


def published(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE...]", help="Which; default: all of them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="A page; for each table a figure and JSON.")
    ] = None,
    seeds: Seeds = "0,1,2",
    jobs: Jobs = None,
    as_json: Json = False,
) -> None:
    """Predict what others measured on real GPUs; exit status 1 if an error breaks its table's rule."""
    chosen = read_seeds(seeds or "", "--seeds")
    tables = {name: load_table(name) for name in names or table_names()}
    if out is not None:
        check_report_folder(out)
    found = {}
    with counting("predicting", sum(len(table.arm) for table in tables.values()) * len(chosen)) as advance:
        for name in tables:
            found[name] = predict(name, chosen, workers=LocalWorkers(jobs), on_run=advance)
    results = {name: prediction_json(tables[name], arms) for name, arms in found.items()}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, arms in found.items():
            draw(tables[name], arms, out / f"{name}.png")
            with whole_file(out / f"{name}.json", RecordError) as temporary:
                temporary.write_text(json.dumps(results[name], indent=1) + "\n", encoding="utf-8")
        say(f"page: {write_page(tables, found, out, seeds=chosen)}")
    if as_json:
        print(json.dumps(results, indent=1))
    else:
        print_tables(*[prediction_table(tables[name], arms) for name, arms in found.items()])
    verdicts = [each.holds for arms in found.values() for arm in arms for each in arm.metrics]
    raise typer.Exit(int(False in verdicts))
