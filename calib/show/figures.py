"""Figures of a fit: measured against predicted, and residuals against each regressor."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from concur.calib.fit.regressors import Array, Regressors
from concur.sim.show.figures import legend_beside
from concur.sim.step_time.profile import Regime

COLOURS: Final[dict[Regime, str]] = {"prefill": "#0072B2", "decode": "#009E73", "mixed": "#D55E00"}
_LABELS: Final = {
    "num_tokens": "tokens scheduled",
    "prefill_seqs": "prefills",
    "prefill_tokens": "prefill tokens",
    "prefill_context_tokens": "context tokens of prefills",
    "prefill_pairs": "prefill pairs",
    "decode_seqs": "decodes",
    "context_tokens": "context tokens of decodes",
}


def agreement_figure(regressors: Regressors, step_s: Array, predicted: Array) -> Figure:
    """Draw predicted against measured durations, one colour per regime."""
    figure = Figure(figsize=(5.0, 4.6), layout="constrained")
    plot_agreement(figure.subplots(), regressors, step_s, predicted)
    return figure


def residual_figure(regressors: Regressors, step_s: Array, predicted: Array) -> Figure:
    """Draw relative errors against every regressor."""
    names = list(regressors.named())
    figure = Figure(figsize=(11.0, 5.2), layout="constrained")
    axes = figure.subplots(2, -(-len(names) // 2), sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        plot_residuals(ax, regressors, name, predicted / step_s - 1.0)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    for ax in axes[:, 0]:
        ax.set_ylabel("predicted / measured - 1 (%)")
    return figure


def plot_agreement(ax: Axes, regressors: Regressors, step_s: Array, predicted: Array) -> Sequence[Artist]:
    """Plot predicted against measured milliseconds, and the line where they agree."""
    ends = [1e3 * float(step_s.min()), 1e3 * float(step_s.max())]
    artists: list[Artist] = list(ax.plot(ends, ends, color="#999999", lw=1))
    for regime, colour in COLOURS.items():
        mask = regressors.regime(regime)
        artists += ax.plot(1e3 * step_s[mask], 1e3 * predicted[mask], ".", ms=4, color=colour, label=regime)
    ax.set(xscale="log", yscale="log", xlabel="measured step (ms)", ylabel="predicted step (ms)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_formatter(NullFormatter())
    legend_beside(ax)
    return artists


def plot_residuals(ax: Axes, regressors: Regressors, name: str, relative: Array) -> Sequence[Artist]:
    """Plot relative errors in per cent against one regressor, where it is not 0."""
    values = regressors.named()[name]
    artists: list[Artist] = [ax.axhline(0.0, color="#999999", lw=1)]
    for regime, colour in COLOURS.items():
        mask = regressors.regime(regime) & (values > 0)
        artists += ax.plot(values[mask], 100 * relative[mask], ".", ms=3, color=colour, label=regime)
    if np.any(values > 0):
        ax.set_xscale("log")
    ax.set_xlabel(_LABELS[name])
    return artists
