"""What the scheduler asks of a KV cache, whichever way it keeps its books."""

from typing import Protocol

from concur.sim.kv.history import History


class KVCache(Protocol):
    """Ask/command pairs over request ids and counts: ask first; a refused question has changed nothing.

    A request holds blocks from `adopt` to `free`. Two implementations: `KVCacheManager` on a block pool,
    which says what is done and why and is the reference, and `SegmentCache`, which does the same on
    run-length segments.
    """

    block_size: int
    enable_caching: bool
    watermark_blocks: int

    @property
    def num_evictions(self) -> int:
        """Number of cached blocks evicted so far."""
        ...

    def get_usage(self) -> float:
        """Return the fraction of blocks that requests reference, 0 to 1."""
        ...

    def get_resident(self) -> float:
        """Return the fraction of blocks that are referenced or cached, 0 to 1."""
        ...

    def num_blocks_of(self, request_id: str) -> int:
        """Return how many blocks a request holds."""
        ...

    def max_hit_blocks(self, num_tokens: int) -> int:
        """Return how many blocks a look-up for that many tokens may credit."""
        ...

    def count_hits(self, history: History, num_tokens: int) -> int:
        """Return how many blocks at the start of a history's first `num_tokens` tokens are cached."""
        ...

    def can_admit(
        self, history: History, num_hit_blocks: int, num_tokens: int, *, keep_free_blocks: int
    ) -> bool:
        """Tell whether somebody who hits that many blocks can get room for `num_tokens` tokens in all."""
        ...

    def can_append(self, request_id: str, num_tokens: int, *, keep_free_blocks: int = 0) -> bool:
        """Tell whether a request can get slots up to `num_tokens` tokens in all."""
        ...

    def adopt(self, request_id: str, history: History, num_hit_blocks: int) -> None:
        """Give a request the cached blocks that it hits."""
        ...

    def append(self, request_id: str, num_tokens: int, num_known_tokens: int) -> None:
        """Give a request slots up to `num_tokens` tokens, and cache the blocks that known ones fill."""
        ...

    def extend(self, request_id: str, num_blocks: int) -> None:
        """Give a request blocks whose contents are on their way."""
        ...

    def cache_blocks(self, request_id: str, num_tokens: int) -> None:
        """Make the full blocks among the request's first tokens findable."""
        ...

    def free(self, request_id: str) -> None:
        """Release all blocks of the request."""
        ...
