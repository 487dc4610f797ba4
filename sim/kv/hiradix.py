"""SGLang's radix tree with a second tier in host memory: HiCache.

Semantics of SGLang 0.5.23, `mem_cache/unified_radix_cache.py`, `unified_cache/unified_tree_core.py` and
`components/full.py` after `init_hicache`, for one full-attention pool and no storage behind the host:

- A node is in the pool, on the host, or on both. What is in the pool is at the top of the tree; what is on
  the host only, *away*, hangs below it. A match finds both; what is away is loaded before it is of use.
- `write_through` and `write_through_selective` back a node up when it is inserted for the first or the second
  time, by whoever; its ancestors first. It stays locked until the copy is there. Room on the host is made by
  deleting what is away, least recent first. `write_back` copies what it evicts, and waits for that.
- What is evicted from the pool goes away if it has been backed up, else it is deleted. Under `write_back`
  what finds no room on the host is deleted with everything below it.
- A request whose match goes on on the host loads all of that or nothing, and nothing below
  `LOAD_BACK_THRESHOLD_TOKENS`. What it computes anew instead takes the place of what is away at its insert.
- `write_back` keeps copies of what has been loaded, and takes those first when the host needs room.

Left out, as it changes nothing here: locks on host copies, which always go with one on the node itself.
"""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from heapq import heapify, heappop, heappush
from typing import Any, Final

from mypy_extensions import mypyc_attr

from concur.sim.kv.host_jobs import HostJobs, Transfers
from concur.sim.kv.radix import Key, Node, RadixTree

