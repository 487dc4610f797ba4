"""The figures of `concur paper`, in the width of a two-column page; each draws what its part holds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from concur.sim.paper import a1, fig1, sensitivity, table2
from concur.sim.paper.engines_figure import engines_figure
from concur.sim.paper.numbers import find_printed, printed
from concur.sim.paper.parts import Part
from concur.sim.paper.settings import READINGS
from concur.sim.record.rates import window_of, windowed_rate
from concur.sim.record.record import RunRecord
from concur.sim.runs.intervals import Interval
from concur.sim.show.figures import COLOURS, plot_hit_rate, plot_usage, shade_phases

DOUBLE_COLUMN_IN: Final = 6.9
_PRINTED: Final[Mapping[str, Any]] = {"marker": "D", "color": "black", "ls": "none", "ms": 4, "zorder": 5}
_MODELS: Final = {"DeepSeek-V3": "#CC79A7", "Qwen3-32B": "#0072B2"}
_BARS: Final[Mapping[str, Mapping[str, Any]]] = {
    "request cap": {"color": COLOURS["request_cap"]},
    "HiCache": {"color": "white", "edgecolor": COLOURS["none"], "hatch": "////", "lw": 0.6},
    "CONCUR": {"color": COLOURS["concur"]},
    "best cap": {"color": COLOURS["agent_cap"]},
    "hybrid": {"color": COLOURS["hybrid"]},
}
_SETTINGS: Final = {
    "qwen_tp8": "Qwen\nTP8, 256",
    "qwen_tp2": "Qwen\nTP2, 256",
    "deepseek_tp16_16": "DeepSeek\nTP16, 16",
    "deepseek_tp16_32": "DeepSeek\nTP16, 32",
    "deepseek_tp16_40": "DeepSeek\nTP16, 40",
}

_PRINTED_GAINS: Final = {
    ("qwen_tp8", "CONCUR"): "table1.qwen_tp8.concur",
    ("qwen_tp2", "CONCUR"): "fig6.concur",  # the same setting
    ("deepseek_tp16_40", "CONCUR"): "table1.deepseek_tp16_40.concur",
    ("deepseek_tp16_40", "HiCache"): "table1.deepseek_tp16_40.hicache",
}


def fig1_figure(part: Part) -> Figure:
    """Draw contexts and KV over ten steps, and reload against recompute."""
    figure = Figure(figsize=(DOUBLE_COLUMN_IN, 2.1), layout="constrained")
    contexts, sizes, times = figure.subplots(1, 3)
    plot_growth(contexts, part.series["contexts"], scale=lambda _: 1e-3)
    contexts.set(ylabel="context (1,000 tokens)", title="a. context")
    plot_growth(sizes, part.series["contexts"], scale=lambda model: fig1.kv_bytes_per_token(model) / 1e9)
    for model, key in (("DeepSeek-V3", "fig1.deepseek_bytes"), ("Qwen3-32B", "fig1.qwen_bytes")):
        label = "printed" if model == "Qwen3-32B" else None
        sizes.plot([fig1.NUM_STEPS], [printed(key).value / 1e9], label=label, **_PRINTED)
    sizes.set(ylabel="KV per agent (GB)", title="b. KV", yscale="log")
    contexts.legend(loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2)
    sizes.legend(*_only(sizes, "printed"), loc="lower center", bbox_to_anchor=(0.5, 1.1))
    plot_reload(times, part.series["reload"], part.series["recompute"])
    times.set_title("c. 8 x 4,096 tokens")
    return figure


def plot_growth(
    ax: Axes, contexts: Mapping[str, np.ndarray], *, scale: Callable[[str], float]
) -> list[Artist]:
    """Plot mean contexts, shape (num_steps,), times `scale(model)`, against the step."""
    artists: list[Artist] = []
    for model, tokens in contexts.items():
        steps = np.arange(1, len(tokens) + 1)
        artists += ax.plot(
            steps, tokens * scale(model), color=_MODELS[model], marker="o", ms=2.5, label=model
        )
    ax.set(xlabel="step", xticks=[1, 4, 7, 10])
    return artists


def plot_reload(
    ax: Axes, reload: Mapping[str, float], recompute: Mapping[str, tuple[float, float]]
) -> list[Artist]:
    """Draw how long reloads and recomputes of eight requests take; the printed ones as diamonds."""
    names = [f"reload,\n{name}" for name in reload] + [f"recompute,\n{name}" for name in recompute]
    took_s = [*reload.values(), *(eight_s for _, eight_s in recompute.values())]
    colours = [COLOURS["agent_cap"]] * len(reload) + [COLOURS["none"]] * len(recompute)
    bars = ax.barh(names, took_s, color=colours, height=0.65)
    ax.plot([printed("fig1.reload_s").value], [0], **_PRINTED)
    places = range(len(reload), len(names))
    ax.plot([printed("fig1.recompute_s").value] * len(places), places, label="printed", **_PRINTED)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set(xlabel="time (s)")
    return [*bars]


def fig3_figure(part: Part) -> Figure:
    """Draw usage, hit rate and recompute's share over time, one column per reading."""
    figure = Figure(figsize=(DOUBLE_COLUMN_IN, 3.8), layout="constrained")
    axes = figure.subplots(3, len(READINGS), sharex="col", sharey="row")
    for column, reading in enumerate(READINGS):
        record = part.series[reading]
        for ax, plot in zip(axes[:, column], (plot_usage, plot_hit_rate, plot_recompute), strict=True):
            shade_phases(ax, record)
            plot(ax, record)
            ax.margins(x=0)
            if column:
                ax.set_ylabel("")
        axes[0, column].set_title(reading)
        axes[-1, column].set_xlabel("time (s)")
    axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.1), ncols=2)
    axes[0, 1].get_legend().remove()
    axes[2, 1].get_legend().remove()
    return figure


