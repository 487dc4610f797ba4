"""The confrontation as a table and as one self-contained page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure as Drawing
from rich.table import Table
from rich.text import Text

from concur.sim.files import whole_file
from concur.sim.record.record import RunRecord
from concur.sim.show.facts import facts, head_html
from concur.sim.show.figures import style, write_figure
from concur.sim.show.pages import embedded_image, html_table, page_text, plots_html, warnings_html
from concur.sim.show.plot_data import plot_data
from concur.sim.show.remarks import warnings_of_runs
from concur.sim.show.report import links
from concur.sim.show.tables import percent
from concur.validate.confront.overlay import over_time_figure, overlay_figure
from concur.validate.confront.verdicts import Confrontation, Figure, PolicyVerdict
from concur.validate.errors import ConfrontError


def confrontation_table(result: Confrontation) -> Table:
    """Return one row per policy: both worlds, the error, and the live repeats' range.

    Under it what follows, why a policy is off, and what a reader should know of the runs.
    """
    caption = Text(_conclusions(result))
    table = Table(title="simulated against live", caption=caption, caption_justify="left")
    table.add_column("policy")
    for heading in ("makespan s", "live", "range", "error", "hits", "live", "error", "verdict"):
        table.add_column(heading, justify="right")
    for each in result.policies:
        table.add_row(
            each.label,
            *_makespan_cells(each.figures.get("makespan_s")),
            *_hit_cells(each.figures.get("hit_rate")),
            _verdict(each),
        )
    return table


def _makespan_cells(figure: Figure | None) -> list[str]:
    if figure is None:
        return ["-"] * 4
    return [
        f"{figure.simulated:,.1f}",
        f"{figure.live_median:,.1f}",
        f"{min(figure.live):,.1f}-{max(figure.live):,.1f}",
        f"{100 * figure.error_frac:+.1f} %",
    ]


def _hit_cells(figure: Figure | None) -> list[str]:
    if figure is None:
        return ["-"] * 3
    return [percent(figure.simulated), percent(figure.live_median), f"{100 * figure.error:+.1f}"]


def _verdict(policy: PolicyVerdict) -> str:
    if not policy.is_right:
        return "OFF"
    return "ok, not all judged" if policy.not_judged else "ok"


def write_confrontation(
    result: Confrontation, simulated: Sequence[RunRecord], live: Sequence[RunRecord], folder: Path
) -> Path:
    """Write the figures as PNG and PDF, and `index.html` into `folder`; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        head_html(facts([*simulated, *live]), in_a_sentence(result)),
        html_table(confrontation_table(result)),
        plots_html(group="world"),
        "<h2>One over the other</h2>",
    ]
    images: dict[str, bytes] = {}
    with style():
        for name, figure in _figures(result, simulated, live):
            write_figure(figure, folder / f"{name}.png")
            images[name] = (folder / f"{name}.png").read_bytes()
    parts += [
        embedded_image(images["overlay"], "overlay"),
        f"<p>Figures beside this page: {links(images)}.</p>",
    ]
    parts.append(warnings_html(warnings_of_runs([*simulated, *live])))
    text = page_text("simulated against live", "\n".join(parts), runs=plot_data(_worlds(simulated, live)))
    page = folder / "index.html"
    with whole_file(page, ConfrontError) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def in_a_sentence(result: Confrontation) -> str:
    """Return whether the worlds agree, and where they are furthest apart in makespan."""
    off = [each.label for each in result.policies if not each.is_right]
    errors = {
        each.label: each.figures["makespan_s"].error_frac
        for each in result.policies
        if "makespan_s" in each.figures
    }
    told = f"{len(result.policies)} policies, " + (f"off: {', '.join(off)}" if off else "none of them off")
    if not errors:
        return f"{told}."
    worst = max(errors, key=lambda label: abs(errors[label]))
    return f"{told}; the largest error in makespan is {100 * errors[worst]:+.1f} % ({worst})."


def _worlds(simulated: Sequence[RunRecord], live: Sequence[RunRecord]) -> Mapping[str, Sequence[RunRecord]]:
    """Return both worlds, of the live one the first run of each policy."""
    first = {record.label: record for record in reversed(live)}
    return {
        "simulated": simulated,
        "live, first runs": [first[each.label] for each in simulated if each.label in first],
    }


def _figures(
    result: Confrontation, simulated: Sequence[RunRecord], live: Sequence[RunRecord]
) -> Iterator[tuple[str, Drawing]]:
    yield "overlay", overlay_figure(result, simulated, live)
    for record in simulated:
        runs = [each for each in live if each.label == record.label]
        if runs:
            yield f"over_time_{record.label.replace('=', '_')}", over_time_figure(record.label, record, runs)


def _conclusions(result: Confrontation) -> str:
    all_judged = not any(each.not_judged for each in result.policies)
    within = "all within tolerance" if all_judged else "all that was judged is within tolerance"
    lines = [within if result.ok else "NOT all within tolerance"]
    if result.knees:
        off = "" if result.is_knee_right else ": OFF"
        lines.append(f"best static cap: simulated {result.knees[0]}, live {result.knees[1]}{off}")
    pairs = ", ".join(" and ".join(pair) for pair in result.misranked)
    lines.append(f"in opposite order: {pairs}" if pairs else "same order, as far as the live repeats tell")
    wrong = result.wrong_speed_ups
    lines += [
        f"{label} against none: {_ratio(figure)}{': OFF' if label in wrong else ''}"
        for label, figure in result.speed_ups.items()
    ]
    lines += [f"{each.label}: {reason}" for each in result.policies for reason in each.reasons]
    return "\n".join([*lines, *(f"note: {note}" for note in result.notes)])


def _ratio(figure: Figure) -> str:
    live = f"live {figure.live_median:.2f}x"
    if len(figure.live) > 1:
        live += f" ({min(figure.live):.2f} to {max(figure.live):.2f})"
    return f"simulated {figure.simulated:.2f}x, {live}, {100 * figure.error_frac:+.1f} %"
