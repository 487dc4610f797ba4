"""The report: PNG figures and one self-contained HTML page, from run records alone."""

import html
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.record.record import RunRecord
from concur.sim.show.figures import (
    cap_curve_figure,
    overview_figure,
    style,
    time_split_figure,
    timeline_figure,
)
from concur.sim.show.pages import embedded_image, html_table, page_text
from concur.sim.show.tables import comparison_table, metrics_table, phase_table


def write_report(
    records: Sequence[RunRecord], folder: Path, *, on_progress: Callable[[], None] = lambda: None
) -> Path:
    """Write `index.html` and its figures as PNG into `folder`; return the page's path.

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
        images = {}
        for name, figure in _figures(records):
            path = folder / f"{name}.png"
            figure.savefig(path)
            images[name] = path.read_bytes()
            on_progress()
        page = folder / "index.html"
        with whole_file(page, RecordError) as temporary:
            temporary.write_text(_page(records, images), encoding="utf-8")
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


def _page(records: Sequence[RunRecord], images: dict[str, bytes]) -> str:
    several = len(records) > 1
    source = records[0].run["workload"]["source"]
    title = f"{source}: {len(records)} policies" if several else f"{source}: {records[0].label}"
    parts = [_warnings(records)]
    parts.append(html_table(comparison_table(records) if several else metrics_table(records[0])))
    for name, data in images.items():
        if not name.startswith("timeline"):
            parts.append(f"<h2>{html.escape(name.replace('_', ' '))}</h2>{embedded_image(data, name)}")
    parts.append("<h2>phases</h2>" + html_table(phase_table(records)))
    parts.append(f"<p>Rule: {html.escape(records[0].metrics['phases']['rule'])}.</p><h2>timelines</h2>")
    timelines = [(name, data) for name, data in images.items() if name.startswith("timeline")]
    for (name, data), record in zip(timelines, records, strict=True):
        is_open = " open" if record.label in ("none", "concur") or not several else ""
        parts.append(
            f"<details{is_open}><summary>{html.escape(record.label)}</summary>"
            f"{embedded_image(data, name)}</details>"
        )
    scenario = html.escape(json.dumps(records[0].run["scenario"], indent=1))
    parts.append(f"<h2>scenario of {html.escape(records[0].label)}</h2><pre>{scenario}</pre>")
    return page_text(title, "\n".join(parts))


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


def _warnings(records: Sequence[RunRecord]) -> str:
    warnings = dict.fromkeys(warning for record in records for warning in record.run["warnings"])
    return "".join(f'<p class="warning">{html.escape(warning)}</p>' for warning in warnings)


def _file_name(label: str) -> str:
    return "".join(character if character.isalnum() or character in "-_" else "_" for character in label)
