from hypothesis import given
from hypothesis import strategies as st

from concur.sim.importers.prefixes import as_prefixes, blocks_of, common_blocks, shared_levels
from concur.sim.traces.format import Prefix

STARTS = st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=8)


@given(STARTS)
def test_two_agents_share_exactly_the_blocks_that_they_begin_with(lists: list[list[int]]) -> None:
    starts = [blocks_of(blocks) for blocks in lists]
    levels = shared_levels(starts)
    for one in range(len(starts)):
        assert sum(number for _, number in levels[one]) <= len(starts[one])
        for other in range(one):
            shared = 0
            for left, right in zip(levels[one], levels[other], strict=False):
                if left[0] != right[0]:
                    break
                assert left == right
                shared += left[1]
            assert shared == common_blocks(starts[one], starts[other])


def test_hashes_are_numbers_or_texts() -> None:
    assert blocks_of(["a", 2**64 - 1, "a", None, -1])[0] == blocks_of(["a"])[0]
    assert len(blocks_of(["a", 2**64 - 1, {}, None])) == 2
    assert len(blocks_of(None)) == 0


def test_prefixes_end_with_the_prompt() -> None:
    assert as_prefixes([(1, 2), (5, 3), (7, 1)], 10, 45, "f/") == (
        Prefix("f/blocks-1", 20),
        Prefix("f/blocks-5", 25),
    )
