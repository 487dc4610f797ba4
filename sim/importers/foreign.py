"""A trace, or a clear word about the recording that was named instead of one."""

from pathlib import Path

from concur.errors import ConcurError
from concur.sim.errors import TraceError
from concur.sim.importers.catalog import recognising
from concur.sim.importers.files import read_head
from concur.sim.importers.own import CONCUR
from concur.sim.traces.format import TraceAgent
from concur.sim.traces.trace import read_trace


def read_own_trace(path: Path) -> list[TraceAgent]:
    """Read and check a whole trace.

    Raises
    ------
    TraceError
        As `read_trace`; for a recording that an importer knows, the error says how to import it.
    """
    try:
        return read_trace(path)
    except TraceError as error:
        hint = _hint(path)
        if hint is None:
            raise
        raise TraceError(f"{error}; {hint}") from None


def _hint(path: Path) -> str | None:
    """Say how to import a file; `None` for a trace, and for what no importer knows."""
    try:
        found = recognising(read_head(path))
    except ConcurError:
        return None
    if len(found) != 1 or found[0].name == CONCUR.name:
        return None
    title = found[0].title.partition(" (")[0]
    article = "an" if title[0] in "AEIOaeio" else "a"
    return (
        f"{path.name} looks like {article} {title}; "
        f"concur trace import {path} --out TRACE --from {found[0].name}"
    )
