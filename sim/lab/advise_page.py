"""Advice for the terminal, as a page, and as JSON."""

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.lab.advise import AS_GOOD_FRAC, WORTH_IT_FRAC, Advice, Change, Outcome
from concur.sim.show.facts import head_html
from concur.sim.show.figures import COLOURS, legend_beside, png_bytes, style
from concur.sim.show.pages import html_table, page_text, points_html, warnings_html
from concur.sim.show.plot_data import point_data
from concur.sim.show.tables import percent


def sentences(advice: Advice) -> list[str]:
    """Return the advice in words: demand, what happens without control, what to do, and what else helps."""
    demand, chosen, low, high = advice.demand, advice.recommended, *advice.window
    lines = [f"Each of {advice.num_engines} engines, with its share:"] if advice.num_engines > 1 else []
    lines += [
        f"{demand.num_agents} agents need {demand.peak_tokens / 1e6:.2f}M tokens at their longest; the pool "
        f"holds {demand.pool_tokens / 1e6:.2f}M, {100 / demand.ratio:.0f} % of that "
        f"({demand.num_fitting:.0f} agents at their longest).",
        _without_control(advice),
    ]
    if not advice.is_worth_it:
        lines.append(
            f"Leave admission control off: the best static cap ({advice.best_cap}) is within "
            f"{100 * WORTH_IT_FRAC:.0f} % of no control."
        )
    else:
        lines.append(
            f"Use {chosen.policy}: {chosen.makespan_s.mean:,.0f} s, {advice.speed_up:.2f} times as fast as "
            f"no control, {_against_best(advice)}."
        )
        lines.append(
            f"As a static cap: {advice.best_cap} agents; {low} to {high} are within "
            f"{100 * AS_GOOD_FRAC:.0f} % of it."
        )
    if advice.is_worth_it and chosen.slo_attainment is not None:
        lines.append(
            f"Calls within the limits of [slo]: {percent(chosen.slo_attainment)}, without control "
            f"{percent(advice.none.slo_attainment)}."
        )
    return [*lines, *[_change(advice, each) for each in advice.changes]]


def outcomes_table(advice: Advice) -> Table:
    """Return one row per policy: no control, the best cap, the laws."""
    table = Table(
        title="what was simulated",
        caption="means over seeds; times of calls count from when their agent is ready",
    )
    table.add_column("policy")
    for heading in (
        "makespan s",
        "speed-up",
        "hits",
        "recompute",
        "TTFT p50 s",
        "p95 s",
        "call p95 s",
        "in SLO",
    ):
        table.add_column(heading, justify="right")
    for each in (advice.none, advice.best, *advice.laws):
        mark = " *" if each is advice.recommended else ""
        table.add_row(each.policy + mark, *_cells(each, advice))
    return table


def advice_json(advice: Advice) -> dict[str, Any]:
    """Return everything as JSON, in base units."""
    return {
        "recommended": advice.recommended.policy,
        "is_worth_it": advice.is_worth_it,
        "speed_up": advice.speed_up,
        **asdict(advice),
    }


def write_advice(advice: Advice, folder: Path, *, title: str, facts: Mapping[str, str]) -> Path:
    """Write `advice.json`, the cap curve, and `index.html` into `folder`; return the page's path.

    `facts` say what was simulated, see `concur.sim.show.facts`.

    Raises
    ------
    RecordError
        If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        image = png_bytes(cap_curve(advice))
    (folder / "cap_curve.png").write_bytes(image)
    with whole_file(folder / "advice.json", RecordError) as temporary:
        temporary.write_text(json.dumps(advice_json(advice), indent=1) + "\n", encoding="utf-8")
    points = point_data({"caps": dict(_curve(advice))})
    parts = [
        head_html(facts, verdict(advice)),
        *(f"<p>{html.escape(line)}</p>" for line in sentences(advice)),
        html_table(outcomes_table(advice)),
        points_html("The knee") if points else "",
        '<p>For a paper, beside this page: <a href="cap_curve.png">cap_curve</a>.</p>',
        warnings_html(advice.warnings),
    ]
    with whole_file(folder / "index.html", RecordError) as temporary:
        temporary.write_text(page_text(title, "\n".join(parts), points=points), encoding="utf-8")
    return folder / "index.html"


def verdict(advice: Advice) -> str:
    """Return the advice in one sentence."""
    if not advice.is_worth_it:
        return "Leave admission control off."
    return f"Use {advice.recommended.policy}: {advice.speed_up:.2f} times as fast as no control."


def _curve(advice: Advice) -> Iterator[tuple[str, float]]:
    """Yield policies and mean makespans in seconds; caps that would flatten all others are left out."""
    for each in (*advice.caps.values(), advice.none, *advice.laws):
        if each.makespan_s.mean <= _highest_s(advice):
            yield each.policy, each.makespan_s.mean


def _highest_s(advice: Advice) -> float:
    """Return where the curve of caps is cut off."""
    return 2.5 * max(advice.none.makespan_s.mean, advice.best.makespan_s.mean)


def cap_curve(advice: Advice) -> Figure:
    """Draw makespan against the static cap, the band of good caps, no control and the laws."""
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    ax = figure.subplots()
    caps = list(advice.caps)
    means = [advice.caps[cap].makespan_s.mean for cap in caps]
    ax.axvspan(*advice.window, color=COLOURS["agent_cap"], alpha=0.15, label="as good as the best cap")
    ax.plot(caps, means, "o-", color=COLOURS["agent_cap"], label="static cap", ms=3)
    for each in (advice.none, *advice.laws):
        ax.axhline(each.makespan_s.mean, color=COLOURS[each.policy], label=each.policy)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="static cap (agents)", ylabel="makespan (s)")
    ax.set_ylim(0, _highest_s(advice))
    legend_beside(ax)
    return figure


def _without_control(advice: Advice) -> str:
    none = advice.none
    text = (
        f"Without control it takes {none.makespan_s.mean:,.0f} s, {100 * none.recompute_frac:.0f} % of them "
        f"in recompute, at a hit rate of {100 * none.hit_rate:.1f} %"
    )
    if advice.middle_s is None:
        return f"{text}; all histories fit throughout."
    return (
        f"{text}; histories outgrow the pool from {advice.middle_s[0]:,.0f} to {advice.middle_s[1]:,.0f} s."
    )


def _against_best(advice: Advice) -> str:
    ratio = advice.recommended.makespan_s.mean / advice.best.makespan_s.mean
    if advice.recommended is advice.best:
        return "and faster than the adaptive laws"
    return f"{100 * abs(ratio - 1):.1f} % {'faster' if ratio <= 1 else 'slower'} than the best static cap"


def _change(advice: Advice, change: Change) -> str:
    without = advice.none.makespan_s.mean / change.none_s
    if advice.recommended is advice.none:
        return f"With {change.name}: {without:.2f} times as fast."
    with_it = advice.recommended.makespan_s.mean / change.recommended_s
    return f"With {change.name}: {with_it:.2f} times as fast (without control {without:.2f})."


def _cells(each: Outcome, advice: Advice) -> list[str]:
    half = each.makespan_s.half_width
    return [
        f"{each.makespan_s.mean:,.1f}" + ("" if half is None else f" ± {half:,.1f}"),
        f"{advice.none.makespan_s.mean / each.makespan_s.mean:.2f}x",
        f"{100 * each.hit_rate:.1f} %",
        f"{100 * each.recompute_frac:.1f} %",
        f"{each.ttft_p50_s:.2f}",
        f"{each.ttft_p95_s:.2f}",
        f"{each.call_latency_p95_s:.2f}",
        percent(each.slo_attainment),
    ]
