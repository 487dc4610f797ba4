"""The block pool: which blocks are free, in which order they are evicted, and what they hold.

Semantics of vLLM 0.32.0, `v1/core/block_pool.py` and `v1/core/kv_cache_utils.py::FreeKVCacheBlockQueue`:

- block 0 is the null block: it is counted in `num_gpu_blocks` and never handed out;
- a full block is *cached* under its hash, in use or not; the same hash may be on several blocks (two
  requests that computed the same tokens), of which a look-up returns the first;
- a block whose `ref_cnt` falls to 0 joins the free queue: at the **end** if it is cached (LRU), at the
  **front** if it is not (nobody can want it again);
- taking a block from the front of the queue evicts whatever it held.

Left out: KV events, several block pools, partial blocks.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from concur.sim.kv.history import BlockHash


@dataclass(slots=True, eq=False)
class KVCacheBlock:
    """One block of the pool; `block_hash` is set while it is full and cached."""

    block_id: int
    ref_cnt: int = 0
    block_hash: BlockHash | None = None


class BlockHashToBlockMap:
    """Cached blocks by hash; usually one, several where the same tokens were computed twice. O(1)."""

    __slots__ = ("_cache",)

    def __init__(self) -> None:
        self._cache: dict[BlockHash, KVCacheBlock | dict[int, KVCacheBlock]] = {}

    def __len__(self) -> int:
        return len(self._cache)

    def get_one_block(self, key: BlockHash) -> KVCacheBlock | None:
        """Return the first block cached under `key`, or `None`."""
        found = self._cache.get(key)
        return next(iter(found.values())) if isinstance(found, dict) else found

    def insert(self, key: BlockHash, block: KVCacheBlock) -> None:
        """Cache `block` under `key`, beside any block that is there already."""
        found = self._cache.get(key)
        if found is None:
            self._cache[key] = block
        elif isinstance(found, dict):
            found[block.block_id] = block
        else:
            self._cache[key] = {found.block_id: found, block.block_id: block}

    def pop(self, key: BlockHash, block: KVCacheBlock) -> None:
        """Forget that `block` is cached under `key`."""
        found = self._cache[key]
        if isinstance(found, dict):
            del found[block.block_id]
            if not found:
                del self._cache[key]
        else:
            assert found is block
            del self._cache[key]


class BlockPool:
    """All blocks of one engine.

    Law: free + referenced = `num_gpu_blocks` - 1 after every operation, and a block with `ref_cnt` > 0 is
    never in the free queue. Allocation, touch and free cost O(1) per block.
    """

    def __init__(
        self,
        num_gpu_blocks: int,
        *,
        enable_caching: bool,
        on_evict: Callable[[BlockHash], None] | None = None,
    ) -> None:
        self.num_gpu_blocks = num_gpu_blocks
        self.enable_caching = enable_caching
        self.blocks = [KVCacheBlock(block_id) for block_id in range(num_gpu_blocks)]
        # Front = evicted next. An OrderedDict is a linked list with O(1) removal from the middle.
        self.free_block_queue = OrderedDict((block.block_id, block) for block in self.blocks[1:])
        self.cached_block_hash_to_block = BlockHashToBlockMap()
        self.num_cached_free_blocks = 0
        self.num_evictions = 0
        self._on_evict = on_evict

    def get_num_free_blocks(self) -> int:
        """Return how many blocks can be handed out, cached ones included."""
        return len(self.free_block_queue)

    def get_usage(self) -> float:
        """Return the fraction of blocks that requests reference, 0 to 1; cached idle blocks do not count."""
        return 1.0 - len(self.free_block_queue) / (self.num_gpu_blocks - 1)

    def get_resident(self) -> float:
        """Return the fraction of blocks that are referenced or cached, 0 to 1."""
        empty = len(self.free_block_queue) - self.num_cached_free_blocks
        return 1.0 - empty / (self.num_gpu_blocks - 1)

    def get_new_blocks(self, num_blocks: int) -> list[KVCacheBlock]:
        """Take blocks from the front of the free queue, evicting what they hold; ask first if they are there.

        Raises
        ------
        ValueError
            If fewer are free.
        """
        queue = self.free_block_queue
        if num_blocks > len(queue):
            raise ValueError(f"cannot get {num_blocks} blocks, {len(queue)} are free")
        taken = []
        for _ in range(num_blocks):
            _, block = queue.popitem(last=False)
            if block.block_hash is not None:
                self._evict(block, block.block_hash)
            block.ref_cnt = 1
            taken.append(block)
        return taken

    def touch(self, blocks: Sequence[KVCacheBlock]) -> None:
        """Reference cached blocks once more; idle ones leave the free queue."""
        queue = self.free_block_queue
        for block in blocks:
            if block.ref_cnt == 0:
                del queue[block.block_id]
                self.num_cached_free_blocks -= 1
            block.ref_cnt += 1

    def free_blocks(self, ordered_blocks: Iterable[KVCacheBlock]) -> None:
        """Drop one reference from each block; the first one given is evicted first."""
        queue = self.free_block_queue
        uncached = []
        for block in ordered_blocks:
            block.ref_cnt -= 1
            if block.ref_cnt:
                continue
            if block.block_hash is None:
                uncached.append(block)
            else:
                queue[block.block_id] = block
                self.num_cached_free_blocks += 1
        for block in reversed(uncached):
            queue[block.block_id] = block
            queue.move_to_end(block.block_id, last=False)

    def cache_full_block(self, block: KVCacheBlock, block_hash: BlockHash) -> None:
        """Make a full block findable under its hash."""
        block.block_hash = block_hash
        self.cached_block_hash_to_block.insert(block_hash, block)

    def _evict(self, block: KVCacheBlock, block_hash: BlockHash) -> None:
        self.cached_block_hash_to_block.pop(block_hash, block)
        block.block_hash = None
        self.num_cached_free_blocks -= 1
        self.num_evictions += 1
        if self._on_evict is not None:
            self._on_evict(block_hash)
