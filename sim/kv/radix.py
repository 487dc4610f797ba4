"""SGLang's radix tree over the names of tokens.

Semantics of SGLang 0.5.23, `mem_cache/unified_radix_cache.py` and `unified_cache/unified_tree_core.py`, for
one full-attention pool:

- a key is what a history begins with, cut to whole pages; a node holds a stretch of tokens and never merges
  with another; a match or an insert that ends inside a node splits it;
- recency is a logical tick, so that no clock decides: making a node takes one, an insert gives one to each
  node that it meets, a match gives the matched node one and each node above it a little less than the one
  below. After a split the *suffix* is the more recent of the two;
- whoever uses a node locks its whole path; what nobody locks can be evicted, whole nodes from the leaves up,
  least recent first, until there is room;
- a request computes tokens that another has put into the tree meanwhile: duplicates, freed at its insert.

Tokens are kept as runs of `concur.sim.kv.history`, not one by one: a million tokens of one writing are one
run. Two keys whose runs begin alike hold the same tokens, because a stretch always enters a history at its
start.
"""

from copy import copy
from heapq import heapify, heappop, heappush
from typing import Any, Final

from mypy_extensions import mypyc_attr

from concur.sim.kv.history import History

Run = tuple[int, int, int]
"""Number of a stretch, its first token and the end (exclusive)."""
Key = tuple[Run, ...]

_LEVEL_TICKS: Final = 1e-5
"""By how much a parent is less recent than its child after a match (`_update_access_time`)."""


def key_of(history: History, num_tokens: int) -> Key:
    """Return the first `num_tokens` tokens of a history; one block of it is one token."""
    return tuple((stretch.number, 0, length) for stretch, length in history.prefix(num_tokens))


def num_tokens_of(key: Key) -> int:
    """Return how many tokens a key has."""
    return sum([end - first for _, first, end in key])


def cut(key: Key, num_tokens: int) -> tuple[Key, Key]:
    """Return the first `num_tokens` tokens, and the rest."""
    for index, (stretch, first, end) in enumerate(key):
        if num_tokens < end - first:
            middle = first + num_tokens
            head = (*key[:index], (stretch, first, middle)) if num_tokens else key[:index]
            return head, ((stretch, middle, end), *key[index + 1 :])
        num_tokens -= end - first
    return key, ()