def plot_recompute(ax: Axes, record: RunRecord) -> list[Artist]:
    """Plot recompute's share of the time in a sliding window (1/60 of the run), and the printed mean."""
    share = windowed_rate(record.timeline, "recompute_s", window_of(record.timeline))
    artists = ax.plot(record.timeline["t_s"], share, color=COLOURS["none"])
    mean = printed("fig3.recompute").value
    artists.append(ax.axhline(mean, color="black", ls=":", lw=1, label=f"printed mean, {100 * mean:.1f} %"))
    ax.set(ylabel="recompute\n(share of time)", ylim=(0, 1.08))
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return list(artists)


def table1_figure(part: Part) -> Figure:
    """Draw each policy's speed-up by setting, one panel per reading; the printed ones as diamonds."""
    figure = Figure(figsize=(DOUBLE_COLUMN_IN, 3.9), layout="constrained")
    axes = figure.subplots(len(READINGS), 1, sharex=True, sharey=True)
    for ax, reading in zip(axes, READINGS, strict=True):
        plot_gains(ax, part.series[reading])
        ax.set_title(reading, loc="left")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=6, loc="outside upper right")
    return figure


def plot_gains(ax: Axes, gains: Mapping[str, Mapping[str, Interval]]) -> list[Artist]:
    """Draw groups of bars: speed-up over no control, with intervals."""
    artists: list[Artist] = []
    width = 0.8 / len(_BARS)
    for number, (name, look) in enumerate(_BARS.items()):
        places = np.arange(len(gains)) + (number - (len(_BARS) - 1) / 2) * width
        values = [own[name].mean for own in gains.values()]
        errors = [own[name].half_width or 0.0 for own in gains.values()]
        artists += ax.bar(places, values, 0.9 * width, yerr=errors, label=name, error_kw={"lw": 0.7}, **look)
        known = [
            (place, find_printed(_PRINTED_GAINS.get((setting, name), "")))
            for place, setting in zip(places, gains, strict=True)
        ]
        shown = [(place, number.value) for place, number in known if number is not None]
        if shown:
            label = "printed" if name == "CONCUR" else None
            artists += ax.plot(*zip(*shown, strict=True), label=label, **_PRINTED)
    ax.axhline(1.0, color="black", lw=0.7)
    ax.set(ylabel="speed-up (x)", xticks=range(len(gains)), xticklabels=[_SETTINGS[key] for key in gains])
    ax.grid(visible=False, axis="x")
    return artists


