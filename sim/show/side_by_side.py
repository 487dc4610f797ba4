"""The table of a comparison over engines: the same agents under the same policies on each."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import by_policy
from concur.sim.runs.intervals import ByPolicy, best_static_label, metric_interval, speed_up
from concur.sim.runs.policies import is_static_cap
from concur.sim.show.remarks import merged_warnings
from concur.sim.show.tables import plus_minus

ByEngine = Mapping[str, Sequence[RunRecord]]
"""Engine, as it was named -> its runs."""


def engines_table(records: ByEngine, *, is_wide: bool = True) -> Table:
    """Return one row per engine and policy: means over seeds, with 95 % intervals where there are several.

    `*` marks the best static cap of each engine; the other caps are shown if wide. Speed-ups are paired by
    seed: over no control and over the best static cap of the same engine, and over the same policy on the
    engine that is named first.
    """
    engines = {name: by_policy(own) for name, own in records.items() if own}
    first = next(iter(engines.values()))
    table = Table(title="the same agents, several engines", caption=_caption(records))
    table.add_column("engine")
    table.add_column("policy")
    for heading in ("makespan s", "speed-up", "of best", "of first", "hits", "recomp.", "preempted"):
        table.add_column(heading, justify="right")
    for name, runs in engines.items():
        best = best_static_label(runs)
        shown = [label for label in runs if is_wide or label == best or not is_static_cap(label)]
        for number, label in enumerate(shown):
            table.add_row(
                name if number == 0 else "",
                label + (" *" if label == best else ""),
                *_cells(runs, label, best, first),
                style="bold" if label == best else None,
                end_section=number == len(shown) - 1,
            )
    return table


def _cells(runs: ByPolicy, label: str, best: str | None, first: ByPolicy) -> tuple[str, ...]:
    own = runs[label]
    is_one = len(own) == 1
    baselines = (runs.get("none"), None if best is None else runs[best], first.get(label))
    return (
        plus_minus(metric_interval(own, "makespan_s"), 1 if is_one else 0),
        *(
            plus_minus(speed_up(own, baseline) if baseline and own.keys() <= baseline.keys() else None, 2)
            for baseline in baselines
        ),
        *(
            plus_minus(metric_interval(own, name), 1, scale=100)
            for name in ("hit_rate", "recompute_time_fraction")
        ),
        plus_minus(metric_interval(own, "num_preemptions"), 0),
    )


def warnings_of_engines(records: ByEngine) -> list[str]:
    """Return the warnings of all runs, each kind in one line; one that not all share says whose it is."""
    return merged_warnings(
        (f"{name}, {record.label}", record.run["warnings"]) for name, own in records.items() for record in own
    )


def _caption(records: ByEngine) -> Text:
    runs = [record for own in records.values() for record in own]
    seeds = ", ".join(map(str, sorted({record.run["seed"] for record in runs})))
    told = "".join(f"\n{warning}" for warning in warnings_of_engines(records))
    return Text(
        f"{runs[0].metrics['num_agents']} agents of {runs[0].run['workload']['source']}, seed {seeds}; hits "
        f"and recompute in %; `of first`: the same policy on {next(iter(records))}{told}"
    )
