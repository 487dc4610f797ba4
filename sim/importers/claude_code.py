"""Sessions of Claude Code, `~/.claude/projects/<folder>/<session>.jsonl`, with the sub-agents beside them.

A message is written in several lines, one a content block, each with the usage so far: a message counts once,
and its last usage counts. `input_tokens` are without the cached ones. A sub-agent is the side chain of an
`agentId`, in the same file or in `<session>/subagents/**/agent-<agentId>.jsonl`. A session that goes on from
another begins with a copy of it: those lines count for the first session only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted, person_wait_s, waits_after
from concur.sim.importers.files import json_objects, read_head
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.values import count_of, list_of, object_of, text_of, time_of
from concur.sim.traces.format import TraceAgent

_NAME: Final = "claude-code"
_MARKS: Final = {"sessionId", "session_id", "messageId", "leafUuid", "uuid"}
"""Every line of a session has one of these."""
_KINDS: Final = ("input", "cache_creation_input", "cache_read_input", "output")
_Key = tuple[str, str]
_Usage = tuple[int | None, ...]
"""The tokens of `_KINDS`."""


@dataclass(slots=True)
class _Message:
    """A call while its lines come in."""

    key: _Key
    where: str
    began_s: float | None
    user_wait_s: float | None
    ended_s: float | None = None
    tokens: _Usage = (None, None, None, None)
    is_open: bool = False
    """Whether no line said how it ended: its output may be a placeholder."""


@dataclass(slots=True)
class _Agent:
    """An agent while its lines come in; `copied` is the last message that it has from another session."""

    messages: dict[_Key, _Message] = field(default_factory=dict)
    began_s: float | None = None
    input_s: float | None = None
    person_s: float | None = None
    copied: _Key | None = None

    @property
    def ended_s(self) -> float | None:
        return next(reversed(self.messages.values())).ended_s if self.messages else None


@dataclass(slots=True)
class _Session:
    """A session while its lines come in: its agents by `agentId`, "" for its own."""

    path: Path
    agents: dict[str, _Agent] = field(default_factory=dict)
    ids: dict[str, None] = field(default_factory=dict)
    tool_users: dict[str, tuple[str, _Key]] = field(default_factory=dict)
    """Which agent's message used a tool, by the id of the use."""
    starts: dict[str, str] = field(default_factory=dict)
    """The tool use that started an agent, by `agentId`."""
    chains: dict[str, str] = field(default_factory=dict)
    """The first line of each side chain without `agentId`, by the ids of its lines."""

    @property
    def name(self) -> str:
        return self.path.name.partition(".")[0] if self._is_named else next(iter(self.ids), self.path.stem)

    @property
    def _is_named(self) -> bool:
        return self.path.name.partition(".")[0] in self.ids


def _told_by(head: Head) -> bool:
    return any(
        isinstance(value, dict)
        and value.keys() >= {"sessionId", "type", "uuid"}
        and value.get("type") in ("user", "assistant", "system", "progress", "attachment")
        for value in head.values
    )


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    owners: dict[_Key, tuple[str, int]] = {}
    found: list[Recorded] = []
    files = _files(paths)
    for path, subagents in files.items():
        session = _Session(path)
        for file, agent_id in [(path, None), *subagents]:
            for where, line in json_objects(file, notes):
                _take(session, line, where, agent_id, notes, owners)
            _read_meta(session, file, agent_id, notes)
        found += _recorded(session, notes, owners)
    yield from agents_of(found, notes)


def _files(paths: Sequence[Path]) -> dict[Path, list[tuple[Path, str]]]:
    """Return sessions with the files of their sub-agents; such a file that is named too is not read twice."""
    beside: dict[Path, dict[str, list[Path]]] = {}
    for folder in {path.parent for path in paths}:
        beside[folder] = _agents_beside(folder)
    files = {path: _subagent_files(path, beside[path.parent]) for path in paths}
    children = {child.resolve() for found in files.values() for child, _ in found}
    return {path: found for path, found in files.items() if path.resolve() not in children}


def _subagent_files(path: Path, beside: Mapping[str, Sequence[Path]]) -> list[tuple[Path, str]]:
    name = path.name.partition(".")[0]
    folder = path.with_name(name) / "subagents"
    found = sorted(file for file in folder.rglob("agent-*.jsonl*") if file.is_file())
    found += beside.get(name, ())
    return [(file, file.name.partition(".")[0].removeprefix("agent-")) for file in found]


def _agents_beside(folder: Path) -> dict[str, list[Path]]:
    """Return the files of sub-agents by session, where older versions wrote them: beside the session's."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("agent-*.jsonl")):
        first = read_head(file, max_values=1).first("sessionId")
        if first is not None and (session := text_of(first["sessionId"])):
            found.setdefault(session, []).append(file)
    return found


def _read_meta(session: _Session, file: Path, agent_id: str | None, notes: Notes) -> None:
    """Read which tool use started an agent, from the small file beside its own."""
    meta = file.with_name(f"agent-{agent_id}.meta.json")
    if agent_id is not None and meta.is_file():
        for _, value in json_objects(meta, notes):
            if tool_use := text_of(value.get("toolUseId")):
                session.starts.setdefault(agent_id, tool_use)


def _take(
    session: _Session,
    line: Mapping[str, Any],
    where: str,
    file_agent: str | None,
    notes: Notes,
    owners: Mapping[_Key, tuple[str, int]],
) -> None:
    kind = line.get("type")
    if kind not in ("user", "assistant"):
        if not isinstance(kind, str) or not line.keys() & _MARKS:
            notes.leave_out("a line that no session has", where)
        return
    if (session_id := text_of(line.get("sessionId"))) is not None and file_agent is None:
        session.ids.setdefault(session_id)
    agent_id = file_agent or _agent_id(session, line)
    agent = session.agents.setdefault(agent_id, _Agent())
    time_s = time_of(line.get("timestamp"))
    if agent.began_s is None:
        agent.began_s = time_s if kind == "user" else None
    message = object_of(line.get("message"))
    if kind == "user":
        _take_input(session, agent, agent_id, line, message, time_s)
    elif not _is_written(line, message):
        notes.leave_out("a message that no model wrote", where)
    else:
        _take_output(session, agent, agent_id, line, message, where, time_s, owners)


def _agent_id(session: _Session, line: Mapping[str, Any]) -> str:
    """Return whose line it is: "" for the session's own agent."""
    if line.get("isSidechain") is not True:
        return ""
    if agent_id := text_of(line.get("agentId")):
        return agent_id
    own = text_of(line.get("uuid")) or ""
    first = session.chains.get(text_of(line.get("parentUuid")) or "", own)
    session.chains[own] = first
    return first


