"""The second tier: evicted blocks in host memory, to be reloaded instead of recomputed.

What is modelled (ours; vLLM's KV connectors differ in detail): a block that is evicted from the GPU pool is
kept in host memory under its hash, least recently used out first. Writing it there is free: it goes over
the other direction of the link, in the background. Reading it back takes the link, see
`concur.sim.engine.host_link`.
"""

from collections import OrderedDict
from collections.abc import Sequence

from concur.sim.kv.chain import BlockHash


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
        if not self.capacity_blocks:
            return
        self._resident[block_hash] = None
        self._resident.move_to_end(block_hash)
        if len(self._resident) > self.capacity_blocks:
            self._resident.popitem(last=False)

    def count_hits(self, block_hashes: Sequence[BlockHash], start: int, stop: int) -> int:
        """Return how many blocks of `block_hashes[start:stop]` are here without a gap; changes nothing."""
        hits = 0
        for index in range(start, stop):
            if block_hashes[index] not in self._resident:
                break
            hits += 1
        return hits

    def refresh(self, block_hashes: Sequence[BlockHash], start: int, stop: int) -> None:
        """Take note that blocks `start` to `stop`, which are here, are used now."""
        for index in range(start, stop):
            self._resident.move_to_end(block_hashes[index])
