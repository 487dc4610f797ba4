"""Runs of one workload under several policies, as a set: their order, and the baseline that counts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from concur.controllers import CATALOG
from concur.sim.errors import RecordError
from concur.sim.record.record import RunRecord


def in_order(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Sort records by kind (as in the catalog), then cap, then name: the same order everywhere."""
    kinds = {kind: number for number, kind in enumerate(CATALOG)}

    def key(record: RunRecord) -> tuple[int, int, str]:
        controller = record.run["scenario"]["controller"]
        number = kinds.get(controller["kind"], len(kinds))
        return (number, controller["parameters"].get("cap", 0), record.label)

    return sorted(records, key=key)


def of_one_workload(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the records in order, their labels made distinct (`concur`, `concur #2`).

    Raises
    ------
    RecordError
        If they are not runs of one workload and seed: comparing those would mean nothing.
    """
    ordered = in_order(records)
    for record in ordered[1:]:
        for part in ("seed", "workload"):
            one, other = ordered[0].run["scenario"][part], record.run["scenario"][part]
            if one != other or ordered[0].run["workload"] != record.run["workload"]:
                raise RecordError(
                    f"{ordered[0].label} and {record.label} are not runs of one workload ({part} differs); "
                    "report them apart"
                )
    seen: Counter[str] = Counter()
    distinct = []
    for record in ordered:
        seen[record.label] += 1
        number = seen[record.label]
        label = record.label if number == 1 else f"{record.label} #{number}"
        distinct.append(replace(record, run=record.run | {"label": label}))
    return distinct


def is_static_cap(label: str) -> bool:
    """Tell whether a policy is a static cap on agents: the baseline that counts is the best of these."""
    return label.startswith("agent_cap=")


def best_static_cap(makespans_s: Mapping[str, float | None]) -> str | None:
    """Return the label of the static cap with the shortest makespan, or mean of it; `None` without one.

    It is chosen afterwards, which flatters caps. Without a makespan a run did not come to its end.
    """
    caps = {
        label: value for label, value in makespans_s.items() if is_static_cap(label) and value is not None
    }
    return min(caps, key=lambda label: caps[label], default=None)


def best_static_run(records: Iterable[RunRecord]) -> RunRecord | None:
    """Return the run of the best static cap."""
    runs = {record.label: record for record in records}
    best = best_static_cap({label: record.metrics["makespan_s"] for label, record in runs.items()})
    return None if best is None else runs[best]
