"""What a prediction leaves: a table for the terminal, a figure, and JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from rich.table import Table

from concur.sim.runs.intervals import Interval
from concur.sim.show.figures import style
from concur.validate.published.predict import ArmPrediction, Prediction
from concur.validate.published.table import SHARES, PublishedTable

TITLES: Final = {
    "makespan_s": "makespan (s)",
    "hit_rate": "hit rate",
    "prefilled_tokens": "prefilled (M tokens)",
    "call_latency_p50_s": "call latency p50 (s)",
    "call_latency_p95_s": "call latency p95 (s)",
    "peak_kv_cache_usage_frac": "peak KV usage",
}
_MEASURED, _PREDICTED = "#333333", "#0072B2"


def prediction_table(table: PublishedTable, arms: Sequence[ArmPrediction]) -> Table:
    """Return one row per arm and measured metric; of arms that nobody measured their makespan and hits."""
    shown = Table(
        title=table.title,
        caption="\n".join(
            [
                f"measured: {table.source}",
                "predicted: mean and 95 % interval over seeds; error: relative, of shares the difference",
                *(f"assumed: {each}" for each in table.assumed),
            ]
        ),
    )
    for heading in ("arm", "metric", "measured", "predicted", "error", "rule"):
        shown.add_column(heading, justify="left" if heading in ("arm", "metric") else "right")
    for arm in arms:
        name = arm.name
        for each in arm.metrics:
            if each.measured or (not _is_measured(arm) and each.metric in ("makespan_s", "hit_rate")):
                shown.add_row(name, TITLES[each.metric], _measured(each), _predicted(each), *_judged(each))
                name = ""
        shown.add_section()
    return shown


def prediction_json(table: PublishedTable, arms: Sequence[ArmPrediction]) -> dict[str, Any]:
    """Return everything as JSON, in base units."""
    return {
        "title": table.title,
        "source": table.source,
        "assumed": list(table.assumed),
        "arms": {
            arm.name: {
                each.metric: {
                    "measured": list(each.measured),
                    "predicted": each.predicted.to_json(),
                    "error": each.error,
                    "within": each.within,
                    "holds": each.holds,
                }
                for each in arm.metrics
            }
            for arm in arms
        },
    }


def draw(table: PublishedTable, arms: Sequence[ArmPrediction], path: Path) -> None:
    """Draw makespan and hit rate of every arm, every measured run a mark, as PNG."""
    with style():
        figure = Figure(figsize=(8.0, 0.45 * len(arms) + 1.6), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, metric in zip(axes, ("makespan_s", "hit_rate"), strict=True):
            for row, arm in enumerate(arms):
                each = next(each for each in arm.metrics if each.metric == metric)
                _bar(ax, row, each)
            ax.set(xlabel=TITLES[metric])
        axes[0].set_xscale("log")
        axes[0].xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes[0].xaxis.set_major_formatter(ScalarFormatter())
        axes[0].xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_yticks(range(len(arms)), [arm.name for arm in arms])
        axes[0].invert_yaxis()
        axes[1].set_xlim(0, 1)
        handles, labels = axes[0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(list(unique.values()), list(unique), loc="outside upper right", ncols=2, frameon=False)
        figure.suptitle(table.title, x=0.01, ha="left", fontsize=9)
        figure.savefig(path)


def _bar(ax: Any, row: int, each: Prediction) -> None:
    error = each.predicted.half_width or 0.0
    mean = each.predicted.mean
    ax.errorbar(mean, row, xerr=error, fmt="o", color=_PREDICTED, label="predicted, 95 %", capsize=2)
    if each.measured:
        values = [*each.measured]
        ax.plot(values, [row] * len(values), "x", color=_MEASURED, label="measured, run by run", zorder=3)


def _is_measured(arm: ArmPrediction) -> bool:
    return any(each.measured for each in arm.metrics)


def _number(metric: str, value: float) -> str:
    if metric in SHARES:
        return f"{value:.3f}"
    return f"{value / 1e6:.2f}" if metric == "prefilled_tokens" else f"{value:.1f}"


def _measured(each: Prediction) -> str:
    return " / ".join(_number(each.metric, value) for value in each.measured) or "-"


def _predicted(each: Prediction) -> str:
    predicted: Interval = each.predicted
    text = _number(each.metric, predicted.mean)
    return text if predicted.half_width is None else f"{text} ± {_number(each.metric, predicted.half_width)}"


def _judged(each: Prediction) -> tuple[str, str]:
    if each.error is None:
        return "-", "-"
    is_share = each.metric in SHARES
    error = f"{each.error:+.3f}" if is_share else f"{100 * each.error:+.1f} %"
    if each.within is None:
        return error, "-"
    rule = f"{each.within:g}" if is_share else f"{100 * each.within:.0f} %"
    return error, f"within {rule}: {'yes' if each.holds else 'NO'}"
