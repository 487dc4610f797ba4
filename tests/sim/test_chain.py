"""Block names are equal exactly where the tokens, from the start, are."""

from concur.sim.kv.chain import AgentChain, BlockHasher


def test_agents_of_a_group_share_the_blocks_inside_the_shared_prefix() -> None:
    hasher = BlockHasher(16)
    one = AgentChain(hasher, prefix_group="g", shared_prefix_tokens=40)
    two = AgentChain(hasher, prefix_group="g", shared_prefix_tokens=70)
    first = list(one.begin_call(kept_tokens=40, context_tokens=100))
    second = list(two.begin_call(kept_tokens=70, context_tokens=100))
    assert first[:2] == second[:2]  # 32 of 40 tokens fill blocks
    assert not set(first[2:]) & set(second)


def test_groups_and_lone_agents_share_nothing() -> None:
    hasher = BlockHasher(16)
    chains = [AgentChain(hasher, prefix_group=g, shared_prefix_tokens=64) for g in ("g", "h", None, None)]
    names = [set(chain.begin_call(kept_tokens=64, context_tokens=64)) for chain in chains]
    assert len(set.union(*names)) == 16


def test_a_history_that_only_grows_keeps_its_names() -> None:
    chain = AgentChain(BlockHasher(16), prefix_group=None, shared_prefix_tokens=0)
    before = list(chain.begin_call(kept_tokens=0, context_tokens=50))
    after = chain.begin_call(kept_tokens=50, context_tokens=120)
    assert len(before) == 3
    assert len(after) == 7
    assert after[:3] == before


def test_dropping_tokens_renames_from_the_first_block_that_changes() -> None:
    chain = AgentChain(BlockHasher(16), prefix_group="g", shared_prefix_tokens=32)
    before = list(chain.begin_call(kept_tokens=32, context_tokens=160))
    after = list(chain.begin_call(kept_tokens=50, context_tokens=160))
    assert after[:3] == before[:3]
    assert not set(after[3:]) & set(before)


def test_dropping_into_the_shared_prefix_keeps_only_its_kept_part() -> None:
    hasher = BlockHasher(16)
    chain = AgentChain(hasher, prefix_group="g", shared_prefix_tokens=64)
    chain.begin_call(kept_tokens=64, context_tokens=160)
    after = chain.begin_call(kept_tokens=20, context_tokens=160)
    assert after[:1] == hasher.shared("g", 1)
    assert not set(after[1:]) & set(hasher.shared("g", 4))


def test_a_history_cut_to_less_than_a_block_does_not_come_back_as_the_shared_prefix() -> None:
    hasher = BlockHasher(16)
    chain = AgentChain(hasher, prefix_group="g", shared_prefix_tokens=48)
    chain.begin_call(kept_tokens=48, context_tokens=49)
    assert chain.begin_call(kept_tokens=0, context_tokens=2) == []
    assert not set(chain.begin_call(kept_tokens=2, context_tokens=20)) & set(hasher.shared("g", 3))


def test_dropping_everything_renames_everything() -> None:
    chain = AgentChain(BlockHasher(16), prefix_group="g", shared_prefix_tokens=64)
    before = set(chain.begin_call(kept_tokens=64, context_tokens=64))
    assert not before & set(chain.begin_call(kept_tokens=0, context_tokens=64))


def test_only_none_is_no_group() -> None:
    """Whoever lets an empty name through: it means the same here and on segments."""
    hasher = BlockHasher(16)
    one, two = (AgentChain(hasher, prefix_group="", shared_prefix_tokens=64) for _ in range(2))
    assert one.begin_call(kept_tokens=64, context_tokens=64) == two.begin_call(
        kept_tokens=64, context_tokens=64
    )
