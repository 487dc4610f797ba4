"""The page of a search: what was tuned and on what, whether the gain holds elsewhere, and the trials."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.lab.held_out import Check
from concur.sim.lab.tune import Question, Trial
from concur.sim.lab.tune_report import best_table, check_table, verdicts
from concur.sim.show.facts import facts_of, head_html, planned
from concur.sim.show.pages import embedded_image, html_table, page_text, warnings_html
from concur.sim.show.remarks import warnings_of_runs


def write_tune_page(
    question: Question,
    trials: Sequence[Trial],
    front: Sequence[Trial],
    check: Check,
    folder: Path,
    *,
    is_held_out: bool,
    warnings: Iterable[str],
) -> Path:
    """Write `index.html` beside `best.toml` and `sensitivity.png`, which are there already; return its path.

    Raises
    ------
    RecordError
        If the folder cannot be written.
    """
    told = verdicts(question, check, is_held_out=is_held_out).splitlines()
    section = (folder / "best.toml").read_text(encoding="utf-8")
    figure = (folder / "sensitivity.png").read_bytes()
    checked = [record for runs in check.runs.values() for record in runs.values()]
    parts = [
        head_html(facts_of(planned(question.scenario, question.workloads)), told[0]),
        *(f"<p>{html.escape(line)}</p>" for line in told[1:]),
        html_table(check_table(question, check, is_held_out=is_held_out)),
        "<h2>The search</h2>",
        html_table(best_table(question, trials, front)),
        embedded_image(figure, f"{question.objectives[0]} of every trial against each parameter"),
        f"<h2>Section to paste</h2><pre tabindex=0>{html.escape(section)}</pre>",
        warnings_html([*warnings, *warnings_of_runs(checked)]),
    ]
    page = folder / "index.html"
    with whole_file(page, RecordError) as temporary:
        temporary.write_text(page_text(f"{question.policy}, tuned", "\n".join(parts)), encoding="utf-8")
    return page
