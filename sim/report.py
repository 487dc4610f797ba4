"""The report: PNG figures and one self-contained HTML page, from run records alone."""

import base64
import html
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Final

from matplotlib.figure import Figure
from rich.table import Table

from sim.errors import RecordError
from sim.figures import cap_curve_figure, overview_figure, style, time_split_figure, timeline_figure
from sim.record import RunRecord
from sim.tables import comparison_table, metrics_table, phase_table

_PAGE: Final = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title><style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 68rem; color: #222;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
caption { caption-side: bottom; text-align: left; color: #666; padding-top: .4rem; white-space: pre-line }
img { max-width: 100%; height: auto } .warning { background: #fff3cd; padding: .5rem .8rem }
summary { cursor: pointer; margin: .5rem 0 } pre { background: #f6f6f6; padding: .8rem; overflow-x: auto }
</style></head><body><h1>$title</h1>
$body
</body></html>
""")


def write_report(
    records: Sequence[RunRecord], folder: Path, *, on_progress: Callable[[], None] = lambda: None
) -> Path:
    """Write `index.html` and its figures as PNG into `folder`; return the page's path.

    Raises
    ------
    RecordError
        If there is no record, or the folder cannot be written.
    """
    if not records:
        raise RecordError("no run record given; name at least one folder with run.json")
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
        partial = folder / ".index.html.partial"
        partial.write_text(_page(records, images), encoding="utf-8")
        partial.rename(page)
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written ({error}); choose another --out") from None
    return page


def check_report_folder(folder: Path) -> None:
    """Refuse a folder that a report could not be written to.

    Raises
    ------
    RecordError
        If it is a file, or below one.
    """
    ancestor = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not ancestor.is_dir():
        raise RecordError(f"{folder}: {ancestor} is a file; choose another --out")


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
            parts.append(f"<h2>{html.escape(name.replace('_', ' '))}</h2>{_image(data, name)}")
    parts.append("<h2>phases</h2>" + html_table(phase_table(records)))
    parts.append(f"<p>Rule: {html.escape(records[0].metrics['phases']['rule'])}.</p><h2>timelines</h2>")
    timelines = [(name, data) for name, data in images.items() if name.startswith("timeline")]
    for (name, data), record in zip(timelines, records, strict=True):
        is_open = " open" if record.label in ("none", "concur") or not several else ""
        parts.append(
            f"<details{is_open}><summary>{html.escape(record.label)}</summary>{_image(data, name)}</details>"
        )
    scenario = html.escape(json.dumps(records[0].run["scenario"], indent=1))
    parts.append(f"<h2>scenario of {html.escape(records[0].label)}</h2><pre>{scenario}</pre>")
    return page_text(title, "\n".join(parts))


def page_text(title: str, body: str) -> str:
    """Return a self-contained HTML page in the project's style around `body`, which is HTML."""
    return _PAGE.substitute(title=html.escape(title), body=body)


def _warnings(records: Sequence[RunRecord]) -> str:
    warnings = dict.fromkeys(warning for record in records for warning in record.run["warnings"])
    return "".join(f'<p class="warning">{html.escape(warning)}</p>' for warning in warnings)


def html_table(table: Table) -> str:
    """Render a terminal table as HTML: the same numbers in both places."""
    headings = "".join(f"<th>{html.escape(str(column.header))}</th>" for column in table.columns)
    rows = zip(*(column.cells for column in table.columns), strict=True)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    head = f"<thead><tr>{headings}</tr></thead>" if table.show_header else ""
    caption = f"<caption>{html.escape(str(table.caption or ''))}</caption>"
    return f"<table>{caption}{head}<tbody>{body}</tbody></table>"


def _image(data: bytes, name: str) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{encoded}">'


def _file_name(label: str) -> str:
    return "".join(character if character.isalnum() or character in "-_" else "_" for character in label)
