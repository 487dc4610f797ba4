"""The figure of the engines' part: ours over the printed number, one mark per engine."""

from collections.abc import Sequence
from typing import Any, Final

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from concur.sim.paper.engines import ENGINES, Row
from concur.sim.paper.parts import Part
from concur.sim.paper.settings import READINGS
from concur.sim.paper.verdict import SAME_ORDER, TOLERANCE

_WIDTH_IN: Final = 6.9
_MARKS: Final[Sequence[dict[str, Any]]] = (
    {"marker": "o", "color": "#999999"},
    {"marker": "s", "color": "#0072B2"},
    {"marker": "^", "color": "#D55E00"},
)
_LEAST_RATIO: Final = 0.005
"""What is nearer to nothing is drawn here."""


def engines_figure(part: Part) -> Figure:
    """Draw ours over the printed number on a logarithmic axis, one panel per reading."""
    figure = Figure(figsize=(_WIDTH_IN, 4.6), layout="constrained")
    axes = figure.subplots(1, len(READINGS), sharey=True)
    for ax, reading in zip(axes, READINGS, strict=True):
        plot_ratios(ax, part.series[reading])
        ax.set(title=reading, xlabel="ours / printed")
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=4, loc="outside upper center")
    return figure


def plot_ratios(ax: Axes, rows: Sequence[Row]) -> list[Artist]:
    """Plot each row's quotients, with the bands of the verdicts."""
    names = [row.what for row in rows]
    ax.axvspan(1 / SAME_ORDER, SAME_ORDER, color="#f2f2f2", lw=0)
    ax.axvspan(1 - TOLERANCE, 1 + TOLERANCE, color="#cfe8cf", lw=0, label="reproduced")
    artists: list[Artist] = []
    for engine, look in zip(ENGINES, _MARKS, strict=True):
        ratios = [max(_LEAST_RATIO, row.ours[engine].mean / row.printed.value) for row in rows]
        artists += ax.plot(ratios, names, ls="none", ms=4, label=engine, **look)
    ax.set_xscale("log")
    return artists
