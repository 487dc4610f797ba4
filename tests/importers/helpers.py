"""Small recordings for tests of importers, and what becomes of them."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.catalog import IMPORTERS, detect
from concur.sim.importers.importer import JointImporter, Notes
from concur.sim.traces.format import TraceAgent
from tests.helpers import ROOT

SHARED: Final = ROOT.parent / "shared" / "field" / "importers"
_START: Final = datetime(2026, 5, 24, 10, tzinfo=UTC)


def at(seconds: float) -> str:
    """A time of a recording, in ISO 8601."""
    return (_START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def write_lines(path: Path, values: Iterable[Any]) -> Path:
    """Write JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def imported(*paths: Path, name: str | None = None) -> tuple[list[TraceAgent], Notes]:
    """Import files as one recording."""
    importer = detect(paths[0]) if name is None else IMPORTERS[name]
    assert isinstance(importer, JointImporter)
    notes = Notes()
    return list(importer.read_all(paths, notes, None)), notes


def numbers(agent: TraceAgent) -> list[tuple[int | None, int, int]]:
    """Kept, new and output tokens of each step."""
    return [(step.kept_tokens, step.new_prompt_tokens, step.output_tokens) for step in agent.steps]


def waits(agent: TraceAgent) -> list[float | None]:
    """The wait for tools after each step."""
    return [step.tool_latency_s for step in agent.steps]


# Claude Code


def usage(fresh: int, output: int, *, written: int = 0, read: int = 0) -> dict[str, int]:
    """Tokens as Anthropic counts them."""
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": output,
    }


def claude_line(kind: str, seconds: float, message: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A line of a session of Claude Code."""
    line = {"type": kind, "uuid": f"u-{kind}-{seconds}", "sessionId": "s", "isSidechain": "agentId" in more}
    return line | {"timestamp": at(seconds), "message": {"role": kind, **message}} | more


def claude_asks(seconds: float, text: str = "go on", **more: Any) -> dict[str, Any]:
    """A line of a person, or the task of a sub-agent."""
    return claude_line("user", seconds, {"content": text}, **more)


def claude_result(seconds: float, use: str, **more: Any) -> dict[str, Any]:
    """A line with the result of a tool."""
    return claude_line("user", seconds, {"content": [{"type": "tool_result", "tool_use_id": use}]}, **more)


def claude_says(
    seconds: float, message_id: str, tokens: dict[str, int], *uses: str, **more: Any
) -> dict[str, Any]:
    """A line of a message, with the tools that it uses."""
    content = [{"type": "tool_use", "id": use, "name": "Agent", "input": {}} for use in uses]
    message = {"id": message_id, "content": content or [{"type": "text", "text": "x"}], "usage": tokens}
    return claude_line("assistant", seconds, message, requestId=f"r-{message_id}", **more)


# Codex


def codex_meta(thread: str, seconds: float = 0, **more: Any) -> dict[str, Any]:
    """The first line of a rollout."""
    return {"timestamp": at(seconds), "type": "session_meta", "payload": {"id": thread, **more}}


def codex_count(
    seconds: float, last: Sequence[int] | None, total: Sequence[int] | None = None
) -> dict[str, Any]:
    """A `token_count` event: input, cached and output tokens of the last call, and of all."""
    names = ("input_tokens", "cached_input_tokens", "output_tokens")
    info = {
        kind: dict(zip(names, tokens, strict=True))
        for kind, tokens in (("last_token_usage", last), ("total_token_usage", total or last))
        if tokens is not None
    }
    payload = {"type": "token_count", "info": info or None}
    return {"timestamp": at(seconds), "type": "event_msg", "payload": payload}


def codex_item(seconds: float, kind: str = "function_call_output") -> dict[str, Any]:
    """A response item, or with `user_message` what a person said."""
    outer = "event_msg" if kind == "user_message" else "response_item"
    return {"timestamp": at(seconds), "type": outer, "payload": {"type": kind}}
