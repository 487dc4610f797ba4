"""Sessions of OpenCode: what `opencode export` prints, its database `opencode.db`, or its older storage.

A call is a step of an assistant's message. `tokens` has fresh, read and written tokens apart, all of the
prompt; reasoning is apart from `output` where `total` says so, and in it before OpenCode had a `total`. A
call ends when its first tool starts: a message is completed with its tools. A sub-agent is a session with a
`parentID`, and the tool call that started it names it.

The older storage is a folder of small files: `session/PROJECT/ID.json`, which is the file to name,
`message/SESSION/ID.json` and `part/MESSAGE/ID.json`.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from concur.sim.errors import TraceError
from concur.sim.importers.calls import Call, counted, waits_after
from concur.sim.importers.files import whole_value
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.values import count_of, list_of, object_of, parsed, scaled, text_of
from concur.sim.traces.format import TraceAgent

_SOURCE: Final = "opencode"
_DATABASE: Final = ".db"
_MS: Final = 1e-3
_Message = tuple[Mapping[str, Any], Sequence[Any]]
"""A message and its parts."""


@dataclass(slots=True)
class _Session:
    """What has been read of a session; grows message by message."""

    session_id: str
    parent: str | None
    calls: list[Call] = field(default_factory=list)
    children: dict[str, int] = field(default_factory=dict)
    ended_s: float | None = None
    prompted_s: float | None = None


def _told_by(head: Head) -> bool:
    if head.path.suffix == _DATABASE:
        return head.path.name.startswith("opencode")
    export = object_of((head.first("info", "messages") or {}).get("info"))
    info = export or head.first("id", "projectID", "time") or {}
    return str(info.get("id", "")).startswith("ses_")


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    sessions = [session for path in paths for session in _sessions(path, notes)]
    started = {
        child: (session.session_id, step) for session in sessions for child, step in session.children.items()
    }
    recorded: list[Recorded] = []
    for session in sessions:
        parent, step = started.get(session.session_id, (session.parent, None))
        recorded.append(
            Recorded(
                agent_id=session.session_id,
                source=_SOURCE,
                calls=waits_after(session.calls),
                parent=parent,
                parent_step=step,
            )
        )
    return agents_of(recorded, notes)


def _sessions(path: Path, notes: Notes) -> Iterator[_Session]:
    if path.suffix == _DATABASE:
        yield from _of_database(path, notes)
        return
    value = object_of(whole_value(path, notes))
    if "messages" not in value:
        yield _read(_session(value, path), _of_storage(value, path, notes), str(path), notes)
        return
    pairs = [
        (object_of(message.get("info")), list_of(message.get("parts")))
        for message in map(object_of, list_of(value["messages"]))
    ]
    yield _read(_session(object_of(value.get("info")), path), pairs, str(path), notes)


def _session(info: Mapping[str, Any], path: Path) -> _Session:
    return _Session(text_of(info.get("id")) or path.stem, text_of(info.get("parentID")))


def _of_storage(info: Mapping[str, Any], path: Path, notes: Notes) -> Iterator[_Message]:
    """Yield the messages of a session in the older storage; the order of ids is that in time."""
    storage, session = path.parent.parent.parent, text_of(info.get("id")) or path.stem
    for file in sorted((storage / "message" / session).glob("*.json")):
        parts = sorted((storage / "part" / file.stem).glob("*.json"))
        yield object_of(whole_value(file, notes)), [whole_value(part, notes) for part in parts]


def _of_database(path: Path, notes: Notes) -> Iterator[_Session]:
    if not path.is_file():
        raise TraceError(f"{path}: no such file; name a recording")
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        try:
            for name, parent in database.execute("SELECT id, parent_id FROM session ORDER BY time_created"):
                yield _read(_Session(name, parent), _rows(database, name), f"{path}, session {name}", notes)
        except sqlite3.Error as error:
            raise TraceError(
                f"{path}: cannot be read ({error}); name what `opencode export SESSION` prints"
            ) from None


def _rows(database: sqlite3.Connection, session: str) -> Iterator[_Message]:
    of_session = "SELECT id, data FROM message WHERE session_id = ? ORDER BY time_created, id"
    of_message = "SELECT data FROM part WHERE message_id = ? ORDER BY id"
    for name, data in database.execute(of_session, (session,)):
        yield object_of(parsed(data)), [parsed(part) for (part,) in database.execute(of_message, (name,))]


def _read(
    session: _Session, messages: Iterator[_Message] | Sequence[_Message], where: str, notes: Notes
) -> _Session:
    for number, (info, parts) in enumerate(messages, 1):
        created_s = scaled(object_of(info.get("time")).get("created"), _MS)
        if info.get("role") == "user":
            session.prompted_s = created_s
        elif info.get("role") == "assistant":
            _add(session, info, list(map(object_of, parts)), f"{where}, message {number}", notes)
    return session


def _add(
    session: _Session, info: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], where: str, notes: Notes
) -> None:
    """Add the calls of a message: in the main one, and one a step in those that hold the steps of a turn."""
    times = object_of(info.get("time"))
    began_s, completed_s = scaled(times.get("created"), _MS), scaled(times.get("completed"), _MS)
    steps = _steps(parts) or [(info, [part for part in parts if part.get("type") == "tool"])]
    for number, (step, tools) in enumerate(steps, 1):
        spans = [object_of(object_of(tool.get("state")).get("time")) for tool in tools]
        starts = [start for span in spans if (start := scaled(span.get("start"), _MS)) is not None]
        ends = [end for span in spans if (end := scaled(span.get("end"), _MS)) is not None]
        ended_s = min(starts, default=completed_s if number == len(steps) else None)
        wait_s = _user_wait_s(session)
        call = _call(object_of(step.get("tokens")), where, began_s, ended_s, wait_s, notes)
        if call is not None:
            session.calls.append(call)
        for tool in tools:
            state = object_of(tool.get("state"))
            metadata = object_of(state.get("metadata"))
            child = text_of(metadata.get("sessionId")) or text_of(metadata.get("sessionID"))
            if child is not None and session.calls:
                session.children[child] = len(session.calls) - 1
        began_s = max(ends, default=None)
    session.ended_s, session.prompted_s = completed_s, None


def _steps(parts: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Return the steps that finished, each with the tools before its end."""
    steps: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = []
    tools: list[Mapping[str, Any]] = []
    for part in parts:
        if part.get("type") == "tool":
            tools.append(part)
        elif part.get("type") == "step-finish" and "tokens" in part:
            steps.append((part, tools))
            tools = []
    if steps:
        steps[-1][1].extend(tools)
    return steps


