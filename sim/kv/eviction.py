"""Which chunk a host tier gives up: vLLM's two policies, LRU and ARC.

Semantics of vLLM 0.32.0, `v1/kv_offload/cpu/policies/{base,lru,arc}.py`. Recency does not depend on pins: a
chunk keeps its rank while a transfer uses it, and is passed over. Keys come head first; the tail of a request
is made older than its head, so that a chain is given up from its end. The LRU of 0.33 is
`concur.sim.kv.request_lru`.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, Protocol

from concur.sim.kv.history import BlockHash

_WRITING: Final = -1


@dataclass(slots=True, eq=False)
class Chunk:
    """One chunk in host memory; `ref_cnt` loads read from it, -1 until what it holds has been written."""

    ref_cnt: int = _WRITING

    @property
    def is_ready(self) -> bool:
        """Whether it may be read."""
        return self.ref_cnt >= 0


Resident = tuple[BlockHash, int]
"""A key and the `ref_cnt` of its chunk."""


@dataclass(slots=True)
class RequestAccess:
    """What one request did with the tier, to be counted once, at its end (`_RequestCacheAccess`).

    `positions` number its keys, head first. `rank` is what they share until then where the policy has such
    ranks (`_RequestRank`), 0 before the first.
    """

    seen: set[BlockHash] = field(default_factory=set)
    inserted: set[BlockHash] = field(default_factory=set)
    reused: set[BlockHash] = field(default_factory=set)
    missed: set[BlockHash] = field(default_factory=set)
    positions: dict[BlockHash, int] = field(default_factory=dict)
    rank: int = 0


class CachePolicy(Protocol):
    """Holds the chunks, and says which go first."""

    def get(self, key: BlockHash) -> Chunk | None:
        """Return the chunk of a key, `None` if it is not there."""
        ...

    def insert(self, key: BlockHash, chunk: Chunk, access: RequestAccess) -> None:
        """Add a chunk for a request, as the most recently used one."""
        ...

    def on_request_access(self, keys: Collection[BlockHash], access: RequestAccess) -> None:
        """Take note of keys, there or not, that a request uses for the first time."""
        ...

    def on_store_miss(self, keys: Sequence[BlockHash]) -> None:
        """Take note of keys, head first, that a request is about to insert."""
        ...

    def on_request_finished(self, keys: Sequence[BlockHash], access: RequestAccess) -> None:
        """Count a request's access to these keys, head first."""
        ...

    def evict(self, num_chunks: int, protected: AbstractSet[BlockHash]) -> bool:
        """Give up that many idle chunks that are not protected; `False`, and none, if there are fewer."""
        ...

    def residents(self) -> Iterator[Resident]:
        """Yield all that is there, the first to go first."""
        ...

    def __len__(self) -> int:
        """Return how many chunks are there."""
        ...


class LRUCachePolicy:
    """Least recently used first: ranked when inserted and when a request that used it ends."""

    def __init__(self) -> None:
        self._chunks: OrderedDict[BlockHash, Chunk] = OrderedDict()  # by rank

    def __len__(self) -> int:
        return len(self._chunks)

    def get(self, key: BlockHash) -> Chunk | None:
        """Return the chunk of a key, `None` if it is not there."""
        return self._chunks.get(key)

    def insert(self, key: BlockHash, chunk: Chunk, access: RequestAccess) -> None:
        """Add a chunk as the most recently used one."""
        self._chunks[key] = chunk

    def on_request_access(self, keys: Collection[BlockHash], access: RequestAccess) -> None:
        """Learn nothing: ranks change at a request's end."""

    def on_store_miss(self, keys: Sequence[BlockHash]) -> None:
        """Learn nothing: a missing key has no rank."""

    def on_request_finished(self, keys: Sequence[BlockHash], access: RequestAccess) -> None:
        """Rank a request's keys anew, the head as the most recent."""
        for key in reversed(keys):
            if key in self._chunks:
                self._chunks.move_to_end(key)

    def evict(self, num_chunks: int, protected: AbstractSet[BlockHash]) -> bool:
        """Give up the idle chunks of lowest rank, or, if there are too few, none."""
        victims = list(_idle(self._chunks, num_chunks, protected))
        if len(victims) < num_chunks:
            return False
        for key in victims:
            del self._chunks[key]
        return True

    def residents(self) -> Iterator[Resident]:
        """Yield all that is there, the first to go first."""
        return ((key, chunk.ref_cnt) for key, chunk in self._chunks.items())


