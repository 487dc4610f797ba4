"""The report: figures for papers, and one self-contained page with plots to look into."""

import html
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.record.record import RunRecord
from concur.sim.show.engines_table import engines_tables
from concur.sim.show.facts import facts, head_html
from concur.sim.show.figures import (
    cap_curve_figure,
    overview_figure,
    style,
    time_split_figure,
    timeline_figure,
    write_figure,
)
from concur.sim.show.front import verdict
from concur.sim.show.pages import html_table, page_text, plots_html, warnings_html
from concur.sim.show.plot_data import plot_data
from concur.sim.show.remarks import warnings_of_runs
from concur.sim.show.tables import comparison_table, metrics_table, phase_table
from concur.sim.show.time_table import time_split_table

_FEW_RUNS: Final = 6


def write_report(
    records: Sequence[RunRecord], folder: Path, *, on_progress: Callable[[], None] = lambda: None
) -> Path:
    """Write `index.html` and its figures as PNG and PDF into `folder`; return the page's path.

    A run that did not come to its end is shown as far as it went, and marked.

    Raises
    ------
    RecordError
        If there is no record, one of them holds nothing to draw, or the folder cannot be written.
    """
    if not records:
        raise RecordError("no run record given; name at least one folder with run.json")
    records = [_marked(record) for record in records]
    check_report_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = []
        for name, figure in _figures(records):
            write_figure(figure, folder / f"{name}.png")
            names.append(name)
            on_progress()
        page = folder / "index.html"
        with whole_file(page, RecordError) as temporary:
            temporary.write_text(_page(records, names), encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written ({error}); choose another --out") from None
    return page


def check_report_folder(folder: Path) -> None:
    """Refuse a folder that a report could not be written to.

    Raises
    ------
    RecordError
        If it is a file, or below one, or in a folder that cannot be written to.
    """
    ancestor = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not ancestor.is_dir():
        raise RecordError(f"{folder}: {ancestor} is a file; choose another --out")
    if not os.access(ancestor, os.W_OK):
        raise RecordError(f"{folder}: {ancestor} cannot be written to; choose another --out")


def num_figures(records: Sequence[RunRecord]) -> int:
    """Return how many figures the report will have."""
    return len(records) + (3 if len(records) > 1 else 1)


def _figures(records: Sequence[RunRecord]) -> Iterator[tuple[str, Figure]]:
    with style():
        if len(records) > 1:
            yield "overview", overview_figure(records)
            yield "throughput_against_cap", cap_curve_figure(records)
        yield "time_split", time_split_figure(records)
        for record in records:
            yield f"timeline_{_file_name(record.label)}", timeline_figure(record)


def _page(records: Sequence[RunRecord], names: Iterable[str]) -> str:
    several = len(records) > 1
    source = records[0].run["workload"]["source"]
    title = f"{source}: {len(records)} policies" if several else f"{source}: {records[0].label}"
    first = comparison_table(records) if several else metrics_table(records[0])
    rule = html.escape(records[0].metrics["phases"]["rule"])
    phases = html_table(phase_table(records)) + f'<p class="rule">Rule: {rule}.</p>'
    scenario = html.escape(json.dumps(records[0].run["scenario"], indent=1))
    parts = [
        head_html(facts(records), verdict(records)),
        html_table(first, is_short=True),
        plots_html(),
        _folded("The same in seconds", html_table(time_split_table(records)), is_open=not several),
        *_engines(records),
        "<h2>Phases</h2>",
        _folded("Warm-up, middle and cool-down of each run", phases, is_open=len(records) <= _FEW_RUNS),
        "<h2>Further</h2>",
        _folded(f"Scenario of {html.escape(records[0].label)}", f"<pre tabindex=0>{scenario}</pre>"),
        _folded("Figures for a paper", f"<p>Beside this page: {links(names)}.</p>"),
        warnings_html(warnings_of_runs(records)),
    ]
    return page_text(title, "\n".join(parts), runs=plot_data({f"{records[0].run['seed']}": records}))


def _engines(records: Sequence[RunRecord]) -> Iterator[str]:
    for table in engines_tables(records):
        yield "<h2>Engines</h2>"
        yield _folded("What each engine did", html_table(table), is_open=len(records) <= _FEW_RUNS)


def _folded(summary: str, body: str, *, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{summary}</summary>{body}</details>"


def links(names: Iterable[str]) -> str:
    """Return links to the figures beside a page, PNG and PDF."""
    return ", ".join(
        f'<a href="{name}.png">{html.escape(name)}</a> (<a href="{name}.pdf">PDF</a>)' for name in names
    )


def _marked(record: RunRecord) -> RunRecord:
    """Say in label and warnings that a run is not complete, if it is not."""
    if record.timeline.empty:
        raise RecordError(f"{record.label} holds no sample of its timeline; run it again")
    if record.is_complete:
        return record
    num_ended = len(record.agents)
    num_agents = num_ended + len(record.run.get("failures", ()))
    told = f"{record.label} is not complete: {num_ended} of {num_agents} agents came to their end"
    changed = {"label": f"{record.label} (incomplete)", "warnings": [told, *record.run["warnings"]]}
    return replace(record, run=record.run | changed)


def _file_name(label: str) -> str:
    return "".join(character if character.isalnum() or character in "-_" else "_" for character in label)
