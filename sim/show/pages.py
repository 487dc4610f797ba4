"""Parts of self-contained HTML pages, in one style."""

import base64
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

from rich.table import Table

from concur.sim.show.glossary import glossary

_ASSETS: Final = Path(__file__).with_name("assets")
_PAGE: Final = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>
$style</style></head><body>
<header class="top"><h1>$title</h1>
<button id="theme" type="button" aria-label="light or dark">\u25d0</button></header>
<main>
$body
</main>
$scripts
</body></html>
""")


def page_text(title: str, body: str, *, runs: Sequence[Any] = (), points: Sequence[Any] = ()) -> str:
    """Return a self-contained HTML page in the project's style around `body`, which is HTML.

    Its tables sort, its words explain themselves, it has a light and a dark form, and it loads nothing.
    `runs` is what `plots_html` draws, `points` what `points_html` does, see `concur.sim.show.plot_data`.
    """
    data = {name: value for name, value in {"runs": runs, "points": points}.items() if value}
    style = _asset("page.css") + (_asset("uplot.min.css") if data else "")
    scripts = [as_script("glossary", glossary()), *(as_script(name, value) for name, value in data.items())]
    plots = {"runs": "plots.js", "points": "points.js"}
    names = ("page.js", *(("uplot.min.js", "drawing.js") if data else ()), *(plots[name] for name in data))
    scripts += [f"<script>\n{_asset(name)}</script>" for name in names]
    return _PAGE.substitute(title=html.escape(title), body=body, style=style, scripts="\n".join(scripts))


def as_script(name: str, value: Any) -> str:
    """Return JSON as an element of a page that no text within can end."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def plots_html(*, group: str = "seed") -> str:
    """Return the places of the plots, and the switches above them; `group` is what they switch between."""
    return _asset("plots.html").replace("$group", html.escape(group))


def points_html(heading: str = "The knee of one grid point") -> str:
    """Return the place of the plot of a sweep's grid points, and its switch where there are several."""
    return _asset("points.html").replace("$heading", html.escape(heading))


def warnings_html(warnings: Iterable[str]) -> str:
    """Return all that a reader should know of the runs, as one box; nothing where there is nothing."""
    lines = "".join(f"<li>{html.escape(warning)}</li>" for warning in dict.fromkeys(warnings))
    heading = "<h2>What to know of these runs</h2>"
    return f'<section class="warning">{heading}<ul>{lines}</ul></section>' if lines else ""


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


_NOTEBOOK_STYLE: Final = """<style scoped>
.concur-table { overflow-x: auto }
.concur-table td, .concur-table th { white-space: nowrap; padding: .3em .45em; font-size: 12px }
.concur-table th:first-child, .concur-table td:first-child { text-align: left }
.concur-table .caption { white-space: pre-line; max-width: 50rem; font-size: 12px; opacity: .8 }
</style>"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A terminal table as a notebook shows it."""

    table: Table

    def _repr_html_(self) -> str:
        return f'{_NOTEBOOK_STYLE}<div class="concur-table">{html_table(self.table)}</div>'


def html_table(table: Table, *, is_short: bool = False) -> str:
    """Render a terminal table as HTML, the same numbers in both places; `is_short`: a caption of one line."""
    headings = "".join(f'<th scope="col">{html.escape(str(column.header))}</th>' for column in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table_rows(table)
    )
    head = f"<thead><tr>{headings}</tr></thead>" if table.show_header else ""
    lines = str(table.caption or "").splitlines()
    text = html.escape("\n".join(lines[:1] if is_short else lines))
    label = html.escape(str(table.title or "table"))
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table>{head}<tbody>{body}</tbody></table></div>"
        f"{f'<p class=caption>{text}</p>' if text else ''}"
    )


def table_rows(table: Table) -> list[list[str]]:
    """Return the cells of a terminal table as text, row by row."""
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return [[str(cell) for cell in row] for row in rows]


def embedded_image(data: bytes, name: str) -> str:
    """Return a PNG as an HTML element that needs no file."""
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{encoded}">'
