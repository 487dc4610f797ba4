"""What the scheduler asks of a KV cache, whichever way it keeps its books."""

from collections.abc import Sequence
from typing import Any, Protocol

from concur.sim.engine.request import Request


class KVCache(Protocol):
    """Ask/command pairs: ask first; a refused question has changed nothing.

    Two implementations: `KVCacheManager` on a block pool, which says what is done and why and is the
    reference, and `SegmentCache`, which does the same on run-length segments.
    """

    block_size: int
    enable_caching: bool
    watermark_blocks: int

    @property
    def num_evictions(self) -> int:
        """Number of cached blocks evicted so far."""
        ...

    def new_chain(self, prefix_group: str | None, shared_prefix_tokens: int) -> Any:
        """Return what names the blocks of an agent that has not called yet."""
        ...

    def get_usage(self) -> float:
        """Return the fraction of blocks that requests reference, 0 to 1."""
        ...

    def get_resident(self) -> float:
        """Return the fraction of blocks that are referenced or cached, 0 to 1."""
        ...

    def max_hit_blocks(self, request: Request) -> int:
        """Return how many blocks a look-up may credit."""
        ...

    def get_computed_blocks(self, request: Request) -> Sequence[Any]:
        """Return the cached blocks at the start of the request's tokens."""
        ...

    def can_admit(
        self, request: Request, num_tokens: int, computed_blocks: Sequence[Any], *, keep_free_blocks: int
    ) -> bool:
        """Tell whether a request without blocks can get room for `num_tokens` tokens in all."""
        ...

    def can_append(self, request: Request, num_new_tokens: int, *, keep_free_blocks: int = 0) -> bool:
        """Tell whether a request can get slots for more tokens."""
        ...

    def adopt(self, request: Request, computed_blocks: Sequence[Any]) -> None:
        """Give a request the cached blocks that it hit."""
        ...

    def append(self, request: Request, num_new_tokens: int) -> None:
        """Give a request slots for more tokens, and cache the blocks they fill."""
        ...

    def extend(self, request: Request, num_blocks: int) -> None:
        """Give a request blocks whose contents are on their way."""
        ...

    def cache_blocks(self, request: Request, num_tokens: int) -> None:
        """Make the full blocks among the request's first tokens findable."""
        ...

    def free(self, request: Request) -> None:
        """Release all blocks of the request."""
        ...