class ARCCachePolicy:
    """Adaptive replacement (Megiddo and Modha, FAST 2003) in vLLM's reading.

    `t1` holds chunks that one request used, `t2` those that several did; `b1` and `b2` remember keys that
    were given up from them. A miss that is remembered moves `target_t1_size`, once per request and key.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.target_t1_size = 0.0
        self.t1: OrderedDict[BlockHash, Chunk] = OrderedDict()
        self.t2: OrderedDict[BlockHash, Chunk] = OrderedDict()
        self.b1: OrderedDict[BlockHash, None] = OrderedDict()
        self.b2: OrderedDict[BlockHash, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.t1) + len(self.t2)

    def get(self, key: BlockHash) -> Chunk | None:
        """Return the chunk of a key, `None` if it is not there."""
        return self.t1.get(key) or self.t2.get(key)

    def insert(self, key: BlockHash, chunk: Chunk, access: RequestAccess) -> None:
        """Add a chunk to `t1`, and forget that it had been given up."""
        self.t1[key] = chunk
        self.b1.pop(key, None)
        self.b2.pop(key, None)

    def on_request_access(self, keys: Collection[BlockHash], access: RequestAccess) -> None:
        """Learn nothing: frequency is counted at a request's end."""

    def on_store_miss(self, keys: Sequence[BlockHash]) -> None:
        """Move the target towards the list that would have kept each key."""
        for key in reversed(keys):
            if key in self.b1:
                step = max(1.0, len(self.b2) / len(self.b1))
                self.target_t1_size = min(self.target_t1_size + step, self.capacity)
                self.b1.move_to_end(key)
            elif key in self.b2:
                step = max(1.0, len(self.b1) / len(self.b2))
                self.target_t1_size = max(self.target_t1_size - step, 0)
                self.b2.move_to_end(key)

    def on_request_finished(self, keys: Sequence[BlockHash], access: RequestAccess) -> None:
        """Move what the request found ready to `t2`; what it only inserted becomes recent where it is."""
        for key in reversed(keys):
            if key in access.reused:
                if key in self.t1:
                    self.t2[key] = self.t1.pop(key)
                elif key in self.t2:
                    self.t2.move_to_end(key)
            elif key in access.inserted:
                held = self.t1 if key in self.t1 else self.t2
                if key in held:
                    held.move_to_end(key)

    def evict(self, num_chunks: int, protected: AbstractSet[BlockHash]) -> bool:
        """Give up from `t1` while it is as long as its target, else from `t2`; or, if too few, none."""
        from_t1, from_t2 = _idle(self.t1, None, protected), _idle(self.t2, None, protected)
        once: list[BlockHash] = []
        often: list[BlockHash] = []
        for _ in range(num_chunks):
            sources = [(from_t1, once), (from_t2, often)]
            if len(self.t1) - len(once) < int(self.target_t1_size):
                sources.reverse()
            for victims, chosen in sources:
                key = next(victims, None)
                if key is not None:
                    chosen.append(key)
                    break
            else:
                return False
        _remember(self.t1, once, self.b1, self.capacity)
        _remember(self.t2, often, self.b2, self.capacity)
        return True

    def residents(self) -> Iterator[Resident]:
        """Yield all that is there, `t1` before `t2`, each the first to go first."""
        yield from ((key, chunk.ref_cnt) for key, chunk in self.t1.items())
        yield from ((key, chunk.ref_cnt) for key, chunk in self.t2.items())


def _idle(
    chunks: OrderedDict[BlockHash, Chunk], limit: int | None, protected: AbstractSet[BlockHash]
) -> Iterator[BlockHash]:
    """Yield the keys of chunks that may go, at most `limit`."""
    found = 0
    for key, chunk in chunks.items():
        if found == limit:
            return
        if chunk.ref_cnt == 0 and key not in protected:
            found += 1
            yield key


def _remember(
    chunks: OrderedDict[BlockHash, Chunk],
    victims: Collection[BlockHash],
    ghosts: OrderedDict[BlockHash, None],
    capacity: int,
) -> None:
    for key in victims:
        del chunks[key]
        ghosts[key] = None
    while len(ghosts) > capacity:
        ghosts.popitem(last=False)
