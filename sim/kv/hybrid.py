"""Who holds which blocks where layers differ: a block table for each group of layers, one block pool.

Semantics of vLLM 0.32.0, `v1/core/kv_cache_coordinator.py` (`HybridKVCacheCoordinator`),
`kv_cache_manager.py` and `single_type_kv_cache_manager.py`; what a kind of layers asks for is said in
`concur.sim.kv.groups`.

- A block is cached under its hash and the number of its group. Hashes are of `block_size` tokens, the
  greatest common divisor of the groups' sizes; hits end at multiples of `alignment_tokens`, the least common
  multiple, and blocks become findable by whole multiples of it.
- A hit is what full attention finds, shortened by the others: one round if there are two kinds, one of them
  full, else until nobody shortens it.
- In a block table, the null block stands for what has left the window. Such blocks are freed before a
  request is given more, whether it gets them or not, and only for tokens whose step is done.
- An admission is asked twice: do the blocks that the whole sequence holds at any one time fit
  (`can_reserve`), and do those of its next chunk (`can_admit`)?
- Blocks are freed group by group, tail first.
"""

from collections.abc import Callable, Sequence
from math import lcm

from concur.sim.kv.block_pool import BlockPool, KVCacheBlock
from concur.sim.kv.groups import CacheGroup, FullAttention
from concur.sim.kv.history import BlockHash, History


class _Table:
    """One request's blocks of one group; the first `num_cached_blocks` need not be cached any more."""

    __slots__ = ("blocks", "num_cached_blocks")

    def __init__(self, blocks: list[KVCacheBlock]) -> None:
        self.blocks = blocks
        self.num_cached_blocks = len(blocks)


class _Holding:
    """What one request holds, group by group."""

    __slots__ = ("history", "tables")

    def __init__(self, history: History, tables: list[_Table]) -> None:
        self.history = history
        self.tables = tables


