"""Traces of this project, so that they can be joined with imported ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.traces.format import TraceAgent
from concur.sim.traces.trace import read_trace


def _told_by(head: Head) -> bool:
    return head.first("agent_id", "steps") is not None


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    for path in paths:
        yield from read_trace(path)


CONCUR: Final = CountsImporter(
    name="concur",
    title="trace of this project",
    told_by=_told_by,
    agents=_agents,
)
