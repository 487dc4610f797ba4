"""Read agent traces: JSONL or JSONL.gz, one agent a line, token counts only.

::

    {"agent_id": "a", "source": "...", "prefix_group": "g", "shared_prefix_tokens": 1256, "fresh_start": true,
     "parent": null, "steps": [{"new_prompt_tokens": 24, "output_tokens": 25, "tool_latency_s": 1.4},
                               {"new_prompt_tokens": 90, "output_tokens": 8, "tool_latency_s": null,
                                "user_wait_s": 75.0, "kept_tokens": 40}]}

prompt(0) = shared_prefix_tokens + new(0); prompt(i) = kept(i) + new(i), where kept(i) is `kept_tokens`
if given, else the whole history prompt(i-1) + output(i-1). Agents of one `prefix_group` share their first
`shared_prefix_tokens` tokens. `tool_latency_s` is the wait after the step; null means last or not recorded.

A line that breaks the format is an error that names file, line, field and remedy: nothing is repaired.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concur.sim.errors import TraceError

MAX_TOKENS = 1_000_000_000
MAX_SECONDS = 1e9
_AGENT_FIELDS = frozenset(
    {"agent_id", "source", "prefix_group", "shared_prefix_tokens", "fresh_start", "parent", "steps"}
)
_STEP_FIELDS = frozenset(
    {"new_prompt_tokens", "output_tokens", "tool_latency_s", "user_wait_s", "kept_tokens"}
)


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One recorded call; `None` where the recording is silent."""

    new_prompt_tokens: int
    output_tokens: int
    tool_latency_s: float | None
    user_wait_s: float | None
    kept_tokens: int | None


@dataclass(frozen=True, slots=True)
class TraceAgent:
    """One recorded agent."""

    agent_id: str
    source: str
    prefix_group: str | None
    shared_prefix_tokens: int
    fresh_start: bool
    parent: str | None
    steps: tuple[TraceStep, ...]


@dataclass(frozen=True, slots=True)
class _Where:
    """A place in a trace, for error messages."""

    path: Path
    line: int
    step: int | None = None

    def error(self, field: str, problem: str, remedy: str) -> TraceError:
        step = "" if self.step is None else f", step {self.step}"
        return TraceError(f"{self.path}, line {self.line}{step}, {field}: {problem}; {remedy}")


def read_trace(path: Path) -> list[TraceAgent]:
    """Read and check a whole trace.

    Raises
    ------
    TraceError
        At the first line that breaks the format, or if the file is unreadable or holds no agent.
    """
    agents: list[TraceAgent] = []
    seen: dict[str, int] = {}
    for line, text in _lines(path):
        agent = _parse_agent(text, _Where(path, line))
        if agent.agent_id in seen:
            raise _Where(path, line).error(
                "agent_id",
                f"{agent.agent_id!r} is also on line {seen[agent.agent_id]}",
                "give each agent its own id",
            )
        seen[agent.agent_id] = line
        agents.append(agent)
    if not agents:
        raise TraceError(f"{path}: no agent in the file; a trace has one JSON object a line")
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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
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


def _parse_agent(text: str, where: _Where) -> TraceAgent:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise where.error("(whole line)", f"not JSON ({error})", "write one JSON object a line") from None
    if not isinstance(raw, dict):
        raise where.error("(whole line)", f"a JSON {type(raw).__name__}", "write one JSON object a line")
    _refuse_unknown(raw, _AGENT_FIELDS, where)
    steps = _required(raw, "steps", where)
    if not isinstance(steps, list) or not steps:
        raise where.error("steps", "not a list of at least one step", "leave agents without steps out")
    shared = _count(raw, "shared_prefix_tokens", where, default=0)
    group = _text(raw, "prefix_group", where)
    if shared > 0 and group is None:
        raise where.error("prefix_group", f"absent, with {shared} shared tokens", "name the group")
    return TraceAgent(
        agent_id=_text(raw, "agent_id", where, required=True) or "",
        source=_text(raw, "source", where) or "",
        prefix_group=group,
        shared_prefix_tokens=shared,
        fresh_start=_flag(raw, "fresh_start", where, default=True),
        parent=_text(raw, "parent", where),
        steps=_parse_steps(steps, shared, where),
    )


def _parse_steps(steps: list[Any], shared: int, where: _Where) -> tuple[TraceStep, ...]:
    parsed: list[TraceStep] = []
    history = shared
    for number, raw in enumerate(steps):
        here = _Where(where.path, where.line, number)
        if not isinstance(raw, dict):
            raise here.error("(whole step)", f"{raw!r} is not an object", "write {...}")
        _refuse_unknown(raw, _STEP_FIELDS, here)
        step = TraceStep(
            new_prompt_tokens=_count(raw, "new_prompt_tokens", here),
            output_tokens=_count(raw, "output_tokens", here, at_least=1),
            tool_latency_s=_seconds(raw, "tool_latency_s", here),
            user_wait_s=_seconds(raw, "user_wait_s", here),
            kept_tokens=None if raw.get("kept_tokens") is None else _count(raw, "kept_tokens", here),
        )
        if step.kept_tokens is not None and number == 0:
            raise here.error("kept_tokens", "the first step has no history", "leave it out")
        if step.kept_tokens is not None and step.kept_tokens > history:
            raise here.error(
                "kept_tokens",
                f"{step.kept_tokens} but the history so far is {history} tokens",
                f"give at most {history}, or leave it out to keep everything",
            )
        kept = history if step.kept_tokens is None else step.kept_tokens
        if kept + step.new_prompt_tokens < 1:
            raise here.error("new_prompt_tokens", "the prompt is empty", "give at least 1 token")
        history = kept + step.new_prompt_tokens + step.output_tokens
        parsed.append(step)
    return tuple(parsed)


def _refuse_unknown(raw: Mapping[str, Any], known: frozenset[str], where: _Where) -> None:
    unknown = sorted(set(raw) - known)
    if unknown:
        raise where.error(unknown[0], "unknown field", f"known: {', '.join(sorted(known))}")


def _required(raw: Mapping[str, Any], field: str, where: _Where) -> Any:
    if field not in raw:
        raise where.error(field, "missing", "every line and step must have it")
    return raw[field]


def _count(
    raw: Mapping[str, Any], field: str, where: _Where, *, at_least: int = 0, default: int | None = None
) -> int:
    value = raw.get(field, default) if default is not None else _required(raw, field, where)
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= MAX_TOKENS:
        bound = f"give a whole number of tokens, at least {at_least} and at most {MAX_TOKENS}"
        raise where.error(field, _shown(value), bound)
    return value


def _seconds(raw: Mapping[str, Any], field: str, where: _Where) -> float | None:
    value = raw.get(field)
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= MAX_SECONDS:
        bound = f"give seconds, at least 0 and at most {MAX_SECONDS:g}, or null where not recorded"
        raise where.error(field, _shown(value), bound)
    return float(value)


def _shown(value: Any) -> str:
    """Show a value in an error message, cut to a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(raw: Mapping[str, Any], field: str, where: _Where, *, required: bool = False) -> str | None:
    value = _required(raw, field, where) if required else raw.get(field)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not value:
        raise where.error(field, f"{value!r}", "give a non-empty string")
    return value


def _flag(raw: Mapping[str, Any], field: str, where: _Where, *, default: bool) -> bool:
    value = raw.get(field, default)
    if not isinstance(value, bool):
        raise where.error(field, f"{value!r}", "give true or false")
    return value
