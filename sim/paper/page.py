"""What `concur paper` leaves behind: figures as PDF and PNG, `paper.json`, `README.md`, `index.html`."""

import html
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure
from rich.table import Table

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.paper.figures import FIGURES
from concur.sim.paper.parts import Part, findings_table, verdicts_table
from concur.sim.paper.settings import ASSUMPTIONS, PROFILES, READINGS
from concur.sim.paper.verdict import RULE
from concur.sim.record.provenance import git_commit, short_commit, versions
from concur.sim.show.facts import head_html, merged_facts, profile_facts
from concur.sim.show.figures import style
from concur.sim.show.pages import embedded_image, html_table, page_text, table_rows
from concur.sim.step_time.profile import load_profile

_DPI: Final = 300
_TITLE: Final = "The CONCUR paper's tables and figures, simulated"


def write_results(
    parts: Sequence[Part],
    folder: Path,
    *,
    seeds: Sequence[int],
    on_progress: Callable[[], None] = lambda: None,
) -> Path:
    """Write everything into `folder`, each file whole or not at all; return the page's path.

    Raises
    ------
    RecordError
        If the folder cannot be written.
    """
    images: dict[str, bytes] = {}
    for part in parts:
        with style():
            figure = FIGURES[part.name](part)
            for suffix in ("pdf", "png"):
                data = _drawn(figure, suffix)
                _write(folder / f"{part.name}.{suffix}", data)
            images[part.name] = data
        on_progress()
    provenance = _provenance(seeds)
    _write(folder / "paper.json", _json(parts, provenance).encode())
    _write(folder / "README.md", markdown(parts, provenance).encode())
    page = folder / "index.html"
    _write(page, _page(parts, images, provenance).encode())
    return page


def tables_of(part: Part) -> list[Table]:
    """Return the part's own tables, and the one beside the printed numbers."""
    return [*part.tables, *([findings_table(part.findings)] if part.findings else [])]


def markdown(parts: Sequence[Part], provenance: Mapping[str, Any]) -> str:
    """Return everything but the figures' data as a page of Markdown."""
    lines = [f"# {_TITLE}", ""]
    lines += [line for text in _preface(provenance) for line in (text, "")]
    lines += [_markdown_table(verdicts_table(parts)), ""]
    for part in parts:
        lines += [f"## {part.title}", "", f"![{part.title}]({part.name}.png)", ""]
        for table in tables_of(part):
            lines += [_markdown_table(table), ""]
    lines += ["## Assumptions", "", "| what | value | why |", "|---|---|---|"]
    lines += [f"| {what} | {value} | {why} |" for what, value, why in ASSUMPTIONS]
    return "\n".join(lines) + "\n"


def _drawn(figure: Figure, suffix: str) -> bytes:
    """Return the figure in its exact size, without a date, so that the same numbers give the same bytes."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if suffix == "pdf" else None
    figure.savefig(buffer, format=suffix, dpi=_DPI, metadata=metadata, bbox_inches=figure.bbox_inches)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    with whole_file(path, RecordError) as temporary:
        temporary.write_bytes(data)


def _provenance(seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "seeds": list(seeds),
        "git_commit": git_commit(),
        "versions": versions(),
        "profiles": {name: load_profile(name).sha256 for name in PROFILES},
    }


def _json(parts: Sequence[Part], provenance: Mapping[str, Any]) -> str:
    content = {
        "schema_version": 1,
        **provenance,
        "rule": RULE,
        "readings": dict(READINGS),
        "assumptions": [{"what": what, "value": value, "why": why} for what, value, why in ASSUMPTIONS],
        "findings": [finding.to_json() for part in parts for finding in part.findings],
        "tables": {part.name: [_table_json(table) for table in part.tables] for part in parts},
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _table_json(table: Table) -> dict[str, Any]:
    return {
        "title": str(table.title),
        "caption": str(table.caption),
        "rows": [_headings(table), *table_rows(table)],
    }


def _page(parts: Sequence[Part], images: Mapping[str, bytes], provenance: Mapping[str, Any]) -> str:
    body = [head_html(_facts(provenance), in_a_sentence(parts))]
    body += [f"<p>{html.escape(text)}</p>" for text in _preface(provenance)]
    body.append(html_table(verdicts_table(parts)))
    for part in parts:
        body.append(f"<h2>{html.escape(part.title)}</h2>{embedded_image(images[part.name], part.title)}")
        body += [f"<h3>{html.escape(str(table.title))}</h3>{html_table(table)}" for table in tables_of(part)]
    assumed = Table("what", "value", "why")
    for row in ASSUMPTIONS:
        assumed.add_row(*row)
    body.append(f"<h2>Assumptions</h2>{html_table(assumed)}")
    return page_text(_TITLE, "\n".join(body))


def in_a_sentence(parts: Sequence[Part]) -> str:
    """Return how many of the printed numbers come out again, by verdict."""
    counts = Counter(finding.verdict for part in parts for finding in part.findings)
    told = ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())
    return f"Of {counts.total()} printed numbers: {told}." if counts else "No printed number was compared."


def _facts(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what was simulated, over all settings."""
    machines = merged_facts([profile_facts(load_profile(name)) for name in provenance["profiles"]])
    return {
        **machines,
        "seeds": ", ".join(map(str, provenance["seeds"])),
        "commit": short_commit(provenance["git_commit"]),
    }


def _preface(provenance: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs before the first table: where it is from, the readings, the rule."""
    seeds = ", ".join(map(str, provenance["seeds"]))
    commit = short_commit(provenance["git_commit"])
    signature = (
        f"Made by `concur paper` (concur {provenance['versions']['concur']}, commit {commit}, seeds {seeds}) "
        f"from the step-time profiles {', '.join(provenance['profiles'])}. Printed numbers: "
        "arXiv:2601.22705, graded A (primary text, or two careful readers agree), B (one careful reader), "
        "C (arithmetic on those)."
    )
    readings = " ".join(f"{name.capitalize()}: {text}" for name, text in READINGS.items())
    return [signature, f"Two readings. {readings}", f"Verdicts. {RULE}"]


def _headings(table: Table) -> list[str]:
    return [str(column.header) for column in table.columns]


def _markdown_table(table: Table) -> str:
    lines = [f"**{table.title}**", "", "| " + " | ".join(_headings(table)) + " |"]
    lines.append("|" + "".join("--:|" if c.justify == "right" else "---|" for c in table.columns))
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in table_rows(table)]
    return "\n".join([*lines, "", f"*{table.caption}*"])