class HybridKVCacheManager:
    """Blocks of all requests of one engine, whose layers are of several kinds.

    `most_blocks` of each group are what a request holds there at most.
    """

    def __init__(
        self,
        block_pool: BlockPool,
        groups: Sequence[CacheGroup],
        *,
        block_size: int,
        watermark: float,
        most_blocks: Sequence[int],
    ) -> None:
        self.block_pool = block_pool
        self.groups = tuple(groups)
        self.block_size = block_size
        self.alignment_tokens = lcm(*(group.block_size for group in groups))
        self.enable_caching = block_pool.enable_caching
        self.watermark_blocks = int(watermark * block_pool.num_gpu_blocks)
        self._most_blocks = most_blocks
        self._null_block = block_pool.blocks[0]
        self._kinds = _alike(self.groups)
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

    def get_tables(self, request_id: str) -> tuple[list[KVCacheBlock], ...]:
        """Return the block tables of a request, one for each group; the null block stands for a gap."""
        holding = self._holdings.get(request_id)
        if holding is None:
            return tuple([] for _ in self.groups)
        return tuple(table.blocks for table in holding.tables)

    def num_blocks_of(self, request_id: str) -> int:
        """Return how many blocks a request holds, in all groups."""
        null = self._null_block
        return sum(block is not null for blocks in self.get_tables(request_id) for block in blocks)

    def max_hit_blocks(self, num_tokens: int) -> int:
        """Return how many blocks a look-up may credit: the last token is always computed."""
        return (num_tokens - 1) // self.block_size

    def count_hits(self, history: History, num_tokens: int) -> int:
        """Return how many blocks, of `block_size` tokens, at the start of a history all groups can use."""
        if not self.enable_caching:
            return 0
        names = list(history.block_hashes(0, self.max_hit_blocks(num_tokens)))
        hit_tokens = num_tokens - 1
        found: dict[CacheGroup, int] = {}  # what full attention finds: shorter prefixes are hits too
        while True:
            before = hit_tokens
            for group, numbers in self._kinds:
                if group in found:
                    hit_tokens = min(hit_tokens, found[group])
                    continue
                is_cached = self._is_cached(names, group, numbers)
                hit_tokens = group.find(is_cached, hit_tokens, self.alignment_tokens)
                if isinstance(group, FullAttention):
                    found[group] = hit_tokens
            if hit_tokens == before or (len(self._kinds) == 2 and found):
                return hit_tokens // self.block_size

    def can_reserve(
        self, history: History, num_hit_blocks: int, num_tokens: int, *, keep_free_blocks: int
    ) -> bool:
        """Tell whether all that a sequence of `num_tokens` tokens holds at any one time fits."""
        return self._fits(history, num_hit_blocks, num_tokens, self._most_blocks, keep_free_blocks)

    def can_admit(
        self, history: History, num_hit_blocks: int, num_tokens: int, *, keep_free_blocks: int
    ) -> bool:
        """Tell whether somebody who hits that many blocks can get slots up to `num_tokens` tokens."""
        return self._fits(history, num_hit_blocks, num_tokens, None, keep_free_blocks)

    def can_append(self, request_id: str, num_tokens: int, *, keep_free_blocks: int = 0) -> bool:
        """Tell whether a request can get slots up to `num_tokens` tokens in all."""
        missing = sum(self._num_missing_blocks(request_id, num_tokens))
        return missing + keep_free_blocks <= self.block_pool.get_num_free_blocks()

    def adopt(self, request_id: str, history: History, num_hit_blocks: int) -> None:
        """Give a request without blocks the cached blocks that it hits, without those that it skips."""
        assert request_id not in self._holdings
        tables = []
        for number, group in enumerate(self.groups):
            gap, found = self._hits(history, group, number, num_hit_blocks)
            self.block_pool.touch(found)
            tables.append(_Table([self._null_block] * gap + found))
        self._holdings[request_id] = _Holding(history, tables)

    def append(self, request_id: str, num_tokens: int, num_known_tokens: int) -> None:
        """Give a request slots up to `num_tokens` tokens, and cache the blocks that known ones fill."""
        missing = self._num_missing_blocks(request_id, num_tokens)
        for table, num_blocks in zip(self._holdings[request_id].tables, missing, strict=True):
            if num_blocks:
                table.blocks += self.block_pool.get_new_blocks(num_blocks)
        self.cache_blocks(request_id, num_known_tokens)

    def extend(self, request_id: str, num_blocks: int) -> None:
        """Refuse: nothing is loaded into the blocks of layers that differ."""
        raise AssertionError("a pool with several groups of layers has no second tier")

    def remove_skipped_blocks(self, request_id: str, num_tokens: int) -> None:
        """Free the blocks that nobody attends to once the first `num_tokens` tokens are done."""
        for group, table in zip(self.groups, self._holdings[request_id].tables, strict=True):
            last = min(group.num_skipped_tokens(num_tokens) // group.block_size, len(table.blocks))
            freed = []
            while last and table.blocks[last - 1] is not self._null_block:
                last -= 1
                freed.append(table.blocks[last])
                table.blocks[last] = self._null_block
            self.block_pool.free_blocks(freed)

    def cache_blocks(self, request_id: str, num_tokens: int) -> None:
        """Make the full blocks among the request's first tokens findable, where a hit could need them."""
        if not self.enable_caching:
            return
        holding = self._holdings[request_id]
        num_tokens -= num_tokens % self.alignment_tokens
        for number, (group, table) in enumerate(zip(self.groups, holding.tables, strict=True)):
            first, end = table.num_cached_blocks, num_tokens // group.block_size
            if end <= first:
                continue
            names = self._names(holding.history, group, first, end)
            for index, name in enumerate(names, start=first):
                block = table.blocks[index]
                if block is not self._null_block and group.is_reachable(index, self.alignment_tokens):
                    self.block_pool.cache_full_block(block, self._key(name, number))
            table.num_cached_blocks = end

    def free(self, request_id: str) -> None:
        """Release all blocks of the request, group by group, tail first."""
        null = self._null_block
        for table in self._holdings.pop(request_id).tables:
            self.block_pool.free_blocks(block for block in reversed(table.blocks) if block is not null)

    def _fits(
        self,
        history: History,
        num_hit_blocks: int,
        num_tokens: int,
        most_blocks: Sequence[int] | None,
        keep_free_blocks: int,
    ) -> bool:
        needed = keep_free_blocks
        for number, group in enumerate(self.groups):
            num_blocks = -(-num_tokens // group.block_size)
            if most_blocks is not None:
                num_blocks = min(num_blocks, most_blocks[number])
            gap, found = self._hits(history, group, number, num_hit_blocks)
            needed += max(num_blocks - gap - len(found), 0)
            needed += sum(block.ref_cnt == 0 for block in found)
        return needed <= self.block_pool.get_num_free_blocks()

    def _hits(
        self, history: History, group: CacheGroup, number: int, num_hit_blocks: int
    ) -> tuple[int, list[KVCacheBlock]]:
        """Return how many blocks of a group a hit skips, and those that it uses behind them."""
        hit_tokens = num_hit_blocks * self.block_size
        gap = group.num_skipped_tokens(hit_tokens) // group.block_size
        get_one_block = self.block_pool.cached_block_hash_to_block.get_one_block
        found = []
        for name in self._names(history, group, gap, hit_tokens // group.block_size):
            block = get_one_block(self._key(name, number))
            assert block is not None, "a hit is of blocks that are there"
            found.append(block)
        return gap, found

    def _is_cached(
        self, names: Sequence[BlockHash], group: CacheGroup, numbers: Sequence[int]
    ) -> Callable[[int], bool]:
        """Return the question whether a block of a history can be found in all groups of a kind."""
        get_one_block = self.block_pool.cached_block_hash_to_block.get_one_block
        size = group.block_size // self.block_size

        def is_cached(block_index: int) -> bool:
            name = names[(block_index + 1) * size - 1]
            return all(get_one_block(self._key(name, number)) is not None for number in numbers)

        return is_cached

    def _names(self, history: History, group: CacheGroup, first: int, end: int) -> Sequence[BlockHash]:
        """Return the names of a group's blocks: that of the last hash block in each."""
        size = group.block_size // self.block_size
        return list(history.block_hashes(first * size, end * size))[size - 1 :: size]

    def _key(self, name: BlockHash, number: int) -> BlockHash:
        return BlockHash(name * len(self.groups) + number)

    def _num_missing_blocks(self, request_id: str, num_tokens: int) -> list[int]:
        return [
            max(-(-num_tokens // group.block_size) - len(table.blocks), 0)
            for group, table in zip(self.groups, self._holdings[request_id].tables, strict=True)
        ]


def _alike(groups: Sequence[CacheGroup]) -> list[tuple[CacheGroup, list[int]]]:
    """Return the different kinds with the numbers of their groups, full attention first."""
    kinds: dict[CacheGroup, list[int]] = {}
    for number, group in enumerate(groups):
        kinds.setdefault(group, []).append(number)
    return sorted(kinds.items(), key=lambda kind: not isinstance(kind[0], FullAttention))
