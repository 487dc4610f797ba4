"""The confrontation as a table and as one self-contained page."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure as Drawing
from rich.table import Table

from sim.figures import png_bytes, style
from sim.files import whole_file
from sim.pages import embedded_image, html_table, page_text
from sim.record import RunRecord
from sim.tables import percent
from validate.confront import Confrontation, Figure
from validate.errors import ConfrontError
from validate.overlay import over_time_figure, overlay_figure


def confrontation_table(result: Confrontation) -> Table:
    """Return one row per policy: both worlds, the error, and the live repeats' range."""
    table = Table(title="simulated against live", caption=_conclusions(result))
    table.add_column("policy")
    for heading in ("makespan s", "live", "range", "error", "hits", "live", "error", ""):
        table.add_column(heading, justify="right")
    for each in result.policies:
        makespan, hits = each.figures["makespan_s"], each.figures["hit_rate"]
        table.add_row(
            each.label,
            f"{makespan.simulated:,.1f}",
            f"{makespan.live_median:,.1f}",
            f"{min(makespan.live):,.1f}-{max(makespan.live):,.1f}",
            f"{100 * makespan.error_frac:+.1f} %",
            percent(hits.simulated),
            percent(hits.live_median),
            f"{100 * hits.error:+.1f}",
            "ok" if each.is_right else "OFF",
        )
    return table


def write_confrontation(
    result: Confrontation, simulated: Sequence[RunRecord], live: Sequence[RunRecord], folder: Path
) -> Path:
    """Write `overlay.png` and `index.html` into `folder`; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [html_table(confrontation_table(result))]
    with style():
        for name, figure in _figures(result, simulated, live):
            data = png_bytes(figure)
            (folder / f"{name}.png").write_bytes(data)
            parts.append(embedded_image(data, name))
    page = folder / "index.html"
    with whole_file(page, ConfrontError) as temporary:
        temporary.write_text(page_text("simulated against live", "\n".join(parts)), encoding="utf-8")
    return page


def _figures(
    result: Confrontation, simulated: Sequence[RunRecord], live: Sequence[RunRecord]
) -> Iterator[tuple[str, Drawing]]:
    yield "overlay", overlay_figure(result, simulated, live)
    for record in simulated:
        runs = [each for each in live if each.label == record.label]
        if runs:
            yield f"over_time_{record.label.replace('=', '_')}", over_time_figure(record.label, record, runs)


def _conclusions(result: Confrontation) -> str:
    lines = [f"{'all within tolerance' if result.ok else 'NOT all within tolerance'}"]
    if result.knees:
        lines.append(f"best static cap: simulated {result.knees[0]}, live {result.knees[1]}")
    pairs = ", ".join(" and ".join(pair) for pair in result.misranked)
    lines.append(f"in opposite order: {pairs}" if pairs else "same order, as far as the live repeats tell")
    lines += [f"{label} against none: {_ratio(figure)}" for label, figure in result.speed_ups.items()]
    return "\n".join(lines)


def _ratio(figure: Figure) -> str:
    error = f"{100 * figure.error_frac:+.1f} %"
    return f"simulated {figure.simulated:.2f}x, live {figure.live_median:.2f}x ({error})"
