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

from collections.abc import Sequence

from concur.sim.engine.request import Request
from concur.sim.kv.block_pool import BlockPool, KVCacheBlock
from concur.sim.kv.chain import AgentChain, BlockHash, BlockHasher


class KVCacheManager:
    """Blocks of all requests of one engine."""

    def __init__(self, block_pool: BlockPool, *, block_size: int, watermark: float) -> None:
        self.block_pool = block_pool
        self.block_size = block_size
        self.enable_caching = block_pool.enable_caching
        self._hasher = BlockHasher(block_size)
        # vLLM: `int(watermark * kv_cache_config.num_blocks)`
        self.watermark_blocks = int(watermark * block_pool.num_gpu_blocks)

    @property
    def num_evictions(self) -> int:
        """Number of cached blocks evicted so far."""
        return self.block_pool.num_evictions

    def new_chain(self, prefix_group: str | None, shared_prefix_tokens: int) -> AgentChain:
        """Return the chain of an agent that has not called yet."""
        return AgentChain(self._hasher, prefix_group=prefix_group, shared_prefix_tokens=shared_prefix_tokens)

    def get_usage(self) -> float:
        """Return the fraction of blocks that requests reference, 0 to 1."""
        return self.block_pool.get_usage()

    def get_resident(self) -> float:
        """Return the fraction of blocks that are referenced or cached, 0 to 1."""
        return self.block_pool.get_resident()

    def max_hit_blocks(self, request: Request) -> int:
        """Return how many blocks a look-up may credit: the last token is always computed."""
        return (request.num_tokens - 1) // self.block_size

    def get_computed_blocks(self, request: Request) -> list[KVCacheBlock]:
        """Return the longest run of cached blocks from the start of the request's tokens."""
        if not self.enable_caching:
            return []
        get_one_block = self.block_pool.cached_block_hash_to_block.get_one_block
        found: list[KVCacheBlock] = []
        for block_hash in request.chain.block_hashes[: self.max_hit_blocks(request)]:
            block = get_one_block(block_hash)
            if block is None:
                break
            found.append(block)
        return found

    def can_admit(
        self,
        request: Request,
        num_tokens: int,
        computed_blocks: Sequence[KVCacheBlock],
        *,
        keep_free_blocks: int,
    ) -> bool:
        """Tell whether a request without blocks can get room for `num_tokens` tokens in all.

        `keep_free_blocks` must remain free beside it: the watermark, or other requests' reservations.
        """
        assert not request.blocks
        needed = -(-num_tokens // self.block_size) - len(computed_blocks)
        idle = sum(block.ref_cnt == 0 for block in computed_blocks)
        return max(needed, 0) + idle + keep_free_blocks <= self.block_pool.get_num_free_blocks()

    def can_append(self, request: Request, num_new_tokens: int, *, keep_free_blocks: int = 0) -> bool:
        """Tell whether a request can get slots for `num_new_tokens` tokens more than it has computed."""
        missing = max(self._num_missing_blocks(request, num_new_tokens), 0)
        return missing + keep_free_blocks <= self.block_pool.get_num_free_blocks()

    def adopt(self, request: Request, computed_blocks: Sequence[KVCacheBlock]) -> None:
        """Give a request without blocks the cached blocks that it hit."""
        assert not request.blocks
        self.block_pool.touch(computed_blocks)
        request.blocks.extend(computed_blocks)
        request.num_cached_blocks = len(request.blocks)

    def append(self, request: Request, num_new_tokens: int) -> None:
        """Give the request slots for `num_new_tokens` more tokens, and cache the blocks they fill."""
        missing = self._num_missing_blocks(request, num_new_tokens)
        if missing > 0:
            request.blocks.extend(self.block_pool.get_new_blocks(missing))
        self.cache_blocks(request, min(request.num_computed_tokens + num_new_tokens, request.num_tokens))

    def extend(self, request: Request, num_blocks: int) -> None:
        """Give the request more blocks, whose contents are on their way."""
        request.blocks.extend(self.block_pool.get_new_blocks(num_blocks))

    def cache_blocks(self, request: Request, num_tokens: int) -> None:
        """Make the full blocks among the request's first `num_tokens` tokens findable."""
        num_full_blocks = num_tokens // self.block_size
        if num_full_blocks <= request.num_cached_blocks or not self.enable_caching:
            return
        hashes: Sequence[BlockHash] = request.chain.block_hashes
        for index in range(request.num_cached_blocks, num_full_blocks):
            self.block_pool.cache_full_block(request.blocks[index], hashes[index])
        request.num_cached_blocks = num_full_blocks

    def free(self, request: Request) -> None:
        """Release all blocks of the request, tail first."""
        self.block_pool.free_blocks(reversed(request.blocks))
        request.blocks.clear()
        request.num_cached_blocks = 0

    def _num_missing_blocks(self, request: Request, num_new_tokens: int) -> int:
        num_tokens = request.num_computed_tokens + num_new_tokens
        return -(-num_tokens // self.block_size) - len(request.blocks)
