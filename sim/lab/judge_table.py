"""What a judgement leaves behind: tables for the terminal, and all of its numbers as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from concur.sim.lab.judge import Verdict, summarise


def cases_table(verdicts: Sequence[Verdict]) -> Table:
    """Return one row per case: the best static cap, its mean makespan, each policy's ratio to it."""
    table = Table(
        title="makespan over the best static cap's",
        caption="below 1 is faster than any static cap, which is chosen in hindsight; means over seeds",
    )
    table.add_column("case")
    policies = list(dict.fromkeys(name for each in verdicts for name in each.makespans_s))
    for heading in ("best cap", "its makespan s", *policies):
        table.add_column(heading, justify="right")
    for each in verdicts:
        ratios = [f"{each.ratio(name):.3f}" if name in each.makespans_s else "-" for name in policies]
        mean_s = sum(each.best_s.values()) / len(each.best_s)
        table.add_row(each.name, str(each.best_cap), f"{mean_s:,.1f}", *ratios)
    return table


def summary_table(verdicts: Sequence[Verdict]) -> Table:
    """Return one row per policy: its geometric mean over the cases, its worst one, how often it is close."""
    table = Table(
        title=f"{len(verdicts)} cases against the best static cap of each",
        caption="geometric mean and 95 % interval (Student's t, paired by seed); close: within 2 %; left "
        "alone: the worst against no control, where no control is best",
    )
    table.add_column("policy")
    for heading in ("geometric mean", "95 %", "worst", "close", "left alone"):
        table.add_column(heading, justify="right")
    table.add_column("the worst case")
    for each in summarise(verdicts):
        interval = "-" if each.interval is None else f"{each.interval[0]:.3f} to {each.interval[1]:.3f}"
        alone = "-" if each.worst_left_alone is None else f"{each.worst_left_alone:.3f}"
        close = f"{each.num_close}/{each.num_cases}"
        mean, worst = f"{each.geometric_mean:.3f}", f"{each.worst:.3f}"
        table.add_row(each.policy, mean, interval, worst, close, alone, each.worst_case)
    return table


def judgement(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return cases and summary as JSON: ratios by policy and makespans by seed, in seconds."""
    return {
        "cases": {
            each.name: {
                "best_cap": each.best_cap,
                "best_s": {str(seed): value for seed, value in each.best_s.items()},
                "makespans_s": {
                    policy: {str(seed): value for seed, value in own.items()}
                    for policy, own in each.makespans_s.items()
                },
                "ratios": {policy: each.ratio(policy) for policy in each.makespans_s},
            }
            for each in verdicts
        },
        "summary": {each.policy: asdict(each) for each in summarise(verdicts)},
    }
