"""Tables for the terminal."""

import math
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from concur.sim.record.record import RunRecord
from concur.sim.runs.bands import PolicyBands
from concur.sim.runs.intervals import (
    METRICS,
    ByPolicy,
    Interval,
    best_static_label,
    metric_interval,
    speed_up,
)
from concur.sim.runs.policies import best_static_run
from concur.sim.show.columns import narrow
from concur.sim.show.remarks import warnings_of_runs
from concur.sim.workload.describe import QUANTILES, TraceSummary

_WIDTH_WITHOUT_TERMINAL: Final = 150  # wide enough for the comparison table in a log file
_LEAST_WIDTH: Final = 40
_MORE: Final = (  # with --wide; the latencies: of agents, then of calls
    "tokens/s",
    "preempted",
    "p50 s",
    "p99 s",
    "TTFT p99 s",
    "call p99 s",
    "in SLO",
    "gate p99 s",
    "Jain",
)
PHASES = ("warm_up", "middle", "cool_down")


def print_tables(*tables: Table, width: int = _WIDTH_WITHOUT_TERMINAL) -> None:
    """Print tables on stdout, each with its caption below it.

    They are as wide as `COLUMNS` says, else as the terminal is, else `width` characters; a table that is
    wider is cut into parts, see `concur.sim.show.columns`.
    """
    width = max(get_terminal_size((width, 0)).columns, _LEAST_WIDTH)
    console = Console(width=width)
    for table in tables:
        console.print(*narrow(table, width))
        if table.caption:
            console.print(table.caption, style="table.caption", highlight=False)


def comparison_table(records: Sequence[RunRecord], *, is_wide: bool = True) -> Table:
    """Return one row per policy; speed-up is against no control, `*` marks the best static cap.

    Not wide, it has the five columns that matter most; where a host cache gave something back, also that
    share of all prompt tokens.
    """
    none = next((record for record in records if record.label == "none"), None)
    baseline_s = none.metrics["makespan_s"] if none is not None else None
    best = best_static_run(records)
    table = Table(title="one workload, several policies", caption=_caption(records))
    table.add_column("policy")
    reloads = any(record.metrics["host_tokens"] for record in records)
    always = ("makespan s", "speed-up", "hits", "recompute", *(["reloaded"] if reloads else []), "active")
    for heading in (*always, *(_MORE if is_wide else ())):
        table.add_column(heading, justify="right")
    for record in records:
        m = record.metrics
        speed_up = baseline_s / m["makespan_s"] if baseline_s and m["makespan_s"] else None
        cells = (
            record.label + (" *" if record is best else ""),
            _number(m["makespan_s"], 1),
            "-" if speed_up is None else f"{speed_up:.2f}x",
            percent(m["hit_rate"]),
            percent(m["recompute_time_fraction"]),
            *([percent((m["host_tokens"] or 0) / m["prompt_tokens"])] if reloads else []),
            _number(m["mean_active_agents"], 1),
            _number(m["throughput_tokens_per_s"], 0),
            _number(m["num_preemptions"], 0),
            _number(m["agent_latency_s"]["p50"], 0),
            _number(m["agent_latency_s"]["p99"], 0),
            _number(m["ttft_s"]["p99"], 1),
            _number(m["call_latency_s"]["p99"], 1),
            percent(m["slo_attainment"]),
            _number(m["step_wait_s"]["p99"], 0),
            _number(m["jain_fairness"], 2),
        )
        table.add_row(*cells[: len(table.columns)], style="bold" if record is best else None)
    return table


def interval_table(runs: ByPolicy, *, is_wide: bool = True) -> Table:
    """Return one row per policy: means over seeds and 95 % intervals; `*` marks the best static cap.

    Speed-ups are paired by seed: against no control, and against the best static cap. Not wide, it has the
    five columns that matter most.
    """
    best = best_static_label(runs)
    table = Table(title="one workload, several policies", caption=_seeds_caption(runs))
    table.add_column("policy")
    more = [heading for heading in _MORE if heading != "preempted"] if is_wide else []
    for heading in ("makespan s", "speed-up", "of best", "hits", "recomp.", *more):
        table.add_column(heading, justify="right")
    for label, own in runs.items():
        numbers = {name: metric_interval(own, name) for name in METRICS}
        cells = (
            label + (" *" if label == best else ""),
            plus_minus(numbers["makespan_s"], 0),
            plus_minus(speed_up(own, runs["none"]) if "none" in runs else None, 2),
            plus_minus(speed_up(own, runs[best]) if best is not None else None, 2),
            *(plus_minus(numbers[name], 1, scale=100) for name in ("hit_rate", "recompute_time_fraction")),
            plus_minus(numbers["throughput_tokens_per_s"], 0),
            *(plus_minus(numbers[f"agent_latency_s.{level}"], 0) for level in ("p50", "p99")),
            *(plus_minus(numbers[f"{name}.p99"], 1) for name in ("ttft_s", "call_latency_s")),
            plus_minus(numbers["slo_attainment"], 1, scale=100),
            plus_minus(numbers["step_wait_s.p99"], 0),
            plus_minus(numbers["jain_fairness"], 2),
        )
        table.add_row(*cells[: len(table.columns)], style="bold" if label == best else None)
    return table


