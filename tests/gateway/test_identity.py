"""Who makes a call, from what every client sends."""

import json
from typing import Any

import pytest
from multidict import CIMultiDict
from pydantic import ValidationError

from concur.gateway.config import IdentityConfig
from concur.gateway.identity import Identity, clean, identify
from tests.gateway.helpers import asking, config

CHAT = asking()


def told(headers: dict[str, str], body: dict[str, Any] = CHAT) -> Identity:
    found = identify(CIMultiDict(headers), body)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("headers", "client", "agent", "parent"),
    [
        ({"X-Claude-Code-Session-Id": "s"}, "claude-code", "claude-code:s", None),
        (
            {"X-Claude-Code-Session-Id": "s", "x-claude-code-agent-id": "a"},
            "claude-code",
            "claude-code:s/a",
            "claude-code:s",
        ),
        (
            {
                "X-Claude-Code-Session-Id": "s",
                "x-claude-code-agent-id": "b",
                "x-claude-code-parent-agent-id": "a",
            },
            "claude-code",
            "claude-code:s/b",
            "claude-code:s/a",
        ),
        ({"session-id": "s", "thread-id": "s"}, "codex", "codex:s", None),
        (
            {"session-id": "s", "thread-id": "t", "x-codex-parent-thread-id": "s"},
            "codex",
            "codex:t",
            "codex:s",
        ),
        ({"X-Session-Id": "s", "x-session-affinity": "s"}, "opencode", "opencode:s", None),
        (
            {"x-session-affinity": "c", "X-Session-Id": "c", "x-parent-session-id": "s"},
            "opencode",
            "opencode:c",
            "opencode:s",
        ),
        ({"x-litellm-session-id": "s"}, "litellm", "litellm:s", None),
        ({"X-Session-ID": "s"}, "session-id", "session-id:s", None),
        ({"X-SMG-Routing-Key": "s"}, "smg", "smg:s", None),
        ({"X-Dynamo-Session-ID": "s"}, "dynamo", "dynamo:s", None),
        (
            {"X-Dynamo-Session-ID": "c", "X-Dynamo-Parent-Session-ID": "s"},
            "dynamo",
            "dynamo:c",
            "dynamo:s",
        ),
        ({"X-Correlation-ID": "s"}, "correlation-id", "correlation-id:s", None),
        ({"X-Concur-Agent-Id": "a", "session-id": "s"}, "concur", "concur:a", None),
    ],
)
def test_every_client_is_told_by_its_headers(
    headers: dict[str, str], client: str, agent: str, parent: str | None
) -> None:
    found = told(headers)
    assert (found.client, found.agent_id, found.parent, found.source) == (client, agent, parent, "header")


@pytest.mark.parametrize("header", ["X-Dynamo-Session-Final", "x-session-final"])
def test_a_header_says_that_a_call_is_the_last(header: str) -> None:
    session = "X-Dynamo-Session-ID" if "Dynamo" in header else "X-Session-Id"
    assert told({session: "s", header: "true"}).is_final
    assert not told({session: "s", header: "false"}).is_final
    assert not told({session: "s"}).is_final


@pytest.mark.parametrize(
    ("body", "agent"),
    [
        ({"metadata": {"user_id": "user_1_account__session_0e13c539-7b05-487f"}}, "body:0e13c539-7b05-487f"),
        ({"metadata": {"user_id": json.dumps({"session_id": "s1", "device_id": "d"})}}, "body:s1"),
        ({"program_id": "p"}, "body:p"),
        ({"metadata": {"session_id": "s2"}}, "body:s2"),
        ({"prompt_cache_key": "k"}, "key:k"),
        ({"program_id": "p", "prompt_cache_key": "k"}, "body:p"),
    ],
)
def test_fields_of_the_body_tell_it_where_no_header_does(body: dict[str, Any], agent: str) -> None:
    assert told({}, CHAT | body).agent_id == agent
    assert told({"x-session-id": "h"}, CHAT | body).agent_id == "session-id:h"


@pytest.mark.parametrize(
    "metadata", [None, [], {"user_id": "{broken"}, {"user_id": "{}"}, {"user_id": "bob"}]
)
def test_odd_metadata_tells_nothing(metadata: Any) -> None:
    assert told({}, CHAT | {"metadata": metadata}).source == "fingerprint"


def test_a_conversation_has_one_fingerprint_as_it_grows() -> None:
    task = {"role": "user", "content": [{"type": "text", "text": "t", "cache_control": {"type": "x"}}]}
    bare = {"role": "user", "content": [{"type": "text", "text": "t"}]}
    later = [bare, {"role": "assistant", "content": "a"}, {"role": "user", "content": "more"}]
    first, second = (told({}, asking() | {"messages": messages}) for messages in ([task], later))
    assert first.agent_id == second.agent_id
    assert not first.is_certain
    other = told({}, asking() | {"messages": [{"role": "user", "content": "another task"}]})
    assert other.agent_id != first.agent_id
    elsewhere = identify(CIMultiDict(), asking() | {"messages": [task]}, peer="10.0.0.2")
    assert elsewhere is not None
    assert elsewhere.agent_id != first.agent_id


def test_who_says_nothing_is_nobody() -> None:
    assert identify(CIMultiDict(), {}) is None
    assert identify(CIMultiDict(), CHAT, can_guess=False) is None


def test_names_are_fit_to_be_shown_and_stay_apart() -> None:
    long = "x" * 5000
    assert len(clean(long)) <= 200
    assert clean(long) != clean(long + "y")
    assert clean("a\nb") != clean("a\tb")
    assert "\n" not in clean("a\nb")


def test_the_table_takes_more_clients_but_no_secret_for_a_name() -> None:
    mine = {"name": "mine", "session": "x-mine", "hold_s": 30}
    rules = config(identity={"clients": [mine]}).identity.rules
    found = identify(CIMultiDict({"X-Mine": "m", "session-id": "s"}), CHAT, clients=rules)
    assert found is not None
    assert (found.agent_id, found.hold_s) == ("mine:m", 30)
    less = config(identity={"without": ["codex"]}).identity.rules
    assert identify(CIMultiDict({"session-id": "s"}), CHAT, clients=less, can_guess=False) is None
    with pytest.raises(ValidationError, match="codex"):
        IdentityConfig.model_validate({"without": ["kodex"]})
    with pytest.raises(ValidationError, match="secret"):
        IdentityConfig.model_validate({"clients": [mine | {"session": "authorization"}]})
