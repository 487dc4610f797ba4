"""What a search leaves behind: tables for the terminal, the trials, and a section to paste."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.lab.held_out import START, TUNED, Check, verdict
from concur.sim.lab.tune import HIGHER_IS_BETTER, Question, Trial
from concur.sim.lab.tune_space import Value
from concur.sim.record.provenance import short_commit, versions
from concur.sim.runs.intervals import Interval, metric_interval
from concur.sim.show.tables import plus_minus


def best_table(question: Question, trials: Sequence[Trial], front: Sequence[Trial]) -> Table:
    """Return the start and the front of the search: parameters, and objectives on the tuning seeds."""
    seeds = ", ".join(map(str, question.workloads))
    caption = f"{len(trials)} trials, means over the tuning seeds {seeds}"
    table = Table(title=f"{question.policy}, tuned", caption=caption)
    for heading in ("trial", *question.space, *question.objectives):
        table.add_column(heading, justify="right")
    shown = [trials[0], *(trial for trial in front if trial.number != 0)]
    for trial in shown:
        name = f"{trial.number}, the start" if trial.number == 0 else str(trial.number)
        cells = [*trial.parameters.values(), *trial.values]
        table.add_row(name, *map(_cell, cells), style="bold" if trial is front[0] else None)
    return table


def check_table(question: Question, check: Check, *, is_held_out: bool) -> Table:
    """Return start, tuned law and static caps on the seeds of the check, with paired 95 % intervals."""
    objective = question.objectives[0]
    seeds = ", ".join(map(str, check.runs[START]))
    kind = "held-out" if is_held_out else "the tuning"
    table = Table(
        title=f"on {kind} seeds {seeds}",
        caption="mean and 95 % interval (Student's t); gains and best caps are by "
        f"{objective}; gains are paired by seed, above 1 is better",
    )
    table.add_column("policy")
    for heading in dict.fromkeys(("makespan_s", objective)):
        table.add_column(heading, justify="right")
    for heading in ("gain over start", "over the cap of the tuning seeds", "over the cap in hindsight"):
        table.add_column(heading, justify="right")
    for name, runs in check.runs.items():
        values = [
            plus_minus(metric_interval(runs, metric), 2)
            for metric in dict.fromkeys(("makespan_s", objective))
        ]
        gains = [
            plus_minus(gain(question, check, name, baseline), 3)
            for baseline in (START, check.deployed_cap, check.hindsight_cap)
        ]
        table.add_row(_name(name, check), *values, *gains, style="bold" if name == TUNED else None)
    return table


def gain(question: Question, check: Check, name: str, baseline: str) -> Interval | None:
    """Return the gain of one policy of the check over another one, by the first objective."""
    objective = question.objectives[0]
    return check.gain(name, baseline, objective, is_higher_better=objective in HIGHER_IS_BETTER)


def verdicts(question: Question, check: Check, *, is_held_out: bool) -> str:
    """Say whether the tuned law's gains over the start and over the best caps hold."""
    baselines = {
        START: "the start",
        check.deployed_cap: f"the cap that was best on the tuning seeds ({check.deployed_cap})",
        check.hindsight_cap: f"the best cap in hindsight ({check.hindsight_cap})",
    }
    said = [verdict(gain(question, check, TUNED, baseline), name) for baseline, name in baselines.items()]
    if not is_held_out:
        said.append("This is the workload it was tuned on: a trace has no other draw to check it with.")
    return "\n".join(said)


def provenance(question: Question, trials: Sequence[Trial], best: Trial) -> list[str]:
    """Say in a few lines where a tuned law came from."""
    seeds = ", ".join(map(str, question.workloads))
    source = next(iter(question.workloads.values())).source
    before_after = ", ".join(
        f"{name} {_cell(old)} -> {_cell(new)}"
        for name, old, new in zip(question.objectives, trials[0].values, best.values, strict=True)
    )
    return [
        f"concur tune --controllers {question.policy}: trial {best.number} of {len(trials)}",
        f"{source}, tuning seeds {seeds}: {before_after}",
        f"concur-admission {versions()['concur']}, commit {best.git_commit or 'unknown'}",
    ]


def doubt_of_code(trials: Sequence[Trial], *, today: str | None) -> str | None:
    """Say that trials kept from before, and today's check, are of different code; `None` if they are not."""
    commits = {trial.git_commit for trial in trials} | {today}
    if len(commits) == 1:
        return None
    names = ", ".join(sorted(map(short_commit, commits)))
    return f"trials and check are of several commits ({names}); choose another --out to make all anew"


def write_best(question: Question, trials: Sequence[Trial], best: Trial, path: Path) -> None:
    """Write the law with the best parameters as a `[controller]` section, under where it came from."""
    law = question.controller(best.parameters)
    lines = [f"# {line}" for line in provenance(question, trials, best)]
    lines += ["[controller]", f"kind = {json.dumps(law.kind)}"]
    lines += [f"wrappers = {json.dumps(list(law.wrappers))}"] if law.wrappers else []
    lines += [f"{name} = {json.dumps(value)}" for name, value in law.parameters.items()]
    with whole_file(path, RecordError) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_trials(question: Question, trials: Sequence[Trial], path: Path) -> None:
    """Write one row per trial: its number, the parameters, the objectives' means, the commit that made it."""
    columns: dict[str, Any] = {"trial": [trial.number for trial in trials]}
    columns |= {name: [trial.parameters[name] for trial in trials] for name in question.space}
    for number, name in enumerate(question.objectives):
        columns[name] = [trial.values[number] for trial in trials]
    columns["git_commit"] = pa.array([trial.git_commit for trial in trials], pa.string())
    with whole_file(path, RecordError) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def _name(name: str, check: Check) -> str:
    if name in (START, TUNED):
        return f"{next(iter(check.runs[name].values())).label}, {name}"
    notes = ["best on the tuning seeds"] if name == check.deployed_cap else []
    notes += ["best in hindsight"] if name == check.hindsight_cap else []
    return f"{name}, {' and '.join(notes)}"


def _cell(value: Value) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if abs(value) < 100 else f"{value:,.1f}"
