"""The catalog: every importer by name, and which of them a file is for.

A new format is a new file and a line in `_OWN`; a format in a package of its own is an `Importer` under the
entry-point group `concur.importers` (`concur.catalog`).
"""

import json
from pathlib import Path
from typing import Any, Final

from concur.catalog import Catalog
from concur.sim.errors import TraceError
from concur.sim.importers.atif import ATIF
from concur.sim.importers.claude_code import CLAUDE_CODE
from concur.sim.importers.codex import CODEX
from concur.sim.importers.dynamo import DYNAMO
from concur.sim.importers.files import read_head
from concur.sim.importers.importer import Head, Importer
from concur.sim.importers.inspect_ai import INSPECT_AI
from concur.sim.importers.kv_cache_tester import KV_CACHE_TESTER
from concur.sim.importers.langfuse import LANGFUSE
from concur.sim.importers.litellm import LITELLM
from concur.sim.importers.mini_swe_agent import MINI_SWE_AGENT
from concur.sim.importers.mooncake import MOONCAKE
from concur.sim.importers.opencode import OPENCODE
from concur.sim.importers.openhands import OPENHANDS
from concur.sim.importers.otel import OTEL
from concur.sim.importers.own import CONCUR
from concur.sim.importers.swe_agent import SWE_AGENT

_OWN: Final[dict[str, Importer]] = {
    importer.name: importer
    for importer in (
        CLAUDE_CODE,
        CODEX,
        OPENCODE,
        OPENHANDS,
        SWE_AGENT,
        MINI_SWE_AGENT,
        INSPECT_AI,
        ATIF,
        DYNAMO,
        MOONCAKE,
        KV_CACHE_TESTER,
        OTEL,
        LANGFUSE,
        LITELLM,
        CONCUR,
    )
}
IMPORTERS: Final[Catalog[Importer]] = Catalog(
    "concur.importers",
    _OWN,
    what="format",
    fits=lambda entry: isinstance(entry, Importer),
    holds="a concur.sim.importers.importer.Importer",
)


def recognising(head: Head) -> list[Importer]:
    """Return the importers that a file is for, by its beginning."""
    return [importer for importer in map(IMPORTERS.__getitem__, IMPORTERS) if importer.recognises(head)]


def detect(path: Path) -> Importer:
    """Return the one importer that a file is for.

    Raises
    ------
    TraceError
        If there is none, or more than one, or the file cannot be read.
    """
    head = read_head(path)
    found = recognising(head)
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(importer.name for importer in found)
        raise TraceError(f"{path}: could be {names}; say which one with --from NAME")
    raise TraceError(
        f"{path}: no known format ({_seen(head)}); known: {', '.join(IMPORTERS)}; "
        "name one with --from, if the file is of one of them"
    )


def _seen(head: Head) -> str:
    """Say how a file begins, for an error message."""
    values = [value for value in head.values if value is not None]
    if not values:
        return "it begins with no line of JSON"
    return f"it begins with {_shown(values[0])}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        keys = ", ".join(map(repr, list(value)[:6]))
        return f"an object with {keys}{', ...' if len(value) > 6 else ''}" if keys else "an empty object"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
