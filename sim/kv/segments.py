"""The KV cache as run-length segments: the same hits and evictions as the block pool, at O(1) per call.

A block pool moves every block of a history at every call. But vLLM frees a request's blocks tail first and
evicts from the front of its free queue, so what is left of a history is always a *prefix*, and the free queue
holds it in long pieces. This module keeps the pieces:

- a `Residency` says how much of a stretch of names can be found here: its first `num_cached` blocks;
- a `Segment` is a piece of a stretch in the free queue, evicted from its end;
- blocks that hold nothing are a number: they are always in front of all cached ones, because uncached blocks
  are freed to the front.

Invariant: eviction takes a stretch's last cached block first. It holds because whoever takes a block takes
all blocks before it, so no block is ever less recently used than a later one of its stretch.

One thing has no place here: the same block name on two physical blocks (two requests that compute the same
tokens at the same time, or a fully cached prompt whose last block is computed again). That raises
`DuplicateBlockError`, and the run starts again on the block pool, which is the reference for all of this;
its record says so.
"""

from collections import OrderedDict, defaultdict

from mypy_extensions import mypyc_attr

from concur.sim.kv.history import History, Stretch


class DuplicateBlockError(Exception):
    """A block name would be on two physical blocks: this run needs the block pool.

    `request_id` computes the second one, which is the block `block_index` of its tokens.
    """

    def __init__(self, request_id: str, block_index: int) -> None:
        super().__init__(request_id, block_index)
        self.request_id = request_id
        self.block_index = block_index


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Residency:
    """What of one stretch is here: the first `num_cached` blocks can be found.

    A shared one keeps the lengths of the prefixes that requests hold of it; a private one has at most one
    holder at a time.
    """

    __slots__ = ("held", "is_shared", "num_cached", "number", "segments")

    def __init__(self, stretch: Stretch) -> None:
        self.number = stretch.number
        self.is_shared = stretch.is_shared
        self.num_cached = 0
        self.segments: list[Segment] = []
        self.held: defaultdict[int, int] = defaultdict(int)

    def longest_held(self) -> int:
        """Return the length of the longest prefix that a request holds."""
        return max(self.held, default=0)

    def hold(self, length: int) -> None:
        """Take note of one more holder of a prefix; only shared ones need to."""
        if self.is_shared and length:
            self.held[length] += 1

    def unhold(self, length: int) -> None:
        """Take note of one holder less."""
        if self.is_shared and length:
            self.held[length] -= 1
            if not self.held[length]:
                del self.held[length]


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Segment:
    """Blocks `low` to `high` (exclusive) of a stretch in the free queue; `high - 1` is evicted first."""

    __slots__ = ("high", "low", "residency")

    def __init__(self, residency: Residency, low: int, high: int) -> None:
        self.residency = residency
        self.low = low
        self.high = high


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class _Holding:
    """What one request holds: `num_cached_blocks` of its blocks, from the start, are findable."""

    __slots__ = ("history", "num_blocks", "num_cached_blocks")

    def __init__(self, history: History, num_blocks: int) -> None:
        self.history = history
        self.num_blocks = num_blocks
        self.num_cached_blocks = num_blocks


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SegmentCache:
    """The block pool and the cache manager in one, on segments.

    The counterpart of `concur.sim.kv.block_pool` and `concur.sim.kv.kv_cache_manager`: they say what is done
    and why, and this class does the same without touching single blocks. A call costs O(stretches of a
    history).
    """

    def __init__(
        self, num_gpu_blocks: int, *, block_size: int, watermark: float, enable_caching: bool
    ) -> None:
        self.num_gpu_blocks = num_gpu_blocks
        self.block_size = block_size
        self.enable_caching = enable_caching
        self.watermark_blocks = int(watermark * num_gpu_blocks)
        self.num_free_blocks = num_gpu_blocks - 1
        self.num_cached_free_blocks = 0
        self.num_evictions = 0
        self._queue: OrderedDict[Segment, None] = OrderedDict()  # front = evicted next
        self._residencies: dict[int, Residency] = {}  # by the number of the stretch; only what is here
        self._holdings: dict[str, _Holding] = {}

    def get_usage(self) -> float:
        """Return the fraction of blocks that requests reference, 0 to 1."""
        return 1.0 - self.num_free_blocks / (self.num_gpu_blocks - 1)

    def get_resident(self) -> float:
        """Return the fraction of blocks that are referenced or cached, 0 to 1."""
        empty = self.num_free_blocks - self.num_cached_free_blocks
        return 1.0 - empty / (self.num_gpu_blocks - 1)

    def num_blocks_of(self, request_id: str) -> int:
        """Return how many blocks a request holds."""
        holding = self._holdings.get(request_id)
        return 0 if holding is None else holding.num_blocks

    def max_hit_blocks(self, num_tokens: int) -> int:
        """Return how many blocks a look-up may credit: the last token is always computed."""
        return (num_tokens - 1) // self.block_size

    def count_hits(self, history: History, num_tokens: int) -> int:
        """Return how many blocks at the start of a history's first `num_tokens` tokens are cached."""
        limit = self.max_hit_blocks(num_tokens)
        found = 0
        for stretch, length in history.parts:
            residency = self._residencies.get(stretch.number)
            if residency is None:
                break
            hit = min(residency.num_cached, length, limit - found)
            found += hit
            if hit < length:
                break
        return found

    def can_admit(
        self, history: History, num_hit_blocks: int, num_tokens: int, *, keep_free_blocks: int
    ) -> bool:
        """Tell whether somebody who hits that many blocks can get room for `num_tokens` tokens in all."""
        needed = -(-num_tokens // self.block_size) - num_hit_blocks
        idle = sum([self._num_idle(stretch, length) for stretch, length in history.prefix(num_hit_blocks)])
        return max(needed, 0) + idle + keep_free_blocks <= self.num_free_blocks

    def can_append(self, request_id: str, num_tokens: int, *, keep_free_blocks: int = 0) -> bool:
        """Tell whether a request can get slots up to `num_tokens` tokens in all."""
        missing = -(-num_tokens // self.block_size) - self._holdings[request_id].num_blocks
        return max(missing, 0) + keep_free_blocks <= self.num_free_blocks

    def adopt(self, request_id: str, history: History, num_hit_blocks: int) -> None:
        """Give a request without blocks the cached blocks that it hits."""
        assert request_id not in self._holdings
        for stretch, length in history.prefix(num_hit_blocks):
            self._touch(self._residencies[stretch.number], length)
        self._holdings[request_id] = _Holding(history, num_hit_blocks)

    def append(self, request_id: str, num_tokens: int, num_known_tokens: int) -> None:
        """Give a request slots up to `num_tokens` tokens, and cache the blocks that known ones fill."""
        holding = self._holdings[request_id]
        missing = -(-num_tokens // self.block_size) - holding.num_blocks
        if missing > 0:
            self.take(missing)
            holding.num_blocks += missing
        self.cache_blocks(request_id, num_known_tokens)

    def extend(self, request_id: str, num_blocks: int) -> None:
        """Give the request more blocks, whose contents are on their way."""
        self.take(num_blocks)
        self._holdings[request_id].num_blocks += num_blocks

    def catch_up(self, request_id: str, num_tokens: int, num_known_tokens: int) -> None:
        """Book the blocks that `take` has taken for a request, up to `num_tokens` tokens.

        Those that known tokens fill are cached.
        """
        self._holdings[request_id].num_blocks = -(-num_tokens // self.block_size)
        self.cache_blocks(request_id, num_known_tokens)

    def cache_blocks(self, request_id: str, num_tokens: int) -> None:
        """Make the full blocks among the request's first `num_tokens` tokens findable.

        Raises
        ------
        DuplicateBlockError
            If another physical block is findable under one of their names.
        """
        holding = self._holdings[request_id]
        num_full_blocks = num_tokens // self.block_size
        before = holding.num_cached_blocks
        if num_full_blocks <= before or not self.enable_caching:
            return
        history = holding.history
        start = history.num_blocks_before_last
        if before >= start:  # as almost always: within what the agent itself writes
            self._cache(request_id, before, history.parts[-1][0], before - start, num_full_blocks - start)
        else:
            start = 0
            for stretch, length in history.parts:
                had, has = max(before - start, 0), min(num_full_blocks - start, length)
                if has > had:
                    self._cache(request_id, start + had, stretch, had, has)
                start += length
        holding.num_cached_blocks = num_full_blocks

    def free(self, request_id: str) -> None:
        """Release all blocks of the request, tail first."""
        holding = self._holdings.pop(request_id)
        self.num_free_blocks += holding.num_blocks - holding.num_cached_blocks
        for stretch, length in reversed(list(holding.history.prefix(holding.num_cached_blocks))):
            residency = self._residencies[stretch.number]
            residency.unhold(length)
            low = residency.longest_held() if residency.is_shared else 0
            if low < length:
                self._put(Segment(residency, low, length))

    def take(self, num_blocks: int) -> None:
        """Take blocks from the front of the free queue: empty ones first, then from the ends of segments."""
        to_evict = num_blocks - (self.num_free_blocks - self.num_cached_free_blocks)
        self.num_free_blocks -= num_blocks
        assert self.num_free_blocks >= 0, "ask first"
        if to_evict <= 0:
            return
        self.num_cached_free_blocks -= to_evict
        self.num_evictions += to_evict
        while to_evict:
            segment = next(iter(self._queue))
            residency = segment.residency
            assert residency.num_cached == segment.high, "a stretch is evicted from its end"
            count = min(to_evict, segment.high - segment.low)
            segment.high -= count
            residency.num_cached = segment.high
            to_evict -= count
            if segment.high == segment.low:
                self._drop(segment)

    def _cache(self, request_id: str, block_index: int, stretch: Stretch, had: int, has: int) -> None:
        """Make blocks `had` to `has` of a stretch findable, for a request that holds the first `had`.

        They begin with the block `block_index` of the request.
        """
        residency = self._residencies.get(stretch.number)
        if residency is None:
            residency = self._residencies[stretch.number] = Residency(stretch)
        if residency.num_cached != had:
            raise DuplicateBlockError(request_id, block_index)
        residency.num_cached = has
        if residency.is_shared:
            residency.unhold(had)
            residency.hold(has)

    def _num_idle(self, stretch: Stretch, length: int) -> int:
        idle = 0
        for segment in self._residencies[stretch.number].segments:
            if segment.low < length:
                idle += min(segment.high, length) - segment.low
        return idle

    def _touch(self, residency: Residency, length: int) -> None:
        """Take the first `length` blocks of a stretch out of the free queue; later ones keep their places."""
        residency.hold(length)
        for segment in [segment for segment in residency.segments if segment.low < length]:
            taken = min(segment.high, length) - segment.low
            self.num_free_blocks -= taken
            self.num_cached_free_blocks -= taken
            segment.low += taken
            if segment.low == segment.high:
                self._drop(segment)

    def _put(self, segment: Segment) -> None:
        count = segment.high - segment.low
        self.num_free_blocks += count
        self.num_cached_free_blocks += count
        self._queue[segment] = None
        segment.residency.segments.append(segment)

    def _drop(self, segment: Segment) -> None:
        """Forget an empty segment, and its stretch if nothing of it is here any more."""
        residency = segment.residency
        del self._queue[segment]
        residency.segments.remove(segment)
        if not residency.num_cached:
            del self._residencies[residency.number]