def table2_figure(part: Part) -> Figure:
    """Draw hit rates against the number of agents, one panel per reading."""
    figure = Figure(figsize=(DOUBLE_COLUMN_IN, 2.3), layout="constrained")
    axes = figure.subplots(1, len(READINGS), sharey=True)
    for ax, reading in zip(axes, READINGS, strict=True):
        plot_hits(ax, part.series[reading])
        ax.set(title=reading, xlabel="agents", xticks=table2.NUM_AGENTS)
    axes[0].set_ylabel("hit rate (0-1)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def plot_hits(ax: Axes, hits: Mapping[str, Sequence[Interval]]) -> list[Artist]:
    """Plot one line per policy; the printed ones as diamonds in its colour."""
    artists: list[Artist] = []
    looks = {"hicache": {"color": COLOURS["none"], "ls": "--", "mfc": "white"}}
    for name, intervals in hits.items():
        look: Mapping[str, Any] = looks.get(name, {"color": COLOURS.get(name)})
        label = table2.NAMES[name]
        means = [interval.mean for interval in intervals]
        artists += ax.plot(table2.NUM_AGENTS, means, marker="o", ms=3, label=label, **look)
        known = [(count, find_printed(f"table2.{name}.{count}")) for count in table2.NUM_AGENTS]
        shown = [(count, number.value) for count, number in known if number is not None]
        if shown:
            diamonds = {**_PRINTED, **look, "ls": "none", "mew": 1.0, "clip_on": False}
            artists += ax.plot(*zip(*shown, strict=True), label=f"{label}, printed", **diamonds)
    ax.set(ylim=(0, 1.05))
    return artists


def fig6_figure(part: Part) -> Figure:
    """Draw speed-up against the static level, one panel per reading; other policies as lines."""
    figure = Figure(figsize=(DOUBLE_COLUMN_IN, 2.4), layout="constrained")
    axes = figure.subplots(1, len(READINGS), sharey=True)
    for ax, reading in zip(axes, READINGS, strict=True):
        plot_levels(ax, part.series[reading])
        ax.set(title=reading, xlabel="agents admitted at once")
    axes[0].set_ylabel("speed-up over\nno control (x)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def plot_levels(ax: Axes, gains: Mapping[str, Interval]) -> list[Artist]:
    """Plot speed-up against static caps, CONCUR and the hybrid as levels, printed ones dotted."""
    caps = {int(label.partition("=")[2]): gain for label, gain in gains.items() if "agent_cap" in label}
    means, errors = [gain.mean for gain in caps.values()], [gain.half_width or 0.0 for gain in caps.values()]
    bars = ax.errorbar(
        list(caps),
        means,
        errors,
        color=COLOURS["agent_cap"],
        marker="o",
        ms=3,
        capsize=2,
        label="static level",
    )
    artists: list[Artist] = [bars.lines[0]]
    for name in ("concur", "hybrid"):
        label = "CONCUR" if name == "concur" else name
        artists.append(ax.axhline(gains[name].mean, color=COLOURS[name], ls="--", label=label))
    number = printed("fig6.concur")
    artists.append(ax.axhline(number.value, color=COLOURS["concur"], ls=":", label="CONCUR, printed"))
    artists += ax.plot([64], [printed("fig6.agent_cap_64").value], label="level 64, printed", **_PRINTED)
    ax.axhline(1.0, color="black", lw=0.7)
    ax.set(xscale="log", xticks=[16, 32, 64, 128, 224], ylim=(0, None))
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter("{x:g}")
    return artists


def a1_figure(part: Part) -> Figure:
    """Draw the grid of thresholds, one panel per reading."""
    figure = Figure(figsize=(DOUBLE_COLUMN_IN, 2.4), layout="constrained")
    axes = figure.subplots(1, len(READINGS))
    for ax, reading in zip(axes, READINGS, strict=True):
        plot_grid(ax, np.array(part.series[reading]))
        ax.set_title(reading)
    axes[0].set_ylabel("U_low")
    return figure


def plot_grid(ax: Axes, gains: np.ndarray) -> list[Artist]:
    """Draw speed-ups of shape (num U_low, num U_high) as a heat map with its numbers."""
    image = ax.imshow(gains, cmap="cividis", aspect="auto", origin="lower", vmin=0)
    dark = np.nanmax(gains) / 2
    artists: list[Artist] = [image]
    for (row, column), gain in np.ndenumerate(gains):
        if not np.isnan(gain):
            ink = "white" if gain < dark else "black"
            artists.append(ax.text(column, row, f"{gain:.2f}x", ha="center", va="center", color=ink))
    ax.set(xticks=range(len(a1.U_HIGH)), yticks=range(len(a1.U_LOW)), xlabel="U_high")
    ax.set(xticklabels=a1.U_HIGH, yticklabels=a1.U_LOW)
    ax.grid(visible=False)
    return artists


def sensitivity_figure(part: Part) -> Figure:
    """Draw the headline ratios by what is changed, one panel per headline."""
    figure = Figure(figsize=(DOUBLE_COLUMN_IN, 3.6), layout="constrained")
    axes = figure.subplots(1, len(sensitivity.HEADLINES), sharey=True)
    rows = part.series["rows"]
    for number, (ax, (setting, value)) in enumerate(zip(axes, sensitivity.HEADLINES, strict=True)):
        plot_ratios(ax, {name: cells[number] for name, cells in rows.items()}, value.value)
        ax.set(title=setting.title.replace(", ", "\n"), xlabel="speed-up over none (x)")
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc="outside upper right")
    return figure


def plot_ratios(ax: Axes, rows: Mapping[str, sensitivity.Row], value: float) -> list[Artist]:
    """Plot CONCUR's and the best cap's speed-up of each row; the printed one as a line."""
    names = list(rows)
    artists: list[Artist] = [ax.axvline(value, color=COLOURS["concur"], ls=":", label="CONCUR, printed")]
    artists.append(ax.axvline(1.0, color="black", lw=0.7))
    look: dict[str, Any] = {"ls": "none", "marker": "o", "ms": 4}
    caps = [row.best_cap for row in rows.values()]
    artists += ax.plot(caps, names, color=COLOURS["agent_cap"], label="best static cap", **look)
    look["marker"] = "s"
    own = [row.concur for row in rows.values()]
    artists += ax.plot(own, names, color=COLOURS["concur"], label="CONCUR", **look)
    ax.set_xlim(left=0)
    return artists


def _only(ax: Axes, label: str) -> tuple[list[Artist], list[str]]:
    handles, labels = ax.get_legend_handles_labels()
    return [handle for handle, own in zip(handles, labels, strict=True) if own == label], [label]


FIGURES: Final[Mapping[str, Callable[[Part], Figure]]] = {
    "fig1": fig1_figure,
    "fig3": fig3_figure,
    "table1": table1_figure,
    "table2": table2_figure,
    "fig6": fig6_figure,
    "a1": a1_figure,
    "engines": engines_figure,
    "sensitivity": sensitivity_figure,
}
"""Each part's figure."""
