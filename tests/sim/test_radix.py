"""The radix tree: what is found, what goes first, and that no token is lost."""

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concur.sim.kv.radix import Key, Node, RadixTree, Walk, cut, num_tokens_of

WRITING, OTHER = 1, 2


def key(*lengths: int) -> Key:
    """Tokens of a first writing, of a second one behind it, and so on."""
    return tuple((number, 0, length) for number, length in enumerate(lengths, 1))


def put(tree: RadixTree, tokens: Key) -> Node:
    """Compute tokens, put them into the tree and hold on to nothing."""
    num_tokens = tree.floor(num_tokens_of(tokens))
    matched, _ = tree.match(tokens)
    tree.make_room(num_tokens - matched)
    tree.take(num_tokens - matched)
    return tree.insert(tokens, owned_from=matched)


def test_keys_are_cut_and_compared_by_tokens() -> None:
    assert cut(key(5, 3), 6) == (((1, 0, 5), (2, 0, 1)), ((2, 1, 3),))
    assert cut(key(5, 3), 5) == (((1, 0, 5),), ((2, 0, 3),))
    assert cut(key(5), 0) == ((), key(5))
    assert Walk(key(5, 3)).num_common(key(5, 9)) == 8
    assert Walk(key(5, 3)).num_common(key(4)) == 4
    assert Walk(key(5, 3)).num_common(((1, 0, 4), (9, 0, 3))) == 4
    assert Walk(key(5)).num_common(((9, 0, 5),)) == 0


KEYS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, unique_by=lambda run: run[0]
).map(lambda runs: tuple((number, 0, length) for number, length in runs))


@given(KEYS, KEYS, st.integers(0, 20), st.integers(1, 8))
def test_a_walk_along_a_key_is_as_cutting_it(one: Key, other: Key, num_tokens: int, page_size: int) -> None:
    walk = Walk(one)
    walk.skip(min(num_tokens, num_tokens_of(one)))
    rest = cut(one, num_tokens)[1]
    assert walk.is_over is (not rest)
    if rest:
        assert walk.rest() == rest
        assert walk.page(page_size) == cut(rest, page_size)[0]
        other = cut(other, num_tokens)[1]
        mine, theirs = (
            [cut(cut(each, n)[1], 1)[0] for n in range(num_tokens_of(each))] for each in (rest, other)
        )
        alike = [a == b for a, b in zip(mine, theirs, strict=False)]
        assert walk.num_common(other) == (alike.index(False) if False in alike else len(alike))


@pytest.mark.parametrize(("page_size", "expected"), [(1, 70), (16, 64)])
def test_a_match_finds_whole_pages_of_what_was_put(page_size: int, expected: int) -> None:
    tree = RadixTree(1600, page_size)
    put(tree, key(100))
    assert tree.match(((WRITING, 0, 70), (OTHER, 0, 50)))[0] == expected
    assert tree.match(((OTHER, 0, 50),))[0] == 0


def test_the_least_recent_leaf_goes_first_and_its_parent_after_it() -> None:
    tree = RadixTree(100, 1)
    put(tree, key(40))
    put(tree, key(20, 30))  # splits the first: 20 shared, then 20 and 30
    tree.match(key(40))  # the older branch is the more recent now
    tree.make_room(31)
    assert (tree.match(key(20, 30))[0], tree.match(key(40))[0]) == (20, 40)
    tree.make_room(100)
    assert (tree.available_tokens, tree.evictable_tokens) == (100, 0)


def test_what_is_locked_stays() -> None:
    tree = RadixTree(100, 1)
    node = put(tree, key(40))
    put(tree, ((OTHER, 0, 50),))
    tree.lock(node)
    tree.make_room(100)
    assert tree.available_tokens == 60
    assert tree.match(key(40))[0] == 40
    tree.unlock(node)
    tree.make_room(100)
    assert tree.available_tokens == 100


def test_duplicates_are_freed_from_where_they_are_the_requests_own() -> None:
    tree = RadixTree(100, 1)
    put(tree, key(40))
    tree.take(25)  # another request has computed tokens 15 to 40 meanwhile
    tree.insert(key(40), owned_from=15)
    assert (tree.available_tokens, tree.evictable_tokens) == (60, 40)


def test_a_copy_is_independent_and_may_be_deep() -> None:
    tree = RadixTree(100_000, 1)
    for depth in range(1, 1500):
        last = put(tree, key(*[2] * depth))
    twin, last_twin = deepcopy((tree, last))
    twin.lock(last_twin)
    assert twin.evictable_tokens == 0
    assert tree.evictable_tokens == 2 * 1499
    tree.make_room(100_000)
    assert twin.match(key(*[2] * 1499))[0] == 2 * 1499


tokens = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(lambda lengths: key(*lengths))


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([1, 8]), st.lists(st.tuples(tokens, st.booleans()), max_size=20))
def test_every_token_is_free_or_evictable_or_locked(page_size: int, puts: list[tuple[Key, bool]]) -> None:
    tree = RadixTree(4000, page_size)
    locked: list[Node] = []
    for each, is_locked in puts:
        node = put(tree, each)
        assert tree.match(each)[0] == tree.floor(num_tokens_of(each))
        if is_locked:
            tree.lock(node)
            locked.append(node)
        held = num_tokens_held(locked)
        assert tree.available_tokens + tree.evictable_tokens + held == 4000
    for node in locked:
        tree.unlock(node)
    tree.make_room(4000)
    assert (tree.available_tokens, tree.evictable_tokens) == (4000, 0)


def num_tokens_held(nodes: list[Node]) -> int:
    """Tokens on the paths of these nodes, each once."""
    held: set[Node] = set()
    for node in nodes:
        above: Node | None = node
        while above is not None:
            held.add(above)
            above = above.parent
    return sum(node.num_tokens for node in held)