def _take_input(
    session: _Session,
    agent: _Agent,
    agent_id: str,
    line: Mapping[str, Any],
    message: Mapping[str, Any],
    time_s: float | None,
) -> None:
    blocks = [object_of(block) for block in list_of(message.get("content"))]
    results = [block for block in blocks if block.get("type") == "tool_result"]
    started = text_of(object_of(line.get("toolUseResult")).get("agentId"))
    if started is not None and results and (use := text_of(results[0].get("tool_use_id"))):
        session.starts.setdefault(started, use)
    is_person = not (results or agent_id or line.get("isMeta") or line.get("isCompactSummary"))
    if is_person and agent.messages:
        since_s = agent.input_s if agent.input_s is not None else agent.ended_s
        agent.person_s = person_wait_s(agent.person_s, since_s, time_s)
    agent.input_s = time_s


def _is_written(line: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    return not line.get("isApiErrorMessage") and message.get("model") != "<synthetic>"


def _take_output(
    session: _Session,
    agent: _Agent,
    agent_id: str,
    line: Mapping[str, Any],
    message: Mapping[str, Any],
    where: str,
    time_s: float | None,
    owners: Mapping[_Key, tuple[str, int]],
) -> None:
    name = text_of(message.get("id")) or text_of(line.get("uuid")) or where
    key = (name, text_of(line.get("requestId")) or "")
    if key in owners:
        agent.copied = key
        agent.input_s = agent.person_s = None
        return
    for block in map(object_of, list_of(message.get("content"))):
        if block.get("type") == "tool_use" and (use := text_of(block.get("id"))):
            session.tool_users[use] = (agent_id, key)
    if (call := agent.messages.get(key)) is None:
        call = agent.messages[key] = _Message(key, where, agent.input_s, agent.person_s)
        agent.input_s = agent.person_s = None
    if usage := object_of(message.get("usage")):
        call.tokens = tuple(count_of(usage.get(f"{kind}_tokens")) for kind in _KINDS)
        call.is_open = message.get("stop_reason", "") is None
    if agent.messages and next(reversed(agent.messages)) == key:
        call.ended_s = time_s if time_s is not None else call.ended_s


def _recorded(session: _Session, notes: Notes, owners: dict[_Key, tuple[str, int]]) -> Iterator[Recorded]:
    places: dict[_Key, int] = {}
    calls: dict[str, list[Call]] = {}
    for agent_id, agent in session.agents.items():
        calls[agent_id] = []
        for key, message in agent.messages.items():
            places[key] = len(calls[agent_id])
            if (call := _call(message, notes)) is not None:
                calls[agent_id].append(call)
                owners[key] = (_full_id(session, agent_id), places[key])
    for agent_id, agent in session.agents.items():
        parent, step = _parent(session, agent_id, places)
        origin = owners.get(agent.copied) if agent.copied is not None else None
        if origin is not None:
            parent, step = origin
        yield Recorded(
            agent_id=_full_id(session, agent_id),
            source=_NAME,
            calls=waits_after(calls[agent_id]),
            parent=parent,
            parent_step=step,
            begins_s=agent.began_s if origin is None else None,
            is_awaited=None if origin is None else False,
            forked_tokens=calls[agent_id][0].prompt_tokens if origin is not None and calls[agent_id] else 0,
        )


def _full_id(session: _Session, agent_id: str) -> str:
    return f"{session.name}/{agent_id}" if agent_id else session.name


def _parent(session: _Session, agent_id: str, places: Mapping[_Key, int]) -> tuple[str | None, int | None]:
    """Return the agent that started a sub-agent, and in which of its calls where that was written down."""
    if not agent_id:
        return None, None
    user = session.tool_users.get(session.starts.get(agent_id, ""))
    if user is None or user[0] == agent_id:
        return session.name, None
    return _full_id(session, user[0]), places.get(user[1])


def _call(message: _Message, notes: Notes) -> Call | None:
    fresh, written, read, output = message.tokens
    prompt = None if fresh is None else fresh + (written or 0) + (read or 0)
    tokens = counted(prompt, output, message.where, notes)
    if tokens is None:
        return None
    if message.is_open and tokens[1] == 1:
        notes.guess("an output of one token, as its unfinished message says", message.where)
    return Call(
        *tokens,
        message.where,
        cached_tokens=read or 0,
        began_s=message.began_s,
        ended_s=message.ended_s,
        user_wait_s=message.user_wait_s,
    )


CLAUDE_CODE: Final = CountsImporter(
    name=_NAME,
    title="Claude Code session (~/.claude/projects/<folder>/<session>.jsonl)",
    told_by=_told_by,
    agents=_agents,
)
