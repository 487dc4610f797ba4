"""Runs of one workload under several policies, as a set: their order, and the baseline that counts."""

from collections import Counter
from collections.abc import Iterable
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


def best_static_cap(records: Iterable[RunRecord]) -> RunRecord | None:
    """Return the `agent_cap` run with the shortest makespan: the baseline that counts."""
    caps = [
        record
        for record in records
        if record.run["scenario"]["controller"]["kind"] == "agent_cap"
        and record.metrics["makespan_s"] is not None
    ]
    return min(caps, key=lambda record: float(record.metrics["makespan_s"]), default=None)
