"""The warnings of many runs in few lines: what all of them say once, what differs in its numbers once too."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from concur.sim.record.record import RunRecord
from concur.sim.workload.spec import Workload

_NUMBER: Final = re.compile(r"\d[\d,.]*")


def warnings_of_runs(records: Sequence[RunRecord]) -> list[str]:
    """Return the warnings of runs, each kind in one line; one that not all share says whose it is."""
    several_seeds = len({record.run["seed"] for record in records}) > 1
    names = [
        f"{record.label}, seed {record.run['seed']}" if several_seeds else record.label for record in records
    ]
    return merged_warnings(
        (name, record.run["warnings"]) for name, record in zip(names, records, strict=True)
    )


def warnings_of_workloads(workloads: Mapping[int, Workload]) -> list[str]:
    """Return what was lost of the workloads of some seeds, each kind in one line."""
    return merged_warnings((f"seed {seed}", workload.warnings) for seed, workload in workloads.items())


def merged_warnings(runs: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Return (name, warnings) of runs as lines; of those with the same words before a colon, the first."""
    num_runs = 0
    kinds: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for name, warnings in runs:
        num_runs += 1
        seen: Counter[str] = Counter()
        for warning in dict.fromkeys(warnings):
            about = _NUMBER.sub("#", warning.partition(": ")[0])
            seen[about] += 1
            kinds.setdefault((about, seen[about]), []).append((name, warning))
    return [_line(said, num_runs) for said in kinds.values()]


def _line(said: Sequence[tuple[str, str]], num_runs: int) -> str:
    (name, warning), others = said[0], len(said) - 1
    if len(said) == num_runs and len({text for _, text in said}) == 1:
        return warning
    return f"{name}: {warning}" + (f" (and {others} more alike)" if others else "")
