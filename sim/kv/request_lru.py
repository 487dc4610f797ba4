"""The LRU of vLLM 0.33: a request's chunks have one rank among them while it runs.

Semantics of vLLM 0.33.0, `v1/kv_offload/cpu/policies/lru.py`; that of 0.32 is in `concur.sim.kv.eviction`.
"""

from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from heapq import heapify, heappop, heappush
from typing import Final

from concur.sim.kv.eviction import Chunk, LRUCachePolicy, RequestAccess, Resident
from concur.sim.kv.history import BlockHash

_SPARE_ENTRIES: Final = 64
_Rank = tuple[int, int]


class RequestLRUCachePolicy(LRUCachePolicy):
    """Least recently used first; of what one request uses, the furthest from its head.

    The rank of a request is that of its first access, and a chunk keeps a higher one. At the request's end
    all that it used is ranked anew, as under `LRUCachePolicy`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ranks: dict[BlockHash, _Rank] = {}
        self._heap: list[tuple[_Rank, BlockHash]] = []  # of all that is there, and of ranks left behind
        self._num_ranks = 0

    def insert(self, key: BlockHash, chunk: Chunk, access: RequestAccess) -> None:
        """Add a chunk under the request's rank."""
        self._chunks[key] = chunk
        self._put(key, (self._rank_of(access), -access.positions[key]))

    def on_request_access(self, keys: Collection[BlockHash], access: RequestAccess) -> None:
        """Lift what is there to the request's rank."""
        request_rank = self._rank_of(access)
        for key in keys:
            rank = (request_rank, -access.positions[key])
            if key in self._chunks and self._ranks[key] < rank:
                self._put(key, rank)

    def on_request_finished(self, keys: Sequence[BlockHash], access: RequestAccess) -> None:
        """Rank a request's keys anew, the head as the most recent."""
        for key in reversed(keys):
            if key in self._chunks:
                self._put(key, (self._next_rank(), 0))

    def evict(self, num_chunks: int, protected: AbstractSet[BlockHash]) -> bool:
        """Give up the idle chunks of lowest rank, or, if there are too few, none."""
        victims: dict[BlockHash, _Rank] = {}
        kept: dict[BlockHash, _Rank] = {}
        while self._heap and len(victims) < num_chunks:
            rank, key = heappop(self._heap)
            if self._ranks.get(key) == rank:
                may_go = self._chunks[key].ref_cnt == 0 and key not in protected
                (victims if may_go else kept)[key] = rank
        is_enough = len(victims) == num_chunks
        for key, rank in (kept if is_enough else kept | victims).items():
            heappush(self._heap, (rank, key))
        if is_enough:
            for key in victims:
                del self._chunks[key], self._ranks[key]
        return is_enough

    def residents(self) -> Iterator[Resident]:
        """Yield all that is there, the first to go first."""
        return ((key, self._chunks[key].ref_cnt) for key in sorted(self._chunks, key=self._ranks.__getitem__))

    def _rank_of(self, access: RequestAccess) -> int:
        access.rank = access.rank or self._next_rank()
        return access.rank

    def _next_rank(self) -> int:
        self._num_ranks += 1
        return self._num_ranks

    def _put(self, key: BlockHash, rank: _Rank) -> None:
        self._ranks[key] = rank
        heappush(self._heap, (rank, key))
        if len(self._heap) > 2 * len(self._chunks) + _SPARE_ENTRIES:
            self._heap = [(rank, key) for key, rank in self._ranks.items()]
            heapify(self._heap)
