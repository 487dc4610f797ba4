"""The trace format, version 2. A trace is JSONL or JSONL.gz with one agent a line, in counts, without text.

::

    {"agent_id": "a", "source": "...", "arrival_s": 0.0, "fresh_start": true,
     "prefixes": [{"group": "system", "tokens": 1200}, {"group": "task-7", "tokens": 56}],
     "steps": [{"new_prompt_tokens": 24, "output_tokens": 25, "tool_latency_s": 1.4, "max_new_tokens": 4096},
               {"new_prompt_tokens": 90, "output_tokens": 8, "tool_latency_s": null, "user_wait_s": 75.0,
                "kept_tokens": 40}]}
    {"agent_id": "a/1", "parent": "a", "parent_step": 0, "spawn_delay_s": 0.2, "joins": true,
     "fork_tokens": 1300, "steps": [...]}

**Histories.** prompt(i) = kept(i) + new(i). kept(i) is `kept_tokens` where given, else all of the history,
prompt(i-1) + output(i-1). The history before the first call is the prefix, or what a fork starts with.

**Prefixes**, from the outermost in: agents begin with the same tokens as far as their lists agree, and in the
first level that differs only in `tokens`, as far as the shorter one goes. `prefix_group` with
`shared_prefix_tokens` is the short form of a list of one.

**Sub-agents.** A child with `parent_step` starts `spawn_delay_s` after that step of its parent has ended. If
it `joins`, the parent's wait after that step lasts until the child has ended, and at least `tool_latency_s`.
If not, it runs beside its parent, which goes on calling. A fork starts with the first `fork_tokens` tokens of
what the parent's history is after that step. A `parent` without `parent_step` is a name and nothing else.

**Waits.** `tool_latency_s` follows a step; null means the last step, or not recorded. `user_wait_s` is a
person's pause after it, on top. `max_new_tokens` is the limit that the client sent with the call.

**Priority.** An agent's calls have its `priority`, 0 where it says none; the least goes first on an engine
whose scheduling policy looks at it.

Version 1 had no `arrival_s`, `prefixes`, `parent_step`, `spawn_delay_s`, `joins`, `fork_tokens`, `priority`
and `max_new_tokens`; its files mean what they meant. `schema` returns all of this as a JSON schema.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, TypeAdapter

from concur.sim.section import MAX_TOKENS

MAX_SECONDS: Final = 1e9
MAX_PRIORITY: Final = 1_000_000
_STRICT: Final = ConfigDict(extra="forbid", strict=True)

Name = Annotated[str, Field(min_length=1)]
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
SomeTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Priority = Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]
Duration = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix that all agents of a group share, after those of the groups around it."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    group: Name
    tokens: SomeTokens


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One recorded call; `None` where the recording is silent."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    new_prompt_tokens: Tokens
    output_tokens: SomeTokens
    tool_latency_s: Duration | None = None
    user_wait_s: Duration | None = None
    kept_tokens: Tokens | None = None
    max_new_tokens: SomeTokens | None = None


@dataclass(frozen=True, slots=True)
class TraceAgent:
    """One recorded agent: a line of the file. Rules across fields are in `concur.sim.traces.checks`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    agent_id: Name
    steps: Annotated[tuple[TraceStep, ...], Field(min_length=1)]
    source: str = ""
    arrival_s: Duration | None = None
    prefixes: tuple[Prefix, ...] = ()
    prefix_group: Name | None = None
    shared_prefix_tokens: Tokens = 0
    fresh_start: bool = True
    parent: Name | None = None
    parent_step: Annotated[int, Field(ge=0)] | None = None
    spawn_delay_s: Duration = 0.0
    joins: bool = True
    fork_tokens: Tokens = 0
    priority: Priority = 0

    @property
    def levels(self) -> tuple[Prefix, ...]:
        """Its shared prefixes from the outermost in, whichever way they are written."""
        if self.prefix_group is not None and self.shared_prefix_tokens:
            return (Prefix(self.prefix_group, self.shared_prefix_tokens),)
        return self.prefixes

    @property
    def starting_tokens(self) -> int:
        """Length of the history before the first call."""
        return sum(level.tokens for level in self.levels) + self.fork_tokens

    @property
    def is_spawned(self) -> bool:
        """Whether it starts in a wait of its parent."""
        return self.parent_step is not None


LINE: Final = TypeAdapter(TraceAgent)
"""Reads a line, and writes one."""


def schema() -> dict[str, Any]:
    """Return the JSON schema of one line."""
    return LINE.json_schema() | {"title": "A line of an agent trace, version 2"}


def to_line(agent: TraceAgent) -> str:
    """Return an agent as a line, without what it has by default.

    A null wait stays: it says that none was recorded, or that this is the last step.
    """
    raw = LINE.dump_python(agent, mode="json", exclude_defaults=True)
    for written, step in zip(raw["steps"], agent.steps, strict=True):
        written.setdefault("tool_latency_s", step.tool_latency_s)
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False) + "\n"
