"""The figure of a trace with sub-agents: what a session holds at once, how wide it fans out, how deep."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from concur.sim.workload.trees import Tree

_ALONE, _ALL = "#999999", "#0072B2"


def trace_figure(trees: Sequence[Tree], title: str) -> Figure:
    """Draw the trees of a trace."""
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    resident, fan_out, depth = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    draw_resident_tokens(resident, trees)
    _draw_counts(fan_out, [number for tree in trees for number in tree.fan_outs], "sub-agents of one step")
    _draw_counts(depth, [tree.depth for tree in trees], "generations below the root")
    fan_out.set_ylabel("steps that start any")
    depth.set_ylabel("sessions")
    figure.suptitle(title)
    return figure


def draw_resident_tokens(axes: Axes, trees: Sequence[Tree]) -> None:
    """Draw which fraction of the sessions holds at most so many tokens, with sub-agents and without."""
    fraction = np.arange(1, len(trees) + 1) / len(trees)
    for label, colour, values in (
        ("root alone", _ALONE, [tree.alone_tokens for tree in trees]),
        ("with its sub-agents", _ALL, [tree.resident_tokens for tree in trees]),
    ):
        mean = float(np.mean(values))
        axes.step(np.sort(values), fraction, where="post", color=colour, label=f"{label}, mean {mean:,.0f}")
        axes.axvline(mean, color=colour, linewidth=0.8, linestyle=":")
    axes.set_xlabel("most tokens that a session holds at once")
    axes.set_ylabel("fraction of sessions")
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _draw_counts(axes: Axes, numbers: Sequence[int], what: str) -> None:
    values, counts = np.unique(np.asarray(numbers, dtype=np.int64), return_counts=True)
    axes.bar(values, counts, color=_ALL, width=0.8)
    axes.set_xlabel(what)
    axes.set_xlim(min(values, default=0) - 1, max(values, default=0) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
