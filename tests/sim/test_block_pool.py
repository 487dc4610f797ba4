"""The block pool, as stories with the whole order of the free queue asserted."""

import pytest

from concur.sim.kv.block_pool import BlockHashToBlockMap, BlockPool, KVCacheBlock
from concur.sim.kv.history import BlockHash


def order(pool: BlockPool) -> list[int]:
    return list(pool.free_block_queue)


def cache(pool: BlockPool, blocks: list[KVCacheBlock], first_hash: int) -> None:
    for offset, block in enumerate(blocks):
        pool.cache_full_block(block, BlockHash(first_hash + offset))


def test_the_null_block_is_never_handed_out() -> None:
    pool = BlockPool(4, enable_caching=True)
    assert [block.block_id for block in pool.get_new_blocks(3)] == [1, 2, 3]
    assert pool.get_usage() == 1.0
    with pytest.raises(ValueError, match="0 are free"):
        pool.get_new_blocks(1)


def test_miss_free_hit_evict() -> None:
    """Legend: two requests of three blocks, the last one not full; tails are freed first."""
    pool = BlockPool(9, enable_caching=True)
    first, second = pool.get_new_blocks(3), pool.get_new_blocks(3)
    cache(pool, first[:2], 10)
    cache(pool, second[:2], 20)
    pool.free_blocks(reversed(first))  # uncached 3 to the front, 2 and 1 to the end
    pool.free_blocks(reversed(second))
    assert order(pool) == [6, 3, 7, 8, 2, 1, 5, 4]
    assert pool.num_cached_free_blocks == 4

    hit = pool.cached_block_hash_to_block.get_one_block(BlockHash(10))
    assert hit is first[0]
    pool.touch([hit])  # out of the middle of the queue
    assert order(pool) == [6, 3, 7, 8, 2, 5, 4]
    pool.free_blocks([hit])
    assert order(pool) == [6, 3, 7, 8, 2, 5, 4, 1]

    pool.get_new_blocks(5)  # three empty ones, two never used... then block 2, which held hash 11
    assert order(pool) == [5, 4, 1]
    assert pool.num_evictions == 1
    assert pool.cached_block_hash_to_block.get_one_block(BlockHash(11)) is None
    assert pool.cached_block_hash_to_block.get_one_block(BlockHash(10)) is first[0]


def test_a_block_in_use_by_two_requests_stays_until_both_let_go() -> None:
    pool = BlockPool(3, enable_caching=True)
    blocks = pool.get_new_blocks(1)
    cache(pool, blocks, 10)
    pool.touch(blocks)
    pool.free_blocks(blocks)
    assert pool.get_num_free_blocks() == 1
    pool.free_blocks(blocks)
    assert order(pool) == [2, 1]


def test_several_uncached_blocks_go_to_the_front_in_the_order_given() -> None:
    pool = BlockPool(6, enable_caching=True)
    pool.free_blocks(reversed(pool.get_new_blocks(3)))
    assert order(pool) == [3, 2, 1, 4, 5]


def test_the_same_tokens_on_two_blocks_are_found_on_the_first_until_it_is_evicted() -> None:
    found = BlockHashToBlockMap()
    one, two = KVCacheBlock(1), KVCacheBlock(2)
    found.insert(BlockHash(7), one)
    found.insert(BlockHash(7), two)
    assert found.get_one_block(BlockHash(7)) is one
    found.pop(BlockHash(7), one)
    assert found.get_one_block(BlockHash(7)) is two
    found.pop(BlockHash(7), two)
    assert found.get_one_block(BlockHash(7)) is None
    assert len(found) == 0


def test_usage_counts_referenced_blocks_and_resident_adds_cached_idle_ones() -> None:
    pool = BlockPool(11, enable_caching=True)
    blocks = pool.get_new_blocks(4)
    cache(pool, blocks[:3], 10)
    assert [pool.get_usage(), pool.get_resident()] == pytest.approx([0.4, 0.4])
    pool.free_blocks(reversed(blocks))
    assert [pool.get_usage(), pool.get_resident()] == pytest.approx([0.0, 0.3])


def test_evicted_hashes_are_reported_in_order() -> None:
    evicted: list[BlockHash] = []
    pool = BlockPool(4, enable_caching=True, on_evict=evicted.append)
    blocks = pool.get_new_blocks(3)
    cache(pool, blocks, 10)
    pool.free_blocks(reversed(blocks))
    pool.get_new_blocks(2)
    assert evicted == [12, 11]
