"""The sensitivity figure of a search: the objective against each parameter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.lab.tune import Question, Trial
from concur.sim.lab.tune_report import provenance
from concur.sim.show.figures import COLOURS, OTHER_COLOUR, png_bytes, style

_COLUMNS: Final = 4


def write_sensitivity(
    question: Question, trials: Sequence[Trial], best: Trial, importances: Mapping[str, float], path: Path
) -> None:
    """Write `sensitivity_figure` as a PNG."""
    with style(), whole_file(path, RecordError) as temporary:
        temporary.write_bytes(png_bytes(sensitivity_figure(question, trials, best, importances)))


def sensitivity_figure(
    question: Question, trials: Sequence[Trial], best: Trial, importances: Mapping[str, float]
) -> Figure:
    """Draw the first objective of every trial against each parameter; the start and the best are marked."""
    num_rows = -(-len(question.space) // _COLUMNS)
    figure = Figure(figsize=(11.0, 0.6 + 2.4 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, _COLUMNS, sharey=True, squeeze=False).ravel()
    colour = COLOURS.get(question.start.kind, OTHER_COLOUR)
    values = np.array([trial.values[0] for trial in trials])
    for ax, (name, within) in zip(axes, question.space.items(), strict=False):
        ax.scatter([trial.parameters[name] for trial in trials], values, s=14, color=colour, alpha=0.6)
        for trial, mark, label in ((trials[0], "s", "start"), (best, "*", "best")):
            ax.scatter(
                trial.parameters[name], trial.values[0], s=70, marker=mark, color="k", zorder=3, label=label
            )
        ax.set(xlabel=name, xscale="log" if within.is_log else "linear")
        if name in importances:
            ax.set_title(f"importance {importances[name]:.2f}", fontsize=8)
    for ax in axes[len(question.space) :]:
        ax.set_axis_off()
    for row in range(num_rows):
        axes[row * _COLUMNS].set_ylabel(question.objectives[0])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    source = "; ".join(provenance(question, trials, best))
    figure.supxlabel(source, fontsize=6.5, color="#777777", x=0.01, ha="left")
    return figure
