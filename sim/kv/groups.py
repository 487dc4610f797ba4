"""What each kind of attention asks of its blocks: which of them a hit needs, and which it lets go.

Semantics of vLLM 0.32.0, `v1/core/single_type_kv_cache_manager.py` and `v1/kv_cache_interface.py`. A model's
layers are split into groups of equal size, each with a block table of its own over one block pool. Two equal
groups answer alike, so that a look-up asks once for both.

Left out: state-space and linear layers (`MambaSpec`: blocks at the end of a prefix only, prefill cut at their
boundaries), chunked local attention, cross attention, retention intervals, speculative decoding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class CacheGroup(Protocol):
    """The rules of one group of layers; a block holds `block_size` tokens of them."""

    @property
    def block_size(self) -> int:
        """Tokens of a block."""
        ...

    def num_skipped_tokens(self, num_tokens: int) -> int:
        """Return how many of the first `num_tokens` tokens what comes next does not attend to."""
        ...

    def find(self, is_cached: Callable[[int], bool], max_tokens: int, alignment_tokens: int) -> int:
        """Return how many tokens a hit has, at most `max_tokens`, a multiple of `alignment_tokens`.

        `is_cached` tells of a block of the history, by its place, whether it can be found.
        """
        ...

    def is_reachable(self, block_index: int, alignment_tokens: int) -> bool:
        """Tell whether some aligned hit could need the block, so that it is worth finding."""
        ...


@dataclass(frozen=True, slots=True)
class FullAttention:
    """Every token is attended to: a hit needs all its blocks, from the first on."""

    block_size: int

    def num_skipped_tokens(self, num_tokens: int) -> int:
        """Return 0."""
        return 0

    def find(self, is_cached: Callable[[int], bool], max_tokens: int, alignment_tokens: int) -> int:
        """Count from the left, up to the first block that is missing."""
        num_blocks = 0
        while num_blocks < max_tokens // self.block_size and is_cached(num_blocks):
            num_blocks += 1
        return num_blocks * self.block_size // alignment_tokens * alignment_tokens

    def is_reachable(self, block_index: int, alignment_tokens: int) -> bool:
        """Return `True`."""
        return True


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """The last `sliding_window` tokens are attended to, the token itself among them."""

    block_size: int
    sliding_window: int

    @property
    def num_hit_blocks(self) -> int:
        """How many blocks in a row a hit needs at its end: those of the window before the next token."""
        return -(-(self.sliding_window - 1) // self.block_size)

    def num_skipped_tokens(self, num_tokens: int) -> int:
        """Return how many tokens have left the window of the next one."""
        return max(0, num_tokens - self.sliding_window + 1)

    def find(self, is_cached: Callable[[int], bool], max_tokens: int, alignment_tokens: int) -> int:
        """Look from the right for a window of blocks in a row; the beginning needs no more than it has."""
        run = 0
        for index in range(max_tokens // self.block_size - 1, -1, -1):
            if not is_cached(index):
                run = 0
            elif run or not (index + 1) * self.block_size % alignment_tokens:
                run += 1
                if run >= self.num_hit_blocks:
                    return (index + run) * self.block_size
        return run * self.block_size

    def is_reachable(self, block_index: int, alignment_tokens: int) -> bool:
        """Tell whether the block is in the window before some aligned boundary."""
        per_boundary = alignment_tokens // self.block_size
        return block_index % per_boundary >= per_boundary - self.num_hit_blocks