LOAD_BACK_THRESHOLD_TOKENS: Final = 10
"""Fewer are computed anew (`load_back_threshold`)."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class HiRadixTree(RadixTree):
    """The tree, the pool and the host memory behind it, of which `host_available_tokens` are free.

    Counted as SGLang's collector does, when a transfer is acknowledged: `num_loaded_tokens`
    (`load_back_tokens`) and `num_backed_up_tokens` (`hicache_backup_tokens`); and `num_dropped_tokens`
    (`hicache_dropped_tokens`), deleted from the pool although a copy was wanted.
    """

    def __init__(
        self,
        capacity_tokens: int,
        page_size: int,
        *,
        host_tokens: int,
        write_policy: str,
        transfers: Transfers,
    ) -> None:
        super().__init__(capacity_tokens, page_size)
        self.host_available_tokens = host_tokens
        self.num_loaded_tokens = 0
        self.num_backed_up_tokens = 0
        self.num_dropped_tokens = 0
        self._is_write_back = write_policy == "write_back"
        self._counts_drops = write_policy != "write_through_selective"
        self._least_hits = 1 if write_policy == "write_through" else 2
        self._transfers = transfers
        self._away: set[Node] = set()
        self._backed_up: set[Node] = set()
        self._host_leaves: set[Node] = set()
        self._hits: dict[Node, int] = {}
        self._loading: dict[Node, Node] = {}  # where the load that brought it ends; under `write_back`
        self._twins: dict[Node, None] = {}  # on both tiers, by age; some are no more; under `write_back`
        self._writes = HostJobs()
        self._loads = HostJobs()

    def __deepcopy__(self, memo: dict[int, Any]) -> "HiRadixTree":
        """Return the same tree, independent of it."""
        twin = super().__deepcopy__(memo)
        assert isinstance(twin, HiRadixTree)
        twin._transfers = deepcopy(self._transfers, memo)
        twin._away = {memo[id(node)] for node in self._away}
        twin._backed_up = {memo[id(node)] for node in self._backed_up}
        twin._host_leaves = {memo[id(node)] for node in self._host_leaves}
        twin._hits = {memo[id(node)]: hits for node, hits in self._hits.items()}
        twin._loading = {memo[id(node)]: memo[id(end)] for node, end in self._loading.items()}
        twin._twins = {memo[id(node)]: None for node in self._twins}
        twin._writes, twin._loads = self._writes.copied(memo), self._loads.copied(memo)
        return twin

    # -- what a scheduler asks for

    @property
    def has_transfers(self) -> bool:
        """Whether a transfer has not been acknowledged."""
        return not (self._writes.is_empty and self._loads.is_empty)

    @property
    def writing_tokens(self) -> int:
        """Tokens on the way to the host, or about to be."""
        return self._writes.num_tokens

    @property
    def loading_tokens(self) -> int:
        """Tokens on the way to the pool, or about to be."""
        return self._loads.num_tokens

    def match(self, key: Key) -> tuple[int, Node]:
        """Return how many tokens of the key are in the pool, and the last node on either tier."""
        num_matched, node = super().match(key)
        return num_matched - self.away_tokens(node), node

    def resident(self, node: Node) -> Node:
        """Return the last node of a path that is in the pool."""
        while node in self._away:
            assert node.parent is not None
            node = node.parent
        return node

    def away_tokens(self, node: Node) -> int:
        """Return how many tokens of a path are on the host only."""
        return sum([each.num_tokens for each in self._away_above(node)])

    def load_back(self, node: Node) -> bool:
        """Bring a path into the pool, all of it or nothing; tell whether it comes."""
        path = list(self._away_above(node))
        num_tokens = sum([each.num_tokens for each in path])
        if num_tokens < LOAD_BACK_THRESHOLD_TOKENS:
            return False
        self.lock(node)  # until the load is acknowledged
        self.make_room(num_tokens)
        if num_tokens > self.available_tokens:
            self.unlock(node)
            return False
        self.take(num_tokens)
        self._loads.ask(node, num_tokens)
        for each in path:
            self._away.remove(each)
            if self._is_write_back:
                self._loading[each] = node
        return True

    def start_loading(self) -> None:
        """Start what a pass has decided to load, as one transfer."""
        self._loads.start(self._transfers.load)

    def start_writing(self) -> None:
        """Start the copies that inserts have asked for, as one transfer."""
        self._writes.start(self._transfers.write)

    def take_acknowledged(self) -> None:
        """Take note of the transfers that are done by now."""
        self.start_writing()
        time_s = self._transfers.time_s
        for num_tokens, nodes in self._writes.take_done(time_s):
            self.num_backed_up_tokens += num_tokens
            for node in nodes:
                self.unlock(node)
        for num_tokens, nodes in self._loads.take_done(time_s):
            self.num_loaded_tokens += num_tokens
            for node in nodes:
                self.unlock(node)
                self._finish_load(node)

    def tier_metrics(self) -> dict[str, float]:
        """Return what went from one tier to the other, by the names of SGLang's counters."""
        return {
            "load_back_tokens": self.num_loaded_tokens,
            "hicache_backup_tokens": self.num_backed_up_tokens,
            "hicache_dropped_tokens": self.num_dropped_tokens,
            "evicted_tokens": self.num_evicted_tokens,
        }

    # -- the tree on two tiers

    def _meet(self, node: Node, num_own_tokens: int) -> None:
        """Free a request's own tokens, or let them take the place of those on the host only."""
        if node in self._away:
            self._come_back(node)
        else:
            super()._meet(node, num_own_tokens)

    def _note_locked(self, node: Node) -> None:
        """Keep account of a node that can no longer be evicted, from either tier."""
        if node not in self._away:
            self.evictable_tokens -= node.num_tokens
        self._leaves.discard(node)
        self._host_leaves.discard(node)

    def _note_unlocked(self, node: Node) -> None:
        """Keep account of a node that nobody needs any more."""
        if node not in self._away:
            self.evictable_tokens += node.num_tokens
        self._note_leaf(node)

    def _away_above(self, node: Node) -> Iterator[Node]:
        """Go up from a node over what is away."""
        while node in self._away:
            yield node
            assert node.parent is not None
            node = node.parent

    def _come_back(self, node: Node) -> None:
        """Let tokens that were computed anew take the place of those on the host only."""
        self._away.remove(node)
        if node.lock_ref == 0:
            self.evictable_tokens += node.num_tokens
        self._note_leaf(node)
        self._note_twin(node)
        assert node.parent is not None
        self._note_leaf(node.parent)

    def _hit(self, node: Node) -> None:
        """Count that a node was inserted again; back it up when that is often enough."""
        if self._is_write_back:
            return
        self._hits[node] = hits = self._hits.get(node, 0) + 1
        if hits >= self._least_hits and node not in self._backed_up:
            self._back_up_path(node)

    def _back_up_path(self, node: Node) -> None:
        """Back up a node behind its ancestors, as far as the host has room."""
        path = [node]
        while (above := path[-1].parent) is not None and above.parent is not None:
            if above in self._backed_up:
                break
            path.append(above)
        for each in reversed(path):
            if not self._reserve(each):
                return
            self.lock(each)  # until it is acknowledged
            self._writes.ask(each, each.num_tokens)

    def _reserve(self, node: Node) -> bool:
        """Give a node its place on the host; tell whether there was one."""
        missing = node.num_tokens - self.host_available_tokens
        if missing > 0 and self._make_host_room(missing) < missing:
            return False
        self.host_available_tokens -= node.num_tokens
        self._backed_up.add(node)
        return True

    # -- what goes

    def _evict(self, node: Node) -> Node:
        """Take a node from the pool; return the one that it stands on."""
        parent = node.parent
        assert parent is not None
        if node in self._backed_up or (self._is_write_back and self._write_back(node)):
            self.available_tokens += node.num_tokens
            self.evictable_tokens -= node.num_tokens
            self.num_evicted_tokens += node.num_tokens
            self._away.add(node)
            self._note_leaf(node)
            self._note_leaf(parent)
            return parent
        if self._counts_drops:
            self.num_dropped_tokens += node.num_tokens
        self._forget(self._below(node))
        self._hits.pop(node, None)
        self._twins.pop(node, None)
        return super()._evict(node)

    def _write_back(self, node: Node) -> bool:
        """Copy a node to the host, and wait for that; tell whether there was room."""
        if not self._reserve(node):
            return False
        self._transfers.wait_until(self._transfers.write(node.num_tokens))
        self.num_backed_up_tokens += node.num_tokens
        self._note_twin(node)
        return True

    def _below(self, node: Node) -> list[Node]:
        """Return everything below a node, children before their parents."""
        found, pending = [], list(node.children.values())
        while pending:
            each = pending.pop()
            found.append(each)
            pending.extend(each.children.values())
        return found[::-1]

    def _make_host_room(self, num_tokens: int) -> int:
        """Free so many tokens on the host, or what can be; return how many."""
        freed = self._give_up_twins(num_tokens) if self._is_write_back else 0
        victims = [(node.last_access, node) for node in self._host_leaves]
        heapify(victims)
        while victims and freed < num_tokens:
            _, node = heappop(victims)
            freed += node.num_tokens
            self._forget([node])
            if node.parent in self._host_leaves:
                heappush(victims, (node.parent.last_access, node.parent))
        return freed

    def _forget(self, nodes: Iterable[Node]) -> None:
        """Delete nodes that are away, each without children by then."""
        for node in nodes:
            parent = node.parent
            assert parent is not None
            assert node in self._away, "what is in the pool stands on what is in the pool"
            del parent.children[self._page(node.key)]
            self.host_available_tokens += node.num_tokens
            self._away.remove(node)
            self._backed_up.remove(node)
            self._host_leaves.discard(node)
            self._twins.pop(node, None)
            self._hits.pop(node, None)
            self._note_leaf(parent)

    def _give_up_twins(self, num_tokens: int) -> int:
        """Free host copies of what is in the pool too, last those of what is about to go away."""
        freed, gone = 0, []
        for spares_leaves in (True, False):
            for node in self._twins:
                if freed >= num_tokens:
                    break
                if node in self._away or node not in self._backed_up:
                    gone.append(node)
                elif node not in self._loading and not (spares_leaves and node in self._leaves):
                    self._backed_up.remove(node)
                    self.host_available_tokens += node.num_tokens
                    freed += node.num_tokens
                    gone.append(node)
        for node in gone:
            self._twins.pop(node, None)
        return freed

    # -- what is kept of nodes

    def _finish_load(self, end: Node) -> None:
        """Let host copies of what a load brought be given up."""
        node = end
        while node.parent is not None and self._is_write_back:
            if self._loading.get(node) is end:
                del self._loading[node]
                self._note_twin(node)
            node = node.parent

    def _note_twin(self, node: Node) -> None:
        """Keep account of what is on both tiers and on no way; what goes away is struck off later."""
        if not self._is_write_back:
            return
        if node not in self._away and node in self._backed_up and node not in self._loading:
            self._twins.setdefault(node)
        else:
            self._twins.pop(node, None)

    def _split(self, node: Node, num_tokens: int) -> Node:
        """Put the first tokens of a node into a parent of its own, on the same tiers; return that."""
        parent = super()._split(node, num_tokens)
        if node in self._away:
            self._away.add(parent)
        if node in self._backed_up:
            self._backed_up.add(parent)
        if node in self._hits:
            self._hits[parent] = self._hits[node]
        if node in self._loading:
            self._loading[parent] = self._loading[node]
        self._note_twin(parent)
        return parent

    def _note_leaf(self, node: Node) -> None:
        """Keep account of what can go first: unlocked, and nothing below it on the same tier."""
        is_free = node.parent is not None and node.lock_ref == 0
        if (
            is_free
            and node not in self._away
            and all(child in self._away for child in node.children.values())
        ):
            self._leaves.add(node)
        else:
            self._leaves.discard(node)
        if is_free and node in self._away and not node.children:
            self._host_leaves.add(node)
        else:
            self._host_leaves.discard(node)
