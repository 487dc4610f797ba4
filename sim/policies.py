"""Runs of one workload under several policies, as a set: their order, and the baseline that counts."""

from collections.abc import Iterable

from concur.controllers import CATALOG
from sim.record import RunRecord


def in_order(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Sort records by kind (as in the catalog), then cap, then name: the same order everywhere."""
    kinds = list(CATALOG)

    def key(record: RunRecord) -> tuple[int, int, str]:
        controller = record.run["scenario"]["controller"]
        return (kinds.index(controller["kind"]), controller["parameters"].get("cap", 0), record.label)

    return sorted(records, key=key)


def best_static_cap(records: Iterable[RunRecord]) -> RunRecord | None:
    """Return the `agent_cap` run with the shortest makespan: the baseline that counts."""
    caps = [record for record in records if record.run["scenario"]["controller"]["kind"] == "agent_cap"]
    return min(caps, key=lambda record: float(record.metrics["makespan_s"]), default=None)
