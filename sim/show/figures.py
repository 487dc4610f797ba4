"""Figures of runs. Each function draws on the axes it is given and returns what it drew."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from concur.signals import UNLIMITED
from concur.sim.record.fleet import downtimes
from concur.sim.record.provenance import short_commit
from concur.sim.record.rates import window_of, windowed_hit_rate, windowed_rate
from concur.sim.record.record import RunRecord
from concur.sim.runs.policies import best_static_run

# Okabe and Ito's colour-blind-safe palette; one colour per policy, in every figure.
COLOURS: Final = {
    "none": "#D55E00",
    "request_cap": "#E69F00",
    "agent_cap": "#0072B2",
    "concur": "#009E73",
    "hybrid": "#CC79A7",
    "ledger": "#56B4E9",
    "turnover": "#F0E442",
    "vegas": "#000000",
    "gradient": "#999999",
    "twin": "#332288",
    "fleet_twin": "#882255",
}
_LINE: Final = 200  # characters below a figure
OTHER_COLOUR: Final = "#666666"
PHASE_COLOURS: Final = {"warm_up": "#F4F4F4", "middle": "#FCEDE4", "cool_down": "#E9F1F9"}
SPLIT: Final = {
    "useful prefill": "#56B4E9",
    "recompute": "#D55E00",
    "decode": "#009E73",
    "waiting for reloads": "#CC79A7",
    "idle": "#DDDDDD",
    "not published": "#F5F5F5",
}
_MOST_SIGNED: Final = 250  # characters under a figure: a run may have a warning for every agent
STYLE_FILE: Final = Path(__file__).with_name("concur.mplstyle")


@contextmanager
def style() -> Iterator[None]:
    """Draw in this project's style."""
    with mpl.rc_context(fname=STYLE_FILE):
        yield


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG and, for a paper, as a PDF beside it; without a date, to be repeatable.

    Both are drawn before the first is written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    path.write_bytes(png_bytes(figure))
    path.with_suffix(".pdf").write_bytes(buffer.getvalue())


def colour(record: RunRecord) -> str:
    """Return the colour of the record's policy."""
    return COLOURS.get(record.run["scenario"]["controller"]["kind"], OTHER_COLOUR)


