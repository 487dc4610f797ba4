"""The second tier: evicted blocks in host memory, to be reloaded instead of recomputed.

What is modelled (ours; vLLM's KV connectors differ in detail): a block that is evicted from the GPU pool is
kept in host memory under its hash, least recently used out first. Writing it there is free: it goes over
the other direction of the link, in the background. Reading it back takes the link, see
`concur.sim.engine.host_link`.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol

from concur.sim.kv.history import BlockHash


class Tier(Protocol):
    """What the scheduler asks of a second tier behind the block pool."""

    def store(self, block_hash: BlockHash) -> None:
        """Keep a block that the pool has just evicted."""
        ...

    def count_hits(self, block_hashes: Iterable[BlockHash]) -> int:
        """Return how many of the blocks, from the first on, are here without a gap; changes nothing."""
        ...

    def refresh(self, block_hashes: Iterable[BlockHash]) -> None:
        """Take note that these blocks, which are here, are used now."""
        ...


class HostCache:
    """Block hashes that are resident in host memory, in LRU order. O(1) per block."""

    __slots__ = ("_resident", "capacity_blocks")

    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = capacity_blocks
        self._resident: OrderedDict[BlockHash, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._resident)

    def store(self, block_hash: BlockHash) -> None:
        """Keep a block that the GPU pool has just evicted."""
        self._resident[block_hash] = None
        self._resident.move_to_end(block_hash)
        if len(self._resident) > self.capacity_blocks:
            self._resident.popitem(last=False)

    def count_hits(self, block_hashes: Iterable[BlockHash]) -> int:
        """Return how many of the blocks, from the first on, are here without a gap; changes nothing."""
        hits = 0
        for block_hash in block_hashes:
            if block_hash not in self._resident:
                break
            hits += 1
        return hits

    def refresh(self, block_hashes: Iterable[BlockHash]) -> None:
        """Take note that these blocks, which are here, are used now."""
        for block_hash in block_hashes:
            self._resident.move_to_end(block_hash)
