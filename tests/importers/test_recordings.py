"""What real clients wrote of their calls, against what the server saw of the same calls."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.importers.helpers import imported
from tests.importers.server_log import RECORDINGS, assert_agrees, by_agent, scripted_rows

SUMMARIES = (
    15758,
    15857,
)  # prompts of two calls that Claude Code makes at `/compact` and does not write down


def recorded(client: str) -> list[Path]:
    return sorted(path for path in (RECORDINGS / client).glob("*.jsonl") if path.name != "server.jsonl")


def claude_code_agent(row: Mapping[str, Any]) -> str:
    return f"{row['session']}/{row['agent']}" if row["agent"] else str(row["session"])


def codex_agent(row: Mapping[str, Any]) -> str:
    return str(row["agent"] or row["session"])


def test_a_claude_code_session_with_its_sub_agents_is_what_the_server_saw() -> None:
    agents, notes = imported(*recorded("claude-code"))
    rows = [row for row in scripted_rows("claude-code") if row["prompt_tokens"] not in SUMMARIES]
    assert_agrees(agents, by_agent(rows, claude_code_agent))
    by_step = [(agent.parent_step, agent.joins) for agent in agents if agent.is_spawned]
    assert by_step == [(1, True), (2, False), (4, True), (4, True)], "one beside its parent, two at once"
    root = next(agent for agent in agents if not agent.is_spawned)
    assert root.steps[8].kept_tokens == 7997, "after /compact it keeps the system prompt only"
    assert list(notes.lines()) == []


def test_codex_threads_are_what_the_server_saw() -> None:
    agents, _ = imported(*recorded("codex"))
    assert_agrees(agents, by_agent(scripted_rows("codex"), codex_agent))
    assert [agent.parent_step for agent in agents] == [None, 2, 2]
