"""The figure of the engines' part: ours over the printed number, one mark per engine."""

from collections.abc import Sequence
from typing import Any, Final

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from concur.sim.paper.engines import ENGINES, Row
from concur.sim.paper.parts import Part
from concur.sim.paper.verdict import SAME_ORDER, TOLERANCE

_WIDTH_IN: Final = 6.9
_MARKS: Final[Sequence[dict[str, Any]]] = (
    {"marker": "o", "color": "#999999"},
    {"marker": "s", "color": "#0072B2"},
    {"marker": "^", "color": "#D55E00"},
)
_APART: Final = 0.25
_LEAST_RATIO: Final = 0.005
"""What is nearer to nothing is drawn here."""


def engines_figure(part: Part) -> Figure:
    """Draw ours over the printed number on a logarithmic axis, the numbers from top to bottom."""
    figure = Figure(figsize=(_WIDTH_IN, 4.2), layout="constrained")
    ax = figure.subplots()
    plot_ratios(ax, part.series["rows"])
    ax.set(xlabel="ours / printed")
    ax.invert_yaxis()
    figure.legend(*ax.get_legend_handles_labels(), ncols=5, loc="outside upper center")
    return figure


def plot_ratios(ax: Axes, rows: Sequence[Row]) -> list[Artist]:
    """Plot each row's quotients, with the bands of the verdicts; what is nearly 0 stands at the left edge."""
    ax.axvspan(1 / SAME_ORDER, SAME_ORDER, color="#f2f2f2", lw=0, label="within a factor of 3.16")
    ax.axvspan(1 - TOLERANCE, 1 + TOLERANCE, color="#cfe8cf", lw=0, label="reproduced")
    artists: list[Artist] = []
    for number, (engine, look) in enumerate(zip(ENGINES, _MARKS, strict=True)):
        ratios = [max(_LEAST_RATIO, row.ours[engine].mean / row.printed.value) for row in rows]
        heights = [place + _APART * (number - 1) for place in range(len(rows))]
        artists += ax.plot(ratios, heights, ls="none", ms=3, label=engine, **look)
    ax.set(xscale="log", yticks=range(len(rows)), yticklabels=[row.what for row in rows])
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    return artists
