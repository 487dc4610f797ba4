"""Read agent traces; `concur.sim.traces.format` says what is in one.

A line that breaks the format is an error that names file, line, field and remedy: nothing is repaired.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from concur.sim.errors import TraceError
from concur.sim.traces.checks import Where, check_agent, check_trees
from concur.sim.traces.format import LINE, TraceAgent, TraceStep

_KNOWN: Final = {
    False: ", ".join(sorted(field.name for field in fields(TraceAgent))),
    True: ", ".join(sorted(field.name for field in fields(TraceStep))),
}


def read_trace(path: Path) -> list[TraceAgent]:
    """Read and check a whole trace.

    Raises
    ------
    TraceError
        At the first line that breaks the format, or if the file is unreadable or holds no agent.
    """
    agents: list[TraceAgent] = []
    places: list[Where] = []
    seen: dict[str, int] = {}
    for line, text in read_lines(path):
        where = Where(path, line)
        agent = _parse_agent(text, where)
        if agent.agent_id in seen:
            raise where.error(
                "agent_id",
                f"{agent.agent_id!r} is also on line {seen[agent.agent_id]}",
                "give each agent its own id",
            )
        seen[agent.agent_id] = line
        agents.append(agent)
        places.append(where)
    if not agents:
        raise TraceError(f"{path}: no agent in the file; a trace has one JSON object a line")
    check_trees(agents, places)
    return agents


def trace_sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, for provenance.

    Raises
    ------
    TraceError
        If it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror}); name a trace") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file, plain or compressed by gzip, that hold something, with their numbers.

    Raises
    ------
    TraceError
        If the file cannot be read.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield number, text
    except FileNotFoundError:
        raise TraceError(f"{path}: no such trace; name a .jsonl or .jsonl.gz file") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: unreadable ({error}); is it JSONL, or JSONL compressed by gzip?") from None


def _parse_agent(text: str, where: Where) -> TraceAgent:
    try:
        agent = LINE.validate_json(text)
    except ValidationError as error:
        raise _explained(error.errors(include_url=False)[0], where) from None
    check_agent(agent, where)
    return agent


def _explained(error: ErrorDetails, where: Where) -> TraceError:
    """Say what pydantic found: the place, the field, the value, the bound, the remedy."""
    if error["type"] == "json_invalid":
        return where.error("(whole line)", f"not JSON ({error['msg']})", "write one JSON object a line")
    place, field = _place(error["loc"], where)
    message = error["msg"].replace("Input should", "must")
    match error["type"]:
        case "missing":
            return place.error(field, "missing", "every line and step must have it")
        case "unexpected_keyword_argument":
            return place.error(field, "unknown field", f"known: {_KNOWN[place.step is not None]}")
        case "dataclass_type":
            return place.error(field, f"{_shown(error['input'])} is not an object", "write {...}")
        case "too_short" if field == "steps":
            return place.error(field, "not a list of at least one step", "leave agents without steps out")
    return place.error(field, f"{_shown(error['input'])} but {message}", "correct it")


def _place(loc: tuple[int | str, ...], where: Where) -> tuple[Where, str]:
    """Return line and step of an error, and the name of the field."""
    if len(loc) > 1 and loc[0] == "steps":
        where = Where(where.path, where.line, int(loc[1]))
        return where, str(loc[2]) if len(loc) > 2 else "(whole step)"
    return where, ".".join(map(str, loc)) or "(whole line)"


def _shown(value: Any) -> str:
    """Show a value in an error message, cut to a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
