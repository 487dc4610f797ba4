"""Figures of the two worlds, one over the other: simulation as lines, live engine as points and dots."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from concur.sim.record.rates import window_of, windowed_hit_rate
from concur.sim.record.record import RunRecord
from concur.sim.show.figures import COLOURS, OTHER_COLOUR, colour
from concur.validate.confront.verdicts import Confrontation, PolicyVerdict


def overlay_figure(
    result: Confrontation, simulated: Sequence[RunRecord], live: Sequence[RunRecord]
) -> Figure:
    """Draw makespan and hit rate against the cap, and the hit rate over time without control."""
    figure = Figure(figsize=(12.0, 3.7), layout="constrained")
    makespan, hits, collapse = figure.subplots(1, 3)
    _plot_both_against_cap(makespan, hits, result)
    plot_collapse(collapse, simulated, live)
    figure.supxlabel(_signature(live[0]), fontsize=6.5, color="#777777", x=0.01, ha="left")
    return figure


def caps_figure(result: Confrontation) -> Figure:
    """Draw makespan and hit rate against the cap: what of the overlay needs no records."""
    figure = Figure(figsize=(10.0, 3.7), layout="constrained")
    makespan, hits = figure.subplots(1, 2)
    _plot_both_against_cap(makespan, hits, result)
    return figure


def over_time_figure(label: str, simulated: RunRecord, live: Sequence[RunRecord]) -> Figure:
    """Draw one policy's hit rate, usage and active agents over time in both worlds."""
    figure = Figure(figsize=(8.0, 5.6), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    for record in (simulated, *live):
        timeline, style = record.timeline, _line(record)
        axes[0].plot(timeline["t_s"], _hit_rate(record), **style)
        axes[1].plot(timeline["t_s"], timeline["kv_cache_usage_frac"], **style)
        axes[2].plot(timeline["t_s"], timeline["agents_active"], **style)
    axes[0].set(ylabel="hit rate (0-1)", ylim=(0, 1.05), title=label)
    axes[1].set(ylabel="KV usage (0-1)", ylim=(0, 1.05))
    axes[2].set(ylabel="active agents", xlabel="time (s)")
    axes[2].set_ylim(bottom=0)
    figure.legend(*_worlds(axes[0], simulated, live), ncols=2, loc="outside upper right")
    return figure


def plot_against_cap(ax: Axes, result: Confrontation, metric: str) -> list[Artist]:
    """Plot a metric against the static cap, other policies as levels: live repeats as points.

    A policy of which it was not measured in both worlds is left out; where that is all, the axes say so.
    """
    artists: list[Artist] = []
    measured = [each for each in result.policies if metric in each.figures]
    caps = sorted((each for each in measured if each.cap is not None), key=lambda each: each.cap or 0)
    where = [float(each.cap or 0) for each in caps]
    blue = COLOURS["agent_cap"]
    if caps:
        simulated = [each.figures[metric].simulated for each in caps]
        artists += ax.plot(where, simulated, "-", color=blue, label="static cap, simulated")
        artists += [_points(ax, each, metric, float(each.cap or 0), blue) for each in caps]
        artists[-1].set_label("static cap, live")
    for each in measured:
        if each.cap is None:
            shade = COLOURS.get(each.kind, OTHER_COLOUR)
            figure = each.figures[metric]
            artists.append(ax.axhline(figure.simulated, color=shade, label=f"{each.label}, simulated"))
            artists += [ax.axhline(value, color=shade, ls=":", lw=1) for value in figure.live]
    ax.set_xlabel("static cap (agents); dotted: live")
    if artists:
        _legend_above(ax)
    else:
        artists.append(ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center"))
    return artists


def plot_collapse(ax: Axes, simulated: Sequence[RunRecord], live: Sequence[RunRecord]) -> list[Artist]:
    """Plot the hit rate over time without control, in both worlds."""
    artists: list[Artist] = []
    for record in (*simulated, *live):
        if record.run["scenario"]["controller"]["kind"] == "none":
            artists += ax.plot(record.timeline["t_s"], _hit_rate(record), **_line(record))
            artists[-1].set_label("simulated" if record.run["world"] == "sim" else "live")
    ax.set(xlabel="time (s)", ylabel="hit rate without control (0-1)", ylim=(0, 1.05))
    if artists:
        _legend_above(ax)
    return artists


def _plot_both_against_cap(makespan: Axes, hits: Axes, result: Confrontation) -> None:
    plot_against_cap(makespan, result, "makespan_s")
    makespan.set_ylabel("makespan (s)")
    plot_against_cap(hits, result, "hit_rate")
    hits.set(ylabel="hit rate (0-1)", ylim=(0, 1.0))


def _legend_above(ax: Axes) -> None:
    """Put the legend above the axes, where it hides nothing."""
    handles, names = ax.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    ax.legend(list(once.values()), list(once), loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)


def _points(ax: Axes, policy: PolicyVerdict, metric: str, x: float, shade: str) -> Artist:
    live = policy.figures[metric].live
    return ax.plot([x] * len(live), live, "o", ms=4, color=shade, mfc="none")[0]


def _hit_rate(record: RunRecord) -> "np.ndarray[Any, Any]":
    return windowed_hit_rate(record.timeline, window_of(record.timeline, part=20))


def _line(record: RunRecord) -> dict[str, Any]:
    is_live = record.run["world"] == "live"
    return {"color": colour(record), "ls": ":" if is_live else "-", "alpha": 0.9 if is_live else 1.0}


def _worlds(ax: Axes, simulated: RunRecord, live: Sequence[RunRecord]) -> tuple[list[Artist], list[str]]:
    lines = ax.get_lines()
    return [lines[0], *lines[1:2]], ["simulated", f"live ({len(live)} runs)"][: 1 + bool(live)]


def _signature(record: RunRecord) -> str:
    engine = record.run.get("engine", {})
    facts = ", ".join(f"{key} {engine[key]}" for key in ("vllm", "device") if key in engine)
    return f"live: {facts or 'vLLM'}; {record.run['workload']['source']}, seed {record.run['seed']}"
