"""What a controller decided and on what: its states as a table, its windows as a figure."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from concur.signals import UNLIMITED
from concur.sim.record.record import RunRecord
from concur.sim.show.figures import OTHER_COLOUR, colour, legend_beside


def decision_states(record: RunRecord) -> pd.DataFrame:
    """Return what each decision was based on: a row per tick, indexed by `t_s`, a column per logged value."""
    states = [json.loads(state) for state in record.ticks["state"]]
    return pd.DataFrame(states, index=pd.Index(record.ticks["t_s"], name="t_s"))


def decisions_figure(
    record: RunRecord, *, values: Sequence[str] = (), others: Mapping[str, Sequence[int]] | None = None
) -> Figure:
    """Draw the window over time, and below it the named columns of `decision_states`.

    `others` are windows that other laws would have decided at the same ticks, by name, each of shape
    (num_ticks,).
    """
    figure = Figure(figsize=(8.0, 2.4 + 1.3 * len(values)), layout="constrained")
    axes = figure.subplots(
        1 + len(values), 1, sharex=True, squeeze=False, height_ratios=[2, *[1] * len(values)]
    )[:, 0]
    plot_windows(axes[0], record, others or {})
    states = decision_states(record)
    for ax, name in zip(axes[1:], values, strict=True):
        if not states.empty:  # a run may end before its first decision
            ax.plot(states.index, pd.to_numeric(states[name]), color=colour(record))
        ax.set_ylabel(name)
    axes[-1].set_xlabel("time (s)")
    return figure


def plot_windows(ax: Axes, record: RunRecord, others: Mapping[str, Sequence[int]]) -> list[Artist]:
    """Plot active agents, the window decided at each tick, and those of `others`, dashed."""
    times_s, shades = record.ticks["t_s"], ("#0072B2", "#E69F00", OTHER_COLOUR)
    artists = ax.plot(times_s, record.ticks["agents_active"], color="#BBBBBB", label="active agents")
    artists += ax.step(
        times_s,
        _limited(record.ticks["window"]),
        where="post",
        color=colour(record),
        label=f"window: {record.label}",
    )
    for number, (name, windows) in enumerate(others.items()):
        shade = shades[number % len(shades)]
        artists += ax.step(times_s, _limited(windows), where="post", ls="--", color=shade, label=name)
    ax.set_ylabel("agents")
    ax.set_ylim(bottom=0)
    legend_beside(ax)
    return list(artists)


def _limited(windows: "Sequence[int] | pd.Series[int]") -> np.ndarray:
    values = np.asarray(windows, np.float64)
    return np.where(values < UNLIMITED, values, np.nan)