def _user_wait_s(session: _Session) -> float | None:
    """Return how long a person took between the last answer and the prompt since."""
    if session.ended_s is None or session.prompted_s is None:
        return None
    return max(0.0, round(session.prompted_s - session.ended_s, 6))


def _call(
    tokens: Mapping[str, Any],
    where: str,
    began_s: float | None,
    ended_s: float | None,
    user_wait_s: float | None,
    notes: Notes,
) -> Call | None:
    cache = object_of(tokens.get("cache"))
    fresh, read = count_of(tokens.get("input")), count_of(cache.get("read"))
    written = count_of(cache.get("write"))
    prompt = None if fresh is None else fresh + (read or 0) + (written or 0)
    found = counted(prompt, _output(tokens, prompt, where, notes), where, notes)
    if found is None:
        return None
    return Call(
        *found,
        where,
        cached_tokens=read,
        began_s=began_s,
        ended_s=ended_s,
        user_wait_s=user_wait_s,
    )


def _output(tokens: Mapping[str, Any], prompt: int | None, where: str, notes: Notes) -> int | None:
    output, reasoning = count_of(tokens.get("output")), count_of(tokens.get("reasoning"))
    if output is None or not reasoning or prompt is None:
        return output
    total = count_of(tokens.get("total"))
    if total is None:
        notes.guess("reasoning is part of the output, as no total says otherwise", where)
        return max(output, reasoning)
    return output if total == prompt + output else output + reasoning


OPENCODE: Final = CountsImporter(
    name="opencode",
    title="OpenCode session (opencode export SESSION, ~/.local/share/opencode/opencode.db)",
    told_by=_told_by,
    agents=_agents,
)
