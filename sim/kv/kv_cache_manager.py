"""Who holds which blocks: prefix look-up, slot allocation, release.

Semantics of vLLM 0.32.0, `v1/core/kv_cache_manager.py` and `single_type_kv_cache_manager.py`
(`FullAttentionManager`), for one group of full-attention layers:

- at least one token of a prompt is always computed, so a look-up sees at most num_tokens - 1 tokens, and a
  prompt whose length is a multiple of the block size recomputes its whole last block;
- blocks become findable when they are *scheduled* to be full, not when the step ends;
- admission may demand that the full sequence fits (`scheduler_reserve_full_isl`) and that `watermark` of
  the pool stays free; cached idle blocks that a hit would take out of the free queue count as needed;
- blocks are freed tail first, so that a chain is evicted from its end.

Asks come before commands: a refused allocation has changed nothing.
"""

from concur.sim.kv.block_pool import BlockPool, KVCacheBlock
from concur.sim.kv.history import History


class _Holding:
    """What one request holds: `num_cached_blocks` of its blocks, from the start, are findable."""

    __slots__ = ("blocks", "history", "num_cached_blocks")

    def __init__(self, history: History, blocks: list[KVCacheBlock]) -> None:
        self.history = history
        self.blocks = blocks
        self.num_cached_blocks = len(blocks)


class KVCacheManager:
    """Blocks of all requests of one engine."""

    def __init__(self, block_pool: BlockPool, *, block_size: int, watermark: float) -> None:
        self.block_pool = block_pool
        self.block_size = block_size
        self.enable_caching = block_pool.enable_caching
        # vLLM: `int(watermark * kv_cache_config.num_blocks)`
        self.watermark_blocks = int(watermark * block_pool.num_gpu_blocks)
        self._holdings: dict[str, _Holding] = {}

    @property
    def num_evictions(self) -> int:
        """Number of cached blocks evicted so far."""
        return self.block_pool.num_evictions

    def get_usage(self) -> float:
        """Return the fraction of blocks that requests reference, 0 to 1."""
        return self.block_pool.get_usage()

    def get_resident(self) -> float:
        """Return the fraction of blocks that are referenced or cached, 0 to 1."""
        return self.block_pool.get_resident()

    def get_blocks(self, request_id: str) -> list[KVCacheBlock]:
        """Return the blocks that a request holds, in order."""
        holding = self._holdings.get(request_id)
        return [] if holding is None else holding.blocks

    def num_blocks_of(self, request_id: str) -> int:
        """Return how many blocks a request holds."""
        return len(self.get_blocks(request_id))

    def max_hit_blocks(self, num_tokens: int) -> int:
        """Return how many blocks a look-up may credit: the last token is always computed."""
        return (num_tokens - 1) // self.block_size

    def count_hits(self, history: History, num_tokens: int) -> int:
        """Return how many blocks at the start of a history's first `num_tokens` tokens are cached."""
        return len(self._find(history, self.max_hit_blocks(num_tokens)))

    def can_admit(
        self, history: History, num_hit_blocks: int, num_tokens: int, *, keep_free_blocks: int
    ) -> bool:
        """Tell whether somebody who hits that many blocks can get room for `num_tokens` tokens in all.

        `keep_free_blocks` must remain free beside it: the watermark, or other requests' reservations.
        """
        needed = -(-num_tokens // self.block_size) - num_hit_blocks
        idle = sum(block.ref_cnt == 0 for block in self._find(history, num_hit_blocks))
        return max(needed, 0) + idle + keep_free_blocks <= self.block_pool.get_num_free_blocks()

    def can_append(self, request_id: str, num_tokens: int, *, keep_free_blocks: int = 0) -> bool:
        """Tell whether a request can get slots up to `num_tokens` tokens in all."""
        missing = max(self._num_missing_blocks(request_id, num_tokens), 0)
        return missing + keep_free_blocks <= self.block_pool.get_num_free_blocks()

    def adopt(self, request_id: str, history: History, num_hit_blocks: int) -> None:
        """Give a request without blocks the cached blocks that it hits."""
        assert request_id not in self._holdings
        blocks = self._find(history, num_hit_blocks)
        self.block_pool.touch(blocks)
        self._holdings[request_id] = _Holding(history, blocks)

    def append(self, request_id: str, num_tokens: int, num_known_tokens: int) -> None:
        """Give a request slots up to `num_tokens` tokens, and cache the blocks that known ones fill."""
        missing = self._num_missing_blocks(request_id, num_tokens)
        if missing > 0:
            self.extend(request_id, missing)
        self.cache_blocks(request_id, num_known_tokens)

    def extend(self, request_id: str, num_blocks: int) -> None:
        """Give the request more blocks, whose contents are on their way."""
        self._holdings[request_id].blocks += self.block_pool.get_new_blocks(num_blocks)

    def cache_blocks(self, request_id: str, num_tokens: int) -> None:
        """Make the full blocks among the request's first `num_tokens` tokens findable."""
        holding = self._holdings[request_id]
        num_full_blocks, first = num_tokens // self.block_size, holding.num_cached_blocks
        if num_full_blocks <= first or not self.enable_caching:
            return
        hashes = holding.history.block_hashes(first, num_full_blocks)
        for block, block_hash in zip(holding.blocks[first:num_full_blocks], hashes, strict=True):
            self.block_pool.cache_full_block(block, block_hash)
        holding.num_cached_blocks = num_full_blocks

    def free(self, request_id: str) -> None:
        """Release all blocks of the request, tail first."""
        self.block_pool.free_blocks(reversed(self._holdings.pop(request_id).blocks))

    def _find(self, history: History, num_blocks: int) -> list[KVCacheBlock]:
        """Return the cached blocks at the start of a history, at most `num_blocks`."""
        found: list[KVCacheBlock] = []
        if self.enable_caching:
            get_one_block = self.block_pool.cached_block_hash_to_block.get_one_block
            for block_hash in history.block_hashes(0, num_blocks):
                block = get_one_block(block_hash)
                if block is None:
                    break
                found.append(block)
        return found

    def _num_missing_blocks(self, request_id: str, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size) - len(self._holdings[request_id].blocks)