def timeline_figure(record: RunRecord) -> Figure:
    """Draw usage, hit rate, agents and throughput of one run over time, its phases shaded."""
    figure = Figure(figsize=(8.0, 7.2), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    for ax, plot in zip(axes, (plot_usage, plot_hit_rate, plot_agents, plot_throughput), strict=True):
        shade_phases(ax, record)
        plot(ax, record)
        mark_outages(ax, record)
        ax.margins(x=0)
    for name, phase in phases_of(record):
        middle_s = (phase["start_s"] + phase["end_s"]) / 2
        label = name.replace("_", "-")
        axes[0].text(middle_s, 1.12, label, ha="center", va="bottom", fontsize=8, color="#555555")
    axes[-1].set_xlabel("time (s)")
    figure.suptitle(f"{record.label}: {length_s(record):,.0f} s", x=0.01, ha="left")
    _sign(figure, record)
    return figure


def overview_figure(records: Sequence[RunRecord]) -> Figure:
    """Draw the story of a comparison: the collapse, the curve over caps, where the time went."""
    figure = Figure(figsize=(12.0, 3.6), layout="constrained")
    collapse, curve, split = figure.subplots(1, 3)
    shown = [record for record in (_first(records, "none"), best_static_run(records)) if record is not None]
    shown += [record for record in records if _kind(record) not in ("none", "request_cap", "agent_cap")]
    shown = shown or list(records)
    shade_phases(collapse, shown[0])
    for record in shown:
        plot_hit_rate(collapse, record)[0].set_label(record.label)
    collapse.set(xlabel="time (s)", title=f"hit rate; phases of {shown[0].label}")
    collapse.margins(x=0)
    plot_cap_curve(curve, records)
    curve.set_title("throughput")
    if curve.get_legend() is not None:
        curve.get_legend().remove()
    plot_time_split(split, shown)
    split.set_title("where the time goes", pad=24)
    policies = {text: handle for ax in (curve, collapse) for handle, text in _named(ax)}
    figure.legend(list(policies.values()), list(policies), loc="outside upper left", ncols=len(policies))
    _sign(figure, records[0])
    return figure


def shade_phases(ax: Axes, record: RunRecord) -> list[Artist]:
    """Shade warm-up, middle and cool-down."""
    return [
        ax.axvspan(phase["start_s"], phase["end_s"], color=PHASE_COLOURS[name], lw=0, zorder=0)
        for name, phase in phases_of(record)
    ]


def mark_outages(ax: Axes, record: RunRecord) -> list[Artist]:
    """Hatch the times at which engines of a fleet were down, each with its number."""
    artists: list[Artist] = []
    for engine_index, start_s, end_s in downtimes(record.engines):
        artists.append(
            ax.axvspan(start_s, end_s, facecolor="none", edgecolor="#CC3311", hatch="//", alpha=0.35, lw=0)
        )
        label = f"engine {engine_index} down"
        middle_s = (start_s + end_s) / 2
        artists.append(
            ax.text(
                middle_s,
                0.03,
                label,
                transform=ax.get_xaxis_transform(),
                ha="center",
                fontsize=7,
                color="#CC3311",
            )
        )
    return artists


def plot_usage(ax: Axes, record: RunRecord) -> list[Artist]:
    """Plot the KV pool: blocks that requests reference, and those plus cached idle ones."""
    timeline = record.timeline
    artists: list[Artist] = []
    if timeline["kv_cache_resident_frac"].notna().all():
        artists += ax.plot(
            timeline["t_s"], timeline["kv_cache_resident_frac"], color="#999999", label="resident"
        )
    artists += ax.plot(
        timeline["t_s"], timeline["kv_cache_usage_frac"], color=colour(record), label="referenced"
    )
    ax.set(ylabel="KV usage (0-1)", ylim=(0, 1.08))
    legend_beside(ax)
    return artists


def plot_hit_rate(ax: Axes, record: RunRecord, *, window_s: float | None = None) -> list[Artist]:
    """Plot cached / prompt tokens of the calls scheduled in a sliding window (1/60 of the run)."""
    timeline = record.timeline
    rate = windowed_hit_rate(timeline, window_s or window_of(timeline))
    artists = ax.plot(timeline["t_s"], rate, color=colour(record))
    ax.set(ylabel="hit rate (0-1)", ylim=(0, 1.08))
    return list(artists)


def plot_agents(ax: Axes, record: RunRecord) -> list[Artist]:
    """Plot agents that hold a slot, those that still have to finish, and the window where it binds."""
    timeline = record.timeline
    num_agents = record.metrics["num_agents"] + len(record.run.get("failures", ()))
    unfinished = num_agents - timeline["agents_finished"].to_numpy(np.float64)
    artists = ax.plot(timeline["t_s"], unfinished, color="#999999", label="unfinished")
    artists += ax.plot(timeline["t_s"], timeline["agents_active"], color=colour(record), label="active")
    window = timeline["window"].to_numpy(np.float64)
    if (window < UNLIMITED).any():
        window = np.where(window < UNLIMITED, window, np.nan)
        artists += ax.step(timeline["t_s"], window, where="post", color="k", ls="--", lw=1, label="window")
    ax.set(ylabel="agents")
    ax.set_ylim(0, 1.08 * max(unfinished.max(), 1.0))
    legend_beside(ax)
    return list(artists)


def plot_throughput(ax: Axes, record: RunRecord, *, window_s: float | None = None) -> list[Artist]:
    """Plot generated tokens per second in a sliding window (1/60 of the run)."""
    rate = windowed_rate(record.timeline, "generation_tokens", window_s or window_of(record.timeline))
    artists = ax.plot(record.timeline["t_s"], rate, color=colour(record))
    ax.set(ylabel="output tokens/s")
    ax.set_ylim(bottom=0)
    return list(artists)


def cap_curve_figure(records: Sequence[RunRecord]) -> Figure:
    """Draw throughput against the static agent cap, other policies as horizontal lines."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    plot_cap_curve(figure.subplots(), records)
    _sign(figure, records[0])
    return figure


def plot_cap_curve(ax: Axes, records: Sequence[RunRecord]) -> list[Artist]:
    """Plot throughput (net of recompute) against the static cap; a line for each other policy."""
    ended = [record for record in records if record.metrics["throughput_tokens_per_s"] is not None]
    caps = sorted(
        (record.run["scenario"]["controller"]["parameters"]["cap"], record.metrics["throughput_tokens_per_s"])
        for record in ended
        if _kind(record) == "agent_cap"
    )
    artists: list[Artist] = []
    if caps:
        artists += ax.plot(
            *zip(*caps, strict=True), "o-", color=COLOURS["agent_cap"], label="static agent cap"
        )
    for record in ended:
        if _kind(record) == "agent_cap":
            continue
        dashes = "--" if _kind(record) in ("none", "request_cap") else "-"
        artists.append(
            ax.axhline(
                record.metrics["throughput_tokens_per_s"], color=colour(record), ls=dashes, label=record.label
            )
        )
    ax.set_xscale("log", base=2)
    if caps and caps[-1][0] < 4 * caps[0][0]:  # hardly a power of two between them
        ax.set_xticks([cap for cap, _ in caps])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="static cap (agents)", ylabel="output tokens/s, net of recompute")
    ax.set_ylim(bottom=0)
    if artists:
        legend_beside(ax)
    return artists


def legend_beside(ax: Axes) -> None:
    """Put the legend to the right of the axes, where it hides nothing."""
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _named(ax: Axes) -> Iterator[tuple[Artist, str]]:
    yield from zip(*ax.get_legend_handles_labels(), strict=True)


def time_split_figure(records: Sequence[RunRecord]) -> Figure:
    """Draw where each policy's GPU time went."""
    figure = Figure(figsize=(7.4, 1.2 + 0.28 * len(records)), layout="constrained")
    plot_time_split(figure.subplots(), records)
    _sign(figure, records[0])
    return figure


def plot_time_split(ax: Axes, records: Sequence[RunRecord]) -> list[Artist]:
    """Stack seconds of useful prefill, recompute, decode and idle; one bar per policy."""
    labels = [record.label for record in records]
    left = np.zeros(len(records))
    artists: list[Artist] = []
    for name, widths in time_split(records).items():
        artists += ax.barh(labels, widths, left=left, color=SPLIT[name], label=name, height=0.75)
        left += widths
    ax.invert_yaxis()
    ax.set(xlabel="time (s)")
    ax.grid(visible=False, axis="y")
    ax.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return artists


def time_split(records: Sequence[RunRecord]) -> dict[str, np.ndarray]:
    """Return seconds of each kind per run, arrays of shape (num_runs,); they add up to the runs' lengths.

    Of the idle time, that in which an offload tier loads is a kind of its own where there is such a tier.
    A live engine publishes no times by kind; where there are such runs, their whole makespan is a kind of its
    own, "not published".
    """
    last = pd.DataFrame([record.timeline.iloc[-1] for record in records])
    prefill, recompute, decode = (
        pd.to_numeric(last[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        for column in ("prefill_s", "recompute_s", "decode_s")
    )
    makespan = np.array([length_s(record) for record in records], np.float64)
    idle = np.maximum(makespan - prefill - recompute - decode, 0.0)
    split = {"useful prefill": prefill, "recompute": recompute, "decode": decode}
    reloading = np.array([record.metrics.get("host_reload_wait_s") or 0.0 for record in records], np.float64)
    if reloading.any():
        split["waiting for reloads"] = reloading = np.minimum(reloading, idle)
    split["idle"] = idle - reloading
    unknown = np.isnan(idle)
    if unknown.any():
        split = {name: np.where(unknown, 0.0, widths) for name, widths in split.items()}
        split["not published"] = np.where(unknown, makespan, 0.0)
    return split


def length_s(record: RunRecord) -> float:
    """Return a run's makespan, or, if it did not come to its end, the time of its last sample."""
    makespan_s = record.metrics["makespan_s"]
    return float(record.timeline["t_s"].iloc[-1] if makespan_s is None else makespan_s)


def _first(records: Sequence[RunRecord], kind: str) -> RunRecord | None:
    return next((record for record in records if _kind(record) == kind), None)


def _kind(record: RunRecord) -> str:
    return str(record.run["scenario"]["controller"]["kind"])


def phases_of(record: RunRecord) -> list[tuple[str, dict[str, Any]]]:
    """Return the phases of a run that last at all, each with its name."""
    phases = record.metrics["phases"]
    known = [name for name in PHASE_COLOURS if phases[name]["end_s"] is not None]
    return [(name, phases[name]) for name in known if phases[name]["end_s"] > phases[name]["start_s"]]


def _sign(figure: Figure, record: RunRecord) -> None:
    """Say under the figure where it came from."""
    run = record.run
    commit = short_commit(run["git_commit"])
    text = f"{run['world']}, {run['workload']['source']}, seed {run['seed']}, commit {commit}"
    text = fill("; ".join([text, *run["warnings"]]), _LINE, max_lines=3, placeholder=" ... (all: run.json)")
    figure.supxlabel(text, fontsize=6.5, color="#777777", x=0.01, ha="left")
