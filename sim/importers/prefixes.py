"""What prompts have in common, told by the hashes of their blocks: within an agent, and across agents."""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any, Final, TypeAlias

from concur.sim.importers.calls import Call
from concur.sim.importers.values import list_of
from concur.sim.traces.format import Prefix

Blocks: TypeAlias = "array[int]"
"""The hashes of the blocks of a prompt, 8 bytes each."""
NO_BLOCKS: Final = array("q")
Levels = list[tuple[int, int]]
"""What an agent begins with: groups of agents, from the largest in, and how many blocks each adds."""


def blocks_of(value: Any) -> Blocks:
    """Return a list of hashes, as far as they are numbers or texts."""
    return array("q", (_short(block) for block in list_of(value) if isinstance(block, int | str)))


def _short(block: int | str) -> int:
    if isinstance(block, int):
        return hash(block)
    return int.from_bytes(blake2b(block.encode("utf-8", "replace"), digest_size=8).digest(), signed=True)


def shared_levels(starts: Sequence[Blocks]) -> list[Levels]:
    """Return for each agent what its first prompt shares with others: a level for each set of them."""
    found: list[Levels] = [[] for _ in starts]
    number = 0
    waiting = deque([(sorted(range(len(starts)), key=lambda agent: starts[agent]), 0)])
    while waiting:
        agents, had = waiting.popleft()
        if len(agents) < 2:
            continue
        has = common_blocks(starts[agents[0]], starts[agents[-1]])  # sorted: all between have as many
        if has > had:
            number += 1
            for agent in agents:
                found[agent].append((number, has - had))
        waiting.extend((members, has) for members in _branches(agents, starts, has))
    return found


def _branches(agents: Sequence[int], starts: Sequence[Blocks], depth: int) -> Iterator[list[int]]:
    """Yield those of sorted agents that go on with the same block."""
    going_on = [agent for agent in agents if len(starts[agent]) > depth]
    for _, members in groupby(going_on, key=lambda agent: starts[agent][depth]):
        yield list(members)


def as_prefixes(levels: Levels, block_tokens: int, max_tokens: int, group: str = "") -> tuple[Prefix, ...]:
    """Return levels as prefixes of at most `max_tokens`: the last block of a prompt may not be full."""
    prefixes: list[Prefix] = []
    left = max_tokens
    for number, num_blocks in levels:
        tokens = min(num_blocks * block_tokens, left)
        if tokens > 0:
            prefixes.append(Prefix(f"{group}blocks-{number}", tokens))
        left -= tokens
    return tuple(prefixes)


def common_tokens(before: Call, had: Blocks, call: Call, has: Blocks, block_tokens: int) -> int | None:
    """Return how far a prompt equals the one before; `None` where it goes on from it, or nobody knows."""
    if not had or not has or not block_tokens:
        return None
    common = common_blocks(had, has)
    goes_on = common >= before.prompt_tokens // block_tokens
    if goes_on and call.prompt_tokens >= before.prompt_tokens + before.output_tokens:
        return None
    return min(common * block_tokens, before.prompt_tokens)


def common_blocks(left: Blocks, right: Blocks) -> int:
    """Return how many blocks two prompts begin with together."""
    number = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        number += 1
    return number