@mypyc_attr(allow_interpreted_subclasses=True)
class Walk:
    """What of a key is still to come on the way down a tree: run number `index`, from token `first` on."""

    __slots__ = ("first", "index", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.index = 0
        self.first = key[0][1] if key else 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is to come."""
        return self.index == len(self.key)

    def page(self, page_size: int) -> Key:
        """Return the next tokens, a page of them, by which a parent knows its child."""
        stretch, _, end = self.key[self.index]
        if end - self.first >= page_size:
            return ((stretch, self.first, self.first + page_size),)
        return cut(self.rest(), page_size)[0]

    def num_common(self, other: Key) -> int:
        """Return with how many of the tokens to come another key begins."""
        key, index, first, total = self.key, self.index, self.first, 0
        for other_stretch, other_first, other_end in other:
            if index == len(key):
                break
            stretch, own_first, end = key[index]
            if total == 0:
                own_first = first
            if stretch != other_stretch or own_first != other_first:
                break
            total += min(end, other_end) - own_first
            if end != other_end:
                break
            index += 1
        return total

    def skip(self, num_tokens: int) -> None:
        """Go on behind the next tokens."""
        while num_tokens:
            _, _, end = self.key[self.index]
            if num_tokens < end - self.first:
                self.first += num_tokens
                return
            num_tokens -= end - self.first
            self.index += 1
            self.first = self.key[self.index][1] if self.index < len(self.key) else 0

    def rest(self) -> Key:
        """Return what is to come."""
        stretch, _, end = self.key[self.index]
        return ((stretch, self.first, end), *self.key[self.index + 1 :])


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Node:
    """Some tokens behind those of its parent; `lock_ref` requests use it or something behind it."""

    __slots__ = ("children", "key", "last_access", "lock_ref", "num_tokens", "parent")

    def __init__(self, key: Key, parent: "Node | None", last_access: float) -> None:
        self.key = key
        self.num_tokens = num_tokens_of(key)
        self.parent = parent
        self.children: dict[Key, Node] = {}
        self.lock_ref = 0
        self.last_access = last_access


def _twin_of(node: Node, parent: Node | None, memo: dict[int, Any]) -> Node:
    """Return a copy of a node without its children, under which `memo` knows it."""
    twin = copy(node)
    twin.parent, twin.children = parent, {}
    memo[id(node)] = twin
    return twin


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RadixTree:
    """The tree and the pool behind it: every token is available, in the tree, or a request's own.

    `available_tokens` are free, `evictable_tokens` are in the tree and not locked.
    """

    def __init__(self, capacity_tokens: int, page_size: int) -> None:
        self.page_size = page_size
        self.available_tokens = capacity_tokens // page_size * page_size
        self.evictable_tokens = 0
        self.num_evicted_tokens = 0
        self._tick = 0.0
        self._leaves: set[Node] = set()
        self._root = Node((), None, self._next_tick())

    def __deepcopy__(self, memo: dict[int, Any]) -> "RadixTree":
        """Return the same tree, independent of it; a history of many turns is too deep to recurse."""
        twin = copy(self)
        memo[id(self)] = twin
        twin._root = _twin_of(self._root, None, memo)
        pending = [self._root]
        while pending:
            node = pending.pop()
            node_twin = memo[id(node)]
            for page, child in node.children.items():
                node_twin.children[page] = _twin_of(child, node_twin, memo)
                pending.append(child)
        twin._leaves = {memo[id(leaf)] for leaf in self._leaves}
        return twin

    def floor(self, num_tokens: int) -> int:
        """Return the tokens of the whole pages among so many."""
        return num_tokens // self.page_size * self.page_size

    def ceil(self, num_tokens: int) -> int:
        """Return the tokens of the pages that so many take."""
        return -(-num_tokens // self.page_size) * self.page_size

    def take(self, num_tokens: int) -> None:
        """Give so many tokens, whole pages, to a request; there must be room."""
        self.available_tokens -= num_tokens
        assert self.available_tokens >= 0, "tokens were given out that nobody made room for"

    def give_back(self, num_tokens: int) -> None:
        """Take so many tokens, whole pages, back from a request."""
        self.available_tokens += num_tokens

    def match(self, key: Key) -> tuple[int, Node]:
        """Return how many tokens of the key, whole pages, are here, and the node that they end with."""
        node, num_matched, walk = self._root, 0, Walk(self._aligned(key))
        if walk.is_over:
            return 0, node
        while not walk.is_over and (child := node.children.get(walk.page(self.page_size))) is not None:
            num_tokens = self.floor(walk.num_common(child.key))
            num_matched += num_tokens
            if num_tokens < child.num_tokens:
                node = self._split(child, num_tokens)
                break
            node = child
            walk.skip(num_tokens)
        self._refresh_path(node)
        return num_matched, node

    def insert(self, key: Key, *, owned_from: int, counted_from: int = 0) -> Node:
        """Put the tokens of whole pages into the tree; return the node that they end with.

        Of those that are here already, the request's own from number `owned_from` on are freed. Whoever
        counts inserts counts them from `counted_from` on; here nobody does.
        """
        node, position, walk = self._root, 0, Walk(self._aligned(key))
        node.last_access = self._next_tick()
        while not walk.is_over and (child := node.children.get(walk.page(self.page_size))) is not None:
            child.last_access = self._next_tick()
            num_tokens = self.floor(walk.num_common(child.key))
            if num_tokens < child.num_tokens:
                child = self._split(child, num_tokens)
            self._meet(child, max(0, num_tokens - max(0, owned_from - position)))
            node, position = child, position + num_tokens
            walk.skip(num_tokens)
            if position > counted_from:
                self._hit(node)
        if not walk.is_over:
            node = self._add_leaf(node, walk.rest())
            self._hit(node)
        return node

    def lock(self, node: Node) -> None:
        """Keep a node, and those it stands on, from eviction."""
        while node.parent is not None:
            if node.lock_ref == 0:
                self._note_locked(node)
            node.lock_ref += 1
            node = node.parent

    def unlock(self, node: Node) -> None:
        """Undo one `lock`."""
        while node.parent is not None:
            node.lock_ref -= 1
            if node.lock_ref == 0:
                self._note_unlocked(node)
            node = node.parent

    def move_lock(self, above: Node, node: Node) -> None:
        """Turn the lock on a node into one on a node at or below it."""
        while node is not above:
            if node.lock_ref == 0:
                self._note_locked(node)
            node.lock_ref += 1
            assert node.parent is not None, "a lock moves down the path that it keeps"
            node = node.parent

    def make_room(self, num_tokens: int) -> None:
        """Evict until so many tokens are available, or nothing is left to evict."""
        if num_tokens <= self.available_tokens:
            return
        victims = [(node.last_access, node) for node in self._leaves]
        heapify(victims)
        while victims and self.available_tokens < num_tokens:
            _, node = heappop(victims)
            parent = self._evict(node)
            if parent in self._leaves:
                heappush(victims, (parent.last_access, parent))

    # -- a tier behind the pool, see `concur.sim.kv.hiradix`; here there is none

    @property
    def has_transfers(self) -> bool:
        """Whether something is on its way from one tier to the other."""
        return False

    def resident(self, node: Node) -> Node:
        """Return the last node of a path that is in the pool."""
        return node

    def away_tokens(self, node: Node) -> int:
        """Return how many tokens of a path are in the other tier only."""
        return 0

    def load_back(self, node: Node) -> bool:
        """Bring a path into the pool; tell whether it comes."""
        return False

    def start_loading(self) -> None:
        """Start what a pass has decided to load."""

    def start_writing(self) -> None:
        """Start the copies that inserts have asked for."""

    def take_acknowledged(self) -> None:
        """Take note of the transfers that are done by now."""

    def tier_metrics(self) -> dict[str, float]:
        """Return what went from one tier to the other."""
        return {}

    def _hit(self, node: Node) -> None:
        """Take note that a node was inserted, or met by an insert."""

    def _meet(self, node: Node, num_own_tokens: int) -> None:
        """Free the tokens that a request has beside those of a node that its insert meets."""
        self.give_back(num_own_tokens)

    def _note_locked(self, node: Node) -> None:
        """Keep account of a node that can no longer be evicted."""
        self.evictable_tokens -= node.num_tokens
        self._leaves.discard(node)

    def _note_unlocked(self, node: Node) -> None:
        """Keep account of a node that nobody needs any more."""
        self.evictable_tokens += node.num_tokens
        self._note_leaf(node)

    # -- inside

    def _evict(self, node: Node) -> Node:
        parent = node.parent
        assert parent is not None
        del parent.children[self._page(node.key)]
        self._leaves.discard(node)
        self.available_tokens += node.num_tokens
        self.evictable_tokens -= node.num_tokens
        self.num_evicted_tokens += node.num_tokens
        self._note_leaf(parent)
        return parent

    def _add_leaf(self, parent: Node, key: Key) -> Node:
        leaf = Node(key, parent, self._next_tick())
        parent.children[self._page(key)] = leaf
        self.evictable_tokens += leaf.num_tokens
        self._note_leaf(leaf)
        self._note_leaf(parent)
        return leaf

    def _split(self, node: Node, num_tokens: int) -> Node:
        """Put the first tokens of a node into a parent of its own; return that."""
        head, tail = cut(node.key, num_tokens)
        above = node.parent
        assert above is not None
        parent = Node(head, above, self._next_tick())
        parent.lock_ref = node.lock_ref
        parent.children[self._page(tail)] = node
        above.children[self._page(head)] = parent
        node.key, node.num_tokens, node.parent = tail, node.num_tokens - num_tokens, parent
        node.last_access = self._next_tick()
        return parent

    def _refresh_path(self, node: Node) -> None:
        tick = self._next_tick()
        above: Node | None = node
        while above is not None:
            above.last_access = tick
            tick -= _LEVEL_TICKS
            above = above.parent

    def _note_leaf(self, node: Node) -> None:
        """Keep account of what can be evicted first: unlocked nodes without children."""
        if node.parent is not None and node.lock_ref == 0 and not node.children:
            self._leaves.add(node)
        else:
            self._leaves.discard(node)

    def _aligned(self, key: Key) -> Key:
        return key if self.page_size == 1 else cut(key, self.floor(num_tokens_of(key)))[0]

    def _page(self, key: Key) -> Key:
        """Return the first page of a key, by which a parent knows its child."""
        return Walk(key).page(self.page_size)

    def _next_tick(self) -> float:
        self._tick += 1.0
        return self._tick
