"""Which prefixes agents share, told by the hashes of the blocks that their first prompts begin with."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from concur.sim.importers.calls import Call
from concur.sim.traces.format import Prefix


@dataclass(slots=True)
class SharedBlocks:
    """A tree of blocks, with the number of agents that begin with each; first all `add`, then all ask."""

    group: str = ""
    _nodes: dict[tuple[int, Hashable], int] = field(default_factory=dict)
    _num_agents: list[int] = field(default_factory=lambda: [0])

    def add(self, blocks: Sequence[Hashable]) -> None:
        """Add the blocks that an agent begins with."""
        node = 0
        for block in blocks:
            node = self._nodes.setdefault((node, block), len(self._num_agents))
            if node == len(self._num_agents):
                self._num_agents.append(0)
            self._num_agents[node] += 1

    def prefixes(self, blocks: Sequence[Hashable], block_tokens: int, max_tokens: int) -> tuple[Prefix, ...]:
        """Return what an agent shares with others, a level for each number of them; at most `max_tokens`."""
        levels: list[Prefix] = []
        tokens = 0
        for node, num_blocks in self._levels(blocks):
            size = min(num_blocks * block_tokens, max_tokens - tokens)
            if size > 0:
                levels.append(Prefix(f"{self.group}blocks-{node}", size))
                tokens += size
        return tuple(levels)

    def _levels(self, blocks: Sequence[Hashable]) -> Iterator[tuple[int, int]]:
        """Yield first node and length of each run of blocks that equally many agents begin with."""
        node, first, length, sharing = 0, 0, 0, 0
        for block in blocks:
            node = self._nodes[node, block]
            number = self._num_agents[node]
            if number < 2:
                break
            if number != sharing and length:
                yield first, length
                length = 0
            if not length:
                first, sharing = node, number
            length += 1
        if length:
            yield first, length


def common_tokens(
    before: Call, had: Sequence[Hashable], call: Call, has: Sequence[Hashable], block_tokens: int
) -> int | None:
    """Return how far a prompt equals the one before; `None` where it goes on from it, or nobody knows."""
    if not had or not has or not block_tokens:
        return None
    common = common_blocks(had, has)
    goes_on = common >= before.prompt_tokens // block_tokens
    if goes_on and call.prompt_tokens >= before.prompt_tokens + before.output_tokens:
        return None
    return min(common * block_tokens, before.prompt_tokens)


def common_blocks(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Return how many blocks two prompts begin with together."""
    number = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        number += 1
    return number