def bands_table(bands: Sequence[PolicyBands]) -> Table:
    """Return one row per policy: what the profile's errors leave open of it."""
    num_draws = bands[0].num_draws
    best = {each.policy.partition("=")[2]: each.num_best for each in bands if each.num_best}
    knee = ", ".join(f"{cap} in {number}" for cap, number in best.items())
    table = Table(
        title="what the profile's errors leave open",
        caption=f"{num_draws} draws of step times around the profile; median, 5 % to 95 %; speed-ups within "
        "a draw" + (f"\nbest static cap, of {num_draws} draws: {knee}" if knee else ""),
    )
    table.add_column("policy")
    for heading in ("makespan s", "5 % to 95 %", "of best cap", "5 % to 95 %"):
        table.add_column(heading, justify="right")
    for each in bands:
        makespan_s, speed_up = each.makespan_s, each.speed_up
        table.add_row(
            each.policy,
            _number(makespan_s.median, 1),
            f"{_number(makespan_s.low, 1)} to {_number(makespan_s.high, 1)}",
            "-" if speed_up is None else f"{speed_up.median:.2f}x",
            "-" if speed_up is None else f"{speed_up.low:.2f} to {speed_up.high:.2f}",
        )
    return table


def phase_table(records: Sequence[RunRecord]) -> Table:
    """Return the three phases of each run."""
    table = Table(title="phases", caption="warm-up: histories still fit the pool; middle: they do not")
    table.add_column("policy")
    table.add_column("phase")
    for heading in ("from s", "to s", "hits", "hits, later calls", "tokens/s"):
        table.add_column(heading, justify="right")
    for record in records:
        for number, name in enumerate(PHASES):
            phase = record.metrics["phases"][name]
            table.add_row(
                record.label if number == 0 else "",
                name.replace("_", "-"),
                _number(phase["start_s"], 1),
                _number(phase["end_s"], 1),
                percent(phase["hit_rate"]),
                percent(phase["hit_rate_later_calls"]),
                _number(phase["throughput_tokens_per_s"], 0),
                end_section=number == len(PHASES) - 1,
            )
    return table


def metrics_table(record: RunRecord) -> Table:
    """Return every metric of one run but the phases, and but those of each engine of a fleet."""
    table = Table(title=record.label, caption=_caption([record]), show_header=False)
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in record.metrics.items():
        if name not in ("phases", "engines"):
            table.add_row(name, _cell(value))
    return table


def trace_table(summary: TraceSummary, title: str) -> Table:
    """Return the distributions of a trace."""
    table = Table(title=Text(title), caption=_trace_caption(summary))
    table.add_column("quantity")
    for heading in ("count", "mean", *(f"p{round(100 * q)}" for q in QUANTILES[:-1]), "max"):
        table.add_column(heading, justify="right")
    for row in summary.distributions:
        cells = [_number(row.mean, 1), *(_number(value, 1) for value in row.quantiles)]
        table.add_row(row.name, f"{row.count:,}", *cells)
    return table


def percent(value: float | None) -> str:
    """Format a fraction as a percentage for people; `-` where it is not known."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def plus_minus(interval: Interval | None, digits: int, *, scale: float = 1.0) -> str:
    """Format a mean and its interval for people; `-` where there is none."""
    if interval is None:
        return "-"
    mean = _number(scale * interval.mean, digits)
    half = interval.half_width
    return mean if half is None else f"{mean} ±{_number(scale * half, digits)}"


def _seeds_caption(runs: ByPolicy) -> Text:
    records = [record for by_seed in runs.values() for record in by_seed.values()]
    seeds = ", ".join(map(str, next(iter(runs.values()))))
    return Text(
        f"{records[0].run['workload']['source']}, seeds {seeds}: mean and 95 % interval (Student's t); hits "
        "and recompute in %; speed-ups are paired by seed; `of best` is the speed-up over *"
        + _warnings(records)
    )


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_cell(part)}" for key, part in value.items())
    if isinstance(value, float):
        value = round(value, 12)  # 1 - 0.9999999999999999 is 0
        return f"{value:,.4g}" if abs(value) < 10 else f"{value:,.1f}"
    return "-" if value is None else f"{value:,}"


def _caption(records: Sequence[RunRecord]) -> Text:
    record = records[0]
    m = record.metrics
    skipped = f" ({m['num_agents_skipped']} more left out)" if m["num_agents_skipped"] else ""
    source = record.run["workload"]["source"]
    return Text(
        f"{m['num_agents']} agents{skipped}, {m['num_requests']:,} calls of {source}, "
        f"seed {record.run['seed']}; ideal hits {percent(m['ideal_hit_rate'])}{_warnings(records)}"
    )


def _warnings(records: Sequence[RunRecord]) -> str:
    return "".join(f"\n{warning}" for warning in warnings_of_runs(records))


def _families(summary: TraceSummary) -> str:
    if not summary.num_sub_agents:
        return ""
    return (
        f"; {summary.num_sub_agents:,} sub-agents, {summary.num_beside:,} of them beside their parent, "
        f"{summary.num_forks:,} forks; resident tokens of a session by counts, without times"
    )


def _trace_caption(summary: TraceSummary) -> Text:
    losses = "".join(f"\nby default: {line}" for line in summary.losses)
    return Text(
        f"{summary.num_agents} agents ({summary.num_fresh_agents} from their start), "
        f"{summary.num_prefix_groups} prefix groups, {summary.num_calls:,} calls; "
        f"{summary.num_calls_with_kept_tokens:,} calls cut their history, "
        f"{summary.num_waits_not_recorded:,} waits not recorded; "
        f"ideal hits {percent(summary.ideal_hit_rate)}{_families(summary)}{losses}"
    )
