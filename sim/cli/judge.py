"""The verb `concur judge`: laws against the best static cap, over many cases.

Results go to stdout, progress and diagnostics to stderr.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from concur.sim.cli.examples import or_example
from concur.sim.cli.options import TAKES_POLICIES, Controllers, Jobs, Json, Overrides, Seeds
from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.lab.judge import Verdict, judge, load_cases
from concur.sim.lab.judge_table import cases_table, judgement, summary_table
from concur.sim.lab.sweep import Store
from concur.sim.runs.parallel import LocalWorkers
from concur.sim.runs.progress import say, tallying
from concur.sim.runs.seeds import read_seeds
from concur.sim.show.report import check_report_folder
from concur.sim.show.tables import print_tables

FILE: Final = "judge.json"

app = typer.Typer()


@app.command("judge", context_settings=TAKES_POLICIES)
def run(
    words: Annotated[
        list[str], typer.Argument(metavar="CASES.toml...", help="Grids, or scenarios, to judge on.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Finished runs, and judge.json.")],
    overrides: Overrides = None,
    controllers: Controllers = None,
    seeds: Seeds = None,
    jobs: Jobs = None,
    as_json: Json = False,
) -> None:
    """Judge laws on every point of some grids, each against the static cap that is best there.

    The caps are found by search, by their mean makespan over the seeds. Of grids and scenarios the policies
    and seeds are those in the file, or what the options say. Stopped, the same command goes on where it was.
    """
    files, policies = _files_and_policies(words, controllers)
    chosen = () if seeds is None else read_seeds(seeds, "--seeds")
    cases = [
        case
        for path in files
        for case in load_cases(path, overrides=overrides or (), policies=policies, seeds=chosen)
    ]
    check_report_folder(out / "runs")
    store = Store(out)
    say(f"{len(cases)} cases")
    verdicts: list[Verdict] = []
    try:
        with tallying("judging") as advance:
            for verdict in judge(cases, store, workers=LocalWorkers(jobs), on_run=advance):
                verdicts.append(verdict)
                _write(verdicts, out)
    except KeyboardInterrupt:
        say(f"stopped after {len(verdicts)} of {len(cases)} cases; the same command continues")
        _show(verdicts, as_json=as_json)
        raise
    _show(verdicts, as_json=as_json)
    if (
        remark := store.remark_on_commits({commit for each in verdicts for commit in each.commits})
    ) is not None:
        say(remark)


def _files_and_policies(
    words: Sequence[str], controllers: Sequence[str] | None
) -> tuple[list[Path], list[str]]:
    """Tell the files from the policies that follow `--controllers`, which takes all words after it."""
    files = [or_example(Path(word)) for word in words if word.endswith(".toml")]
    others = [word for word in words if not word.endswith(".toml")]
    if others and not controllers:
        raise typer.BadParameter(f"unexpected {others[0]!r}; policies come after --controllers")
    if not files:
        raise typer.BadParameter("name at least one grid or scenario to judge on")
    return files, [*(controllers or ()), *others]


def _write(verdicts: Sequence[Verdict], folder: Path) -> None:
    with whole_file(folder / FILE, RecordError) as temporary:
        temporary.write_text(json.dumps(judgement(verdicts), indent=1) + "\n", encoding="utf-8")


def _show(verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    if not verdicts:
        return
    if as_json:
        print(json.dumps(judgement(verdicts), indent=1))
    else:
        print_tables(cases_table(verdicts), summary_table(verdicts))
