"""Request traces with hashes of blocks: Mooncake, AIPerf and what follows them, and Bailian of Qwen.

Without a `session_id` a line is a request of nobody, and an agent of its own. With one, the lines after the
first hold either the whole prompt, which then begins with the same block, or only what is new in it. Bailian
(`chat_id`, `parent_chat_id`) has whole prompts, blocks of 16 tokens instead of 512, seconds instead of
milliseconds; two turns after the same one are a fork.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted
from concur.sim.importers.files import json_objects
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.prefixes import (
    NO_BLOCKS,
    Blocks,
    Levels,
    as_prefixes,
    blocks_of,
    common_tokens,
    shared_levels,
)
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.values import scaled, text_of
from concur.sim.traces.format import TraceAgent

_BLOCK_TOKENS: Final = 512
_BAILIAN_BLOCK_TOKENS: Final = 16
_ROOT: Final = "-1"


@dataclass(slots=True)
class _Agent:
    """An agent while its rows come in: calls with their blocks."""

    name: str
    calls: list[Call] = field(default_factory=list)
    blocks: list[Blocks] = field(default_factory=list)
    parent: tuple[str, int] | None = None
    forked_tokens: int = 0
    is_fresh: bool = True


@dataclass(slots=True)
class _File:
    """A file while its rows come in: agents by name, and Bailian's turns by id."""

    name: str
    block_tokens: int
    agents: dict[str, _Agent] = field(default_factory=dict)
    turns: dict[str, tuple[_Agent, int]] = field(default_factory=dict)


def _told_by(head: Head) -> bool:
    first = head.first("input_length", "output_length")
    return first is not None and bool(
        first.keys() & {"timestamp", "delay", "delay_ms", "hash_ids", "chat_id"}
    )


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    for path in paths:
        file = _File(path.name.partition(".")[0] + "/" if len(paths) > 1 else "", _block_tokens(path))
        for where, row in json_objects(path, notes):
            _take(file, row, where, notes)
        agents = list(file.agents.values())
        # a fork begins with what its parent has, whatever others begin with
        levels = shared_levels([agent.blocks[0] if agent.parent is None else NO_BLOCKS for agent in agents])
        found = zip(agents, levels, strict=True)
        yield from agents_of([_recorded(file, agent, own) for agent, own in found], notes)


def _block_tokens(path: Path) -> int:
    """Return the size of blocks that the name of a file says, as Bailian's do; 0 where it says none."""
    named = re.search(r"blksz_(\d{1,5})(?!\d)", path.name)
    return int(named[1]) if named else 0


def _take(file: _File, row: Mapping[str, Any], where: str, notes: Notes) -> None:
    tokens = counted(row.get("input_length"), row.get("output_length"), where, notes)
    if tokens is None:
        return
    blocks = blocks_of(row.get("hash_ids"))
    if "chat_id" in row:
        file.block_tokens = file.block_tokens or _BAILIAN_BLOCK_TOKENS
        time_s = scaled(row.get("timestamp"), 1.0)
        _take_turn(file, row, Call(*tokens, where, began_s=time_s, ended_s=time_s), blocks, notes)
        return
    file.block_tokens = file.block_tokens or _BLOCK_TOKENS
    time_s = scaled(row.get("timestamp"), 1e-3)
    call = Call(*tokens, where, began_s=time_s, ended_s=time_s)
    name = text_of(row.get("session_id"))
    if name is None:
        notes.guess("a request without a session is an agent of its own", where)
        name = f"request-{len(file.agents)}"
    agent = file.agents.setdefault(file.name + name, _Agent(file.name + name))
    if agent.calls:
        delay = row.get("delay_ms") if row.get("delay") is None else row.get("delay")
        call = _following(file, agent, call, blocks, scaled(delay, 1e-3), notes)
    agent.calls.append(call)
    agent.blocks.append(blocks)


def _following(
    file: _File, agent: _Agent, call: Call, blocks: Blocks, delay_s: float | None, notes: Notes
) -> Call:
    """Return a call after the first one of a session: with its whole prompt, and its time.

    How long the call before it took is not recorded: on the clock of these traces it takes no time.
    """
    before, had = agent.calls[-1], agent.blocks[-1]
    if delay_s is not None:
        begins_s = (before.ended_s or 0.0) + delay_s
        call = replace(call, began_s=begins_s, ended_s=begins_s)
    elif call.began_s is not None:
        notes.guess("a wait includes the call before it, whose end was not recorded", call.where)
    if had and blocks and had[0] == blocks[0]:
        return replace(call, common_tokens=common_tokens(before, had, call, blocks, file.block_tokens))
    if not had or not blocks:
        notes.guess("a prompt without hashes is what is new in its session", call.where)
    return replace(call, prompt_tokens=before.prompt_tokens + before.output_tokens + call.prompt_tokens)


def _take_turn(file: _File, row: Mapping[str, Any], call: Call, blocks: Blocks, notes: Notes) -> None:
    """Take a row of Bailian: it goes on from its parent's agent, or forks it, or begins one."""
    name = text_of(row.get("chat_id")) or call.where
    parent = text_of(row.get("parent_chat_id")) or _ROOT
    before = file.turns.get(parent)
    if before is not None:
        agent, number = before
        common = common_tokens(agent.calls[number], agent.blocks[number], call, blocks, file.block_tokens)
        if number == len(agent.calls) - 1:
            notes.guess("a wait includes the call before it, whose end was not recorded", call.where)
            call = replace(call, common_tokens=common)
        else:
            forked = call.prompt_tokens if common is None else common
            agent = _Agent(file.name + name, parent=(agent.name, number), forked_tokens=forked)
    else:
        if parent != _ROOT:
            notes.guess("a turn whose turn before is not in the file begins an agent", call.where)
        agent = _Agent(file.name + name, is_fresh=parent == _ROOT)
    file.agents.setdefault(agent.name, agent)
    agent.calls.append(call)
    agent.blocks.append(blocks)
    file.turns[name] = (agent, len(agent.calls) - 1)


def _recorded(file: _File, agent: _Agent, levels: Levels) -> Recorded:
    first = agent.calls[0]
    parent, step = agent.parent or (None, None)
    return Recorded(
        agent_id=agent.name,
        source="bailian" if file.turns else "mooncake",
        calls=agent.calls,
        parent=parent,
        parent_step=step,
        is_awaited=False,
        is_fresh=agent.is_fresh,
        forked_tokens=agent.forked_tokens,
        prefixes=as_prefixes(levels, file.block_tokens, first.prompt_tokens, file.name),
    )


MOONCAKE: Final = CountsImporter(
    name="mooncake",
    title="Mooncake, AIPerf or Bailian request trace (JSONL with input_length and hash_ids)",
    told_by=_told_by,
    agents=_agents,
)
