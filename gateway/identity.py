"""Who makes a call: the agent, and the agent that started it, told without any change to the client.

In this order: the header table, fields of the body, `prompt_cache_key`, and as the last resort a
fingerprint of how the conversation begins. The table is data, so that a new client is a line and not a
release (`[[identity.clients]]` in the configuration). Which headers clients send was seen on running ones
(Claude Code 2.1.332, Codex 0.169.0, OpenCode 1.18.33) or is in their documentation; README.md has the table
for people.

Pure: headers and body in, an identity out.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Source = Literal["header", "body", "cache_key", "fingerprint"]

_LONGEST: Final = 200
_UNPRINTABLE: Final = re.compile(r"[^\x21-\x7e]")
_CLAUDE_SESSION: Final = re.compile(r"session_([0-9a-fA-F-]{8,})")
SECRET_HEADERS: Final = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization", "api-key"})
"""Never a name for an agent: names are shown."""


@dataclass(frozen=True, slots=True)
class ClientRule:
    """One line of the table: which headers of a client say what, in lower case.

    `agent` names an agent within the `session`; where a client has none, the session is the agent. `parent`
    names the agent that started it, of the same kind. `final`: this is the last call. `hold_s`: how long one
    of its calls may be held before it gives up, less a margin.
    """

    name: str
    session: str
    agent: str = ""
    parent: str = ""
    final: str = ""
    hold_s: float = 540.0
    is_agent_global: bool = False  # the agent's name needs no session around it


CLIENTS: Final = (
    ClientRule(
        "concur", "x-concur-agent-id", parent="x-concur-parent-agent-id", final="x-concur-session-final"
    ),
    ClientRule(
        "claude-code",
        "x-claude-code-session-id",
        agent="x-claude-code-agent-id",
        parent="x-claude-code-parent-agent-id",
        hold_s=240.0,  # its watchdog gives up after 300 s without an event that is not a ping
    ),
    ClientRule(
        "codex",
        "session-id",
        agent="thread-id",
        parent="x-codex-parent-thread-id",
        hold_s=240.0,  # 300 s without an event; comments are none
        is_agent_global=True,
    ),
    ClientRule(
        "dynamo",
        "x-dynamo-session-id",
        parent="x-dynamo-parent-session-id",
        final="x-dynamo-session-final",
    ),
    ClientRule(
        "opencode", "x-session-affinity", parent="x-parent-session-id", final="x-session-final", hold_s=240.0
    ),
    ClientRule("session-id", "x-session-id", parent="x-parent-session-id", final="x-session-final"),
    ClientRule("litellm", "x-litellm-session-id"),
    ClientRule("smg", "x-smg-routing-key"),
    ClientRule("correlation-id", "x-correlation-id"),
)
"""Clients by the header that tells them, the most telling first."""

_UNKNOWN_HOLD_S: Final = 540.0  # SDKs give up after 600 s
_BODY_FIELDS: Final = ("program_id", "session_id", "conversation_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a call. `client` is the line of the table, or `source` where no header told it.

    `is_final`: it says that it is its agent's last. `hold_s`: how long it may be held. `is_certain`: two
    calls with this name are surely of one agent.
    """

    agent_id: str
    parent: str | None
    source: Source
    client: str
    is_final: bool = False
    hold_s: float = _UNKNOWN_HOLD_S

    @property
    def is_certain(self) -> bool:
        """Whether the name was given, not guessed."""
        return self.source != "fingerprint"


def identify(
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    *,
    clients: Iterable[ClientRule] = CLIENTS,
    peer: str = "",
    can_guess: bool = True,
) -> Identity | None:
    """Return who makes a call; `None` if nothing tells it.

    `headers` find names in any case. `peer` is the client's address, part of a fingerprint. Without
    `can_guess` there are none.
    """
    for rule in clients:
        if value := headers.get(rule.session):
            return _by_header(rule, value, headers)
    if name := _in_body(body):
        return Identity(f"body:{clean(name)}", None, "body", "body")
    if isinstance(key := body.get("prompt_cache_key"), str) and key:
        return Identity(f"key:{clean(key)}", None, "cache_key", "cache_key")
    mark = _fingerprint(body, peer) if can_guess else None
    return Identity(f"like:{mark}", None, "fingerprint", "fingerprint") if mark else None


def clean(name: str) -> str:
    """Return a name that is fit to be shown: printable, and not too long to tell it from others."""
    shown = _UNPRINTABLE.sub("?", name)
    if len(shown) <= _LONGEST and shown == name:
        return shown
    return f"{shown[: _LONGEST - 17]}~{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:16]}"


def _by_header(rule: ClientRule, session: str, headers: Mapping[str, str]) -> Identity:
    agent, parent = (headers.get(name, "") if name else "" for name in (rule.agent, rule.parent))
    own = f"{rule.name}:{clean(session)}"
    agent_id = _within(rule, own, agent)
    parent_id = _within(rule, own, parent) if parent else (own if agent else None)
    if rule.is_agent_global and not parent:
        parent_id = None
    return Identity(
        agent_id,
        parent_id if parent_id != agent_id else None,
        "header",
        rule.name,
        is_final=bool(rule.final) and headers.get(rule.final, "").strip().lower() in ("1", "true", "yes"),
        hold_s=rule.hold_s,
    )


def _within(rule: ClientRule, session: str, name: str) -> str:
    """Return the full name of an agent: of rules whose agents need no session, its own; else session/agent.

    Such a rule's parent may be named by its session, too, so both are names of one kind.
    """
    if not name:
        return session
    if rule.is_agent_global or not rule.agent:
        return f"{rule.name}:{clean(name)}"
    return f"{session}/{clean(name)}"


def _in_body(body: Mapping[str, Any]) -> str | None:
    metadata = body.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    if isinstance(user := metadata.get("user_id"), str) and (session := _session_of_user(user)):
        return session
    for place in (body, metadata):
        for name in _BODY_FIELDS:
            if isinstance(value := place.get(name), str) and value:
                return value
    return None


def _session_of_user(user_id: str) -> str | None:
    """Return the session that Claude Code puts into `metadata.user_id`, as text or as JSON."""
    if user_id.startswith("{"):
        try:
            found = json.loads(user_id).get("session_id")
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, str) else None
    found = _CLAUDE_SESSION.search(user_id)
    return found.group(1) if found else None


def _fingerprint(body: Mapping[str, Any], peer: str) -> str | None:
    """Return a mark of what stays the same in all calls of a conversation: everything up to its first task.

    Conversations that begin alike have one mark: they share a slot, which is too careful and never wrong.
    """
    turns = body.get("messages", body.get("input"))
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    if not isinstance(turns, list) or not turns:
        return None
    beginning = [peer, body.get("model"), body.get("system"), body.get("instructions")]
    try:
        text = json.dumps([*beginning, *_up_to_first_task(turns)], sort_keys=True, default=str)
    except RecursionError:
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _up_to_first_task(turns: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            break
        found.append([turn.get("role"), _without_marks(turn.get("content"))])
        if turn.get("role") == "user":
            break
    return found


def _without_marks(content: Any) -> Any:
    """Leave out the cache marks, which move from call to call."""
    if isinstance(content, list):
        return [_without_marks(part) for part in content]
    if isinstance(content, Mapping):
        return {key: value for key, value in content.items() if key != "cache_control"}
    return content
