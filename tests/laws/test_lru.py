"""L4: the block pool against a slow reference: a plain list, scanned from the front."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from concur.sim.kv.block_pool import BlockPool, KVCacheBlock
from concur.sim.kv.history import BlockHash
from tests.laws.register import check_blocks

NUM_BLOCKS = 10


class SlowPool:
    """The rule in its plainest form. `free` lists (block id, hash or None), next victim first."""

    def __init__(self) -> None:
        self.free: list[tuple[int, int | None]] = [(n, None) for n in range(1, NUM_BLOCKS)]
        self.evicted: list[int] = []

    def take(self, count: int) -> list[int]:
        taken, self.free = self.free[:count], self.free[count:]
        self.evicted += [name for _, name in taken if name is not None]
        return [block_id for block_id, _ in taken]

    def find(self, name: int) -> int | None:
        """The free block that holds `name`, if any."""
        return next((block_id for block_id, held in self.free if held == name), None)

    def remove(self, block_id: int) -> None:
        self.free = [entry for entry in self.free if entry[0] != block_id]

    def give_back(self, blocks: list[tuple[int, int | None]]) -> None:
        nameless = [entry for entry in blocks if entry[1] is None]
        named = [entry for entry in blocks if entry[1] is not None]
        self.free = nameless + self.free + named


class PoolAgainstReference(RuleBasedStateMachine):
    """Requests come, cache some of their blocks, share what they find, and go, tail first."""

    def __init__(self) -> None:
        super().__init__()
        self.evicted: list[BlockHash] = []
        self.pool = BlockPool(NUM_BLOCKS, enable_caching=True, on_evict=self.evicted.append)
        self.slow = SlowPool()
        self.requests: list[list[KVCacheBlock]] = []
        self.num_names = 0

    @rule(count=st.integers(1, 4), num_full=st.integers(0, 4))
    def admit(self, count: int, num_full: int) -> None:
        if count > self.pool.get_num_free_blocks():
            return
        blocks = self.pool.get_new_blocks(count)
        assert [block.block_id for block in blocks] == self.slow.take(count)
        for block in blocks[:num_full]:
            self.num_names += 1
            self.pool.cache_full_block(block, BlockHash(self.num_names))
        self.requests.append(blocks)

    @precondition(lambda self: self.num_names > 0)
    @rule(data=st.data())
    def hit(self, data: st.DataObject) -> None:
        name = data.draw(st.integers(1, self.num_names))
        block = self.pool.cached_block_hash_to_block.get_one_block(BlockHash(name))
        idle = self.slow.find(name)
        if block is None:
            assert idle is None
            return
        assert (block.ref_cnt == 0) == (idle is not None)
        self.pool.touch([block])
        self.slow.remove(block.block_id)
        self.requests.append([block])

    @precondition(lambda self: bool(self.requests))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        blocks = self.requests.pop(data.draw(st.integers(0, len(self.requests) - 1)))
        unreferenced = [block for block in reversed(blocks) if block.ref_cnt == 1]
        self.slow.give_back([(block.block_id, block.block_hash) for block in unreferenced])
        self.pool.free_blocks(reversed(blocks))

    @invariant()
    def same_order(self) -> None:
        assert list(self.pool.free_block_queue) == [block_id for block_id, _ in self.slow.free]

    @invariant()
    def same_evictions(self) -> None:
        assert list(self.evicted) == self.slow.evicted

    @invariant()
    def blocks_are_conserved(self) -> None:
        check_blocks(self.pool)


TestPoolAgainstReference = PoolAgainstReference.TestCase
TestPoolAgainstReference.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
