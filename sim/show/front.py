"""What a report says before its first table: what came of its runs, in a sentence."""

from collections.abc import Sequence
from typing import Final

from concur.sim.record.record import RunRecord
from concur.sim.runs.intervals import ByPolicy, best_static_label, metric_interval, speed_up
from concur.sim.runs.policies import best_static_run, is_static_cap
from concur.sim.show.tables import percent, plus_minus

WORTH_IT_FRAC: Final = 0.02
"""Less than this is what makespans stray by with the order of the agents; ours."""


def verdict(records: Sequence[RunRecord]) -> str:
    """Return what came of runs of one workload, in a sentence or two."""
    ended = [record for record in records if record.is_complete and record.metrics["makespan_s"]]
    if not ended:
        return "No run came to its end."
    if len(records) == 1:
        return _of_one(ended[0])
    none = next((record for record in ended if record.label == "none"), None)
    fastest = min(ended, key=_makespan_s)
    if none is None:
        return f"{_named(fastest)} is the fastest: {_makespan_s(fastest):,.0f} s. No run was without control."
    before = f"Without control it takes {_makespan_s(none):,.0f} s, {_recompute(none)} of it in recompute"
    if _makespan_s(none) <= (1 + WORTH_IT_FRAC) * _makespan_s(fastest):
        return f"{before}; no policy is more than {100 * WORTH_IT_FRAC:.0f} % faster: leave control off."
    best = best_static_run(ended)
    laws = [record for record in ended if record is not none and not is_static_cap(record.label)]
    named = [each for each in (best, min(laws, key=_makespan_s, default=None)) if each is not None]
    told = [
        f"{_named(each)} takes {_makespan_s(each):,.0f} s ({_over(none, each)} as fast)" for each in named
    ]
    return f"{before}; {', '.join(told)}."


def seeds_verdict(runs: ByPolicy) -> str:
    """Return what came of one comparison over several seeds, with 95 % intervals."""
    best = best_static_label(runs)
    others = [label for label in runs if label != "none" and not is_static_cap(label)]
    means = {label: metric_interval(runs[label], "makespan_s") for label in runs}
    known = {label: interval.mean for label, interval in means.items() if interval is not None}
    fastest = min((label for label in others if label in known), key=lambda label: known[label], default=None)
    named = [label for label in (best, fastest) if label is not None]
    if "none" not in known or not named:
        first = min(known, key=lambda label: known[label], default=None)
        return (
            "No run came to its end." if first is None else f"{first} is the fastest: {known[first]:,.0f} s."
        )
    told = [
        f"{'the best static cap, ' * (label == best)}{label}: "
        f"{plus_minus(speed_up(runs[label], runs['none']), 2)} times as fast"
        for label in named
    ]
    return f"Without control it takes {plus_minus(means['none'], 0)} s; {'; '.join(told)}."


def _of_one(record: RunRecord) -> str:
    m = record.metrics
    middle = m["phases"]["middle"]
    told = f"{record.label} took {_makespan_s(record):,.0f} s"
    if m["hit_rate"] is not None:
        told += (
            f"; {percent(m['hit_rate'])} of prompt tokens hit, {_recompute(record)} of the time was recompute"
        )
    if middle["end_s"] is not None and middle["end_s"] > middle["start_s"]:
        return (
            f"{told}; histories outgrew the pool from {middle['start_s']:,.0f} to {middle['end_s']:,.0f} s."
        )
    return f"{told}; all histories fit throughout."


def _makespan_s(record: RunRecord) -> float:
    return float(record.metrics["makespan_s"])


def _recompute(record: RunRecord) -> str:
    share = record.metrics["recompute_time_fraction"]
    return "an unknown share" if share is None else f"{100 * share:.0f} %"


def _over(none: RunRecord, other: RunRecord) -> str:
    return f"{_makespan_s(none) / _makespan_s(other):.2f} times"


def _named(record: RunRecord) -> str:
    return f"the best static cap ({record.label})" if is_static_cap(record.label) else record.label
