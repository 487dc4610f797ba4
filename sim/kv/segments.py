"""The KV cache as run-length segments: the same hits and evictions as the block pool, at O(1) per call.

A block pool moves every block of a history at every call. But vLLM frees a request's blocks tail first and
evicts from the front of its free queue, so what is left of a history is always a *prefix*, and the free queue
holds it in long stretches. This module keeps the stretches:

- a `Run` is a stretch of block names that only ever grows at its end: a group's shared prefix, or what one
  agent wrote between two cuts of its history. `num_cached` of its blocks, from the start, can be found;
- a `Segment` is a piece of a run in the free queue, evicted from its end;
- blocks that hold nothing are a number: they are always in front of all cached ones, because uncached blocks
  are freed to the front.

Invariant: eviction takes a run's last cached block first. It holds because whoever takes a block takes all
blocks before it, so no block is ever less recently used than a later one of its run.

One thing has no place here: the same block name on two physical blocks (two requests that compute the same
tokens at the same time, or a fully cached prompt whose last block is computed again). That raises
`DuplicateBlockError`, and the run starts again on the block pool, which is the reference for all of this;
its record says so.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from concur.sim.engine.request import Request


class DuplicateBlockError(Exception):
    """A block name would be on two physical blocks: this run needs the block pool.

    Its arguments: the request that computes the second one, and whether its prompt ends with that block and
    was found as a whole; if not, another request computes the same tokens at the same time.
    """

    @property
    def request(self) -> Request:
        """The request that computes the second block."""
        request: Request = self.args[0]
        return request

    @property
    def is_end_of_prompt(self) -> bool:
        """Whether the prompt was found to its very end, whose block has to be computed again."""
        return bool(self.args[1])


class Run:
    """Block names that grow at the end only.

    `num_named` exist, the first `num_cached` can be found. A shared run keeps the lengths of the prefixes
    that requests hold of it; a private one has at most one holder at a time.
    """

    __slots__ = ("held", "is_shared", "num_cached", "num_named", "segments")

    def __init__(self, *, is_shared: bool) -> None:
        self.is_shared = is_shared
        self.num_named = 0
        self.num_cached = 0
        self.segments: list[Segment] = []
        self.held: defaultdict[int, int] = defaultdict(int)

    def longest_held(self) -> int:
        """Return the length of the longest prefix that a request holds."""
        return max(self.held, default=0)

    def hold(self, length: int) -> None:
        """Take note of one more holder of a prefix; only shared runs need to."""
        if self.is_shared and length:
            self.held[length] += 1

    def unhold(self, length: int) -> None:
        """Take note of one holder less."""
        if self.is_shared and length:
            self.held[length] -= 1
            if not self.held[length]:
                del self.held[length]


class Segment:
    """Blocks `low` to `high` (exclusive) of a run in the free queue; `high - 1` is evicted first."""

    __slots__ = ("high", "low", "run")

    def __init__(self, run: Run, low: int, high: int) -> None:
        self.run = run
        self.low = low
        self.high = high


class SegmentChain:
    """The runs that make up one agent's history: [run, number of its blocks], in order.

    The counterpart of `concur.sim.kv.chain.AgentChain`.
    """

    __slots__ = ("_block_size", "num_blocks_before_last", "parts")

    def __init__(self, shared: Run | None, shared_prefix_tokens: int, block_size: int) -> None:
        self._block_size = block_size
        self.num_blocks_before_last = 0
        self.parts: list[tuple[Run, int]] = []
        num_shared = shared_prefix_tokens // block_size
        if shared is not None and num_shared:
            shared.num_named = max(shared.num_named, num_shared)
            self.parts.append((shared, num_shared))

    def begin_call(self, *, kept_tokens: int, context_tokens: int) -> None:
        """Drop what the new prompt does not keep, and extend to `context_tokens`."""
        block_size = self._block_size
        kept_blocks, num_blocks = kept_tokens // block_size, context_tokens // block_size
        parts: list[tuple[Run, int]] = []
        start = 0
        for run, length in self.parts:
            take = min(length, kept_blocks - start)
            if take <= 0:
                break
            parts.append((run, take))
            start += take
        if num_blocks > start:
            grows = bool(parts) and not parts[-1][0].is_shared and parts[-1][1] == parts[-1][0].num_named
            if not grows:
                parts.append((Run(is_shared=False), 0))
            run, length = parts[-1]
            run.num_named = length + num_blocks - start
            parts[-1] = (run, run.num_named)
        self.parts = parts
        self.num_blocks_before_last = sum(length for _, length in parts[:-1])


class SegmentCache:
    """The block pool and the cache manager in one, on segments.

    The counterpart of `concur.sim.kv.block_pool.BlockPool` and
    `concur.sim.kv.kv_cache_manager.KVCacheManager`, which say what is done and why; here is only how. Costs
    O(runs of a history) per call, and per block nothing.
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
        self._shared_runs: dict[str, Run] = {}

    def new_chain(self, prefix_group: str | None, shared_prefix_tokens: int) -> SegmentChain:
        """Return the chain of an agent that has not called yet."""
        shared = None
        if prefix_group is not None:
            shared = self._shared_runs.setdefault(prefix_group, Run(is_shared=True))
        return SegmentChain(shared, shared_prefix_tokens, self.block_size)

    def get_usage(self) -> float:
        """Return the fraction of blocks that requests reference, 0 to 1."""
        return 1.0 - self.num_free_blocks / (self.num_gpu_blocks - 1)

    def get_resident(self) -> float:
        """Return the fraction of blocks that are referenced or cached, 0 to 1."""
        empty = self.num_free_blocks - self.num_cached_free_blocks
        return 1.0 - empty / (self.num_gpu_blocks - 1)

    def max_hit_blocks(self, request: Request) -> int:
        """Return how many blocks a look-up may credit: the last token is always computed."""
        return (request.num_tokens - 1) // self.block_size

    def get_computed_blocks(self, request: Request) -> range:
        """Return the numbers of the cached blocks at the start of the request's tokens."""
        limit = self.max_hit_blocks(request)
        found = 0
        for run, length in request.chain.parts:
            hit = min(run.num_cached, length, limit - found)
            found += hit
            if hit < length:
                break
        return range(found)

    def can_admit(
        self, request: Request, num_tokens: int, computed_blocks: Sequence[Any], *, keep_free_blocks: int
    ) -> bool:
        """Tell whether a request without blocks can get room for `num_tokens` tokens in all."""
        needed = -(-num_tokens // self.block_size) - len(computed_blocks)
        idle = sum(self._num_idle(run, length) for run, length in _prefix(request, len(computed_blocks)))
        return max(needed, 0) + idle + keep_free_blocks <= self.num_free_blocks

    def can_append(self, request: Request, num_new_tokens: int, *, keep_free_blocks: int = 0) -> bool:
        """Tell whether a request can get slots for `num_new_tokens` tokens more than it has computed."""
        missing = -(-(request.num_computed_tokens + num_new_tokens) // self.block_size) - request.num_blocks
        return max(missing, 0) + keep_free_blocks <= self.num_free_blocks

    def adopt(self, request: Request, computed_blocks: Sequence[Any]) -> None:
        """Give a request without blocks the cached blocks that it hit."""
        for run, length in _prefix(request, len(computed_blocks)):
            self._touch(run, length)
        request.num_blocks = request.num_cached_blocks = len(computed_blocks)

    def append(self, request: Request, num_new_tokens: int) -> None:
        """Give the request slots for `num_new_tokens` more tokens, and cache the blocks they fill."""
        num_tokens = request.num_computed_tokens + num_new_tokens
        missing = -(-num_tokens // self.block_size) - request.num_blocks
        if missing > 0:
            self.take(missing)
            request.num_blocks += missing
        self.cache_blocks(request, min(num_tokens, request.num_tokens))

    def extend(self, request: Request, num_blocks: int) -> None:
        """Give the request more blocks, whose contents are on their way."""
        self.take(num_blocks)
        request.num_blocks += num_blocks

    def cache_blocks(self, request: Request, num_tokens: int) -> None:
        """Make the full blocks among the request's first `num_tokens` tokens findable.

        Raises
        ------
        DuplicateBlockError
            If another physical block is findable under one of their names.
        """
        num_full_blocks = num_tokens // self.block_size
        before = request.num_cached_blocks
        if num_full_blocks <= before or not self.enable_caching:
            return
        chain: SegmentChain = request.chain
        start = chain.num_blocks_before_last
        if before >= start:  # as almost always: within what the agent itself writes
            self._cache(request, chain.parts[-1][0], before - start, num_full_blocks - start)
        else:
            start = 0
            for run, length in chain.parts:
                had, has = max(before - start, 0), min(num_full_blocks - start, length)
                if has > had:
                    self._cache(request, run, had, has)
                start += length
        request.num_cached_blocks = num_full_blocks

    def free(self, request: Request) -> None:
        """Release all blocks of the request, tail first."""
        self.num_free_blocks += request.num_blocks - request.num_cached_blocks
        for run, length in reversed(list(_prefix(request, request.num_cached_blocks))):
            run.unhold(length)
            low = run.longest_held() if run.is_shared else 0
            if low < length:
                self._put(Segment(run, low, length))
        request.num_blocks = request.num_cached_blocks = 0

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
            run = segment.run
            assert run.num_cached == segment.high, "a run is evicted from its end"
            count = min(to_evict, segment.high - segment.low)
            segment.high -= count
            run.num_cached = segment.high
            to_evict -= count
            if segment.high == segment.low:
                del self._queue[segment]
                run.segments.remove(segment)

    def _cache(self, request: Request, run: Run, had: int, has: int) -> None:
        """Make the blocks `had` to `has` of a run findable, for a request that holds the first `had`."""
        if run.num_cached != had:
            is_whole = request.num_tokens == self.block_size * (request.num_cached_blocks + 1)
            raise DuplicateBlockError(request, is_whole and has == had + 1)
        run.num_cached = has
        if run.is_shared:
            run.unhold(had)
            run.hold(has)

    def _num_idle(self, run: Run, length: int) -> int:
        idle = 0
        for segment in run.segments:
            if segment.low < length:
                idle += min(segment.high, length) - segment.low
        return idle

    def _touch(self, run: Run, length: int) -> None:
        """Take the first `length` blocks of a run out of the free queue; later ones keep their places."""
        run.hold(length)
        for segment in [segment for segment in run.segments if segment.low < length]:
            taken = min(segment.high, length) - segment.low
            self.num_free_blocks -= taken
            self.num_cached_free_blocks -= taken
            segment.low += taken
            if segment.low == segment.high:
                del self._queue[segment]
                run.segments.remove(segment)

    def _put(self, segment: Segment) -> None:
        count = segment.high - segment.low
        self.num_free_blocks += count
        self.num_cached_free_blocks += count
        self._queue[segment] = None
        segment.run.segments.append(segment)


def _prefix(request: Request, num_blocks: int) -> Iterator[tuple[Run, int]]:
    """Yield the runs that make up the request's first `num_blocks` blocks, cut to that length."""
    for run, length in request.chain.parts:
        if num_blocks <= 0:
            return
        yield run, min(length, num_blocks)
        num_blocks -= length
