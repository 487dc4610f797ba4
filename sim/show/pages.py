"""Parts of self-contained HTML pages, in one style."""

import base64
import html
from dataclasses import dataclass
from string import Template
from typing import Final

from rich.table import Table

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


def page_text(title: str, body: str) -> str:
    """Return a self-contained HTML page in the project's style around `body`, which is HTML."""
    return _PAGE.substitute(title=html.escape(title), body=body)


_NOTEBOOK_STYLE: Final = """<style scoped>
.concur-table { overflow-x: auto }
.concur-table td, .concur-table th { white-space: nowrap; padding: .3em .45em; font-size: 12px }
.concur-table th:first-child, .concur-table td:first-child { text-align: left }
.concur-table caption { caption-side: bottom; text-align: left; white-space: pre-line; max-width: 50rem }
</style>"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A terminal table as a notebook shows it."""

    table: Table

    def _repr_html_(self) -> str:
        return f'{_NOTEBOOK_STYLE}<div class="concur-table">{html_table(self.table)}</div>'


def html_table(table: Table) -> str:
    """Render a terminal table as HTML: the same numbers in both places."""
    headings = "".join(f"<th>{html.escape(str(column.header))}</th>" for column in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table_rows(table)
    )
    head = f"<thead><tr>{headings}</tr></thead>" if table.show_header else ""
    caption = f"<caption>{html.escape(str(table.caption or ''))}</caption>"
    return f"<table>{caption}{head}<tbody>{body}</tbody></table>"


def table_rows(table: Table) -> list[list[str]]:
    """Return the cells of a terminal table as text, row by row."""
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return [[str(cell) for cell in row] for row in rows]


def embedded_image(data: bytes, name: str) -> str:
    """Return a PNG as an HTML element that needs no file."""
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{encoded}">'
