"""Names for the tokens of histories, block by block: what makes two blocks hold the same tokens.

vLLM names a full block by a hash over its tokens and its parent's hash (0.32.0,
`v1/core/kv_cache_utils.py::hash_block_tokens`). A trace has no tokens, only how many are shared and kept, so
a block is named here by an integer that is equal exactly where vLLM's hash would be:

- a block that lies wholly inside the shared prefix belongs to the group of its last token,
- any other block belongs to one writing of a history: dropping tokens (`kept_tokens`) renames every block
  from the first one that changes.

Names belong to the run. Which engine holds which of them is each engine's own business.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, NewType

from concur.signals import Prefix

BlockHash = NewType("BlockHash", int)
_MOST_BLOCKS: Final = 1 << 40  # of one stretch: their names do not meet those of the next


class Stretch:
    """Blocks that were written one after the other; it grows at its end only.

    `num_blocks` of them are named so far. One is a part of a group's prefix, with which many histories begin,
    or what agents wrote between two cuts of their histories. `is_shared`: several requests may hold it at a
    time.
    """

    __slots__ = ("is_prefix", "is_shared", "num_blocks", "number")

    def __init__(self, number: int, *, is_shared: bool, is_prefix: bool) -> None:
        self.number = number
        self.is_shared = is_shared
        self.is_prefix = is_prefix
        self.num_blocks = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "Stretch":
        return self


class History:
    """The full blocks of one prompt with its output: (stretch, number of its blocks) in order. Never changed.

    `num_blocks_before_last` are those before the last part.
    """

    __slots__ = ("num_blocks_before_last", "parts")

    def __init__(self, parts: tuple[tuple[Stretch, int], ...]) -> None:
        self.parts = parts
        self.num_blocks_before_last = sum([length for _, length in parts[:-1]])

    def prefix(self, num_blocks: int) -> Iterator[tuple[Stretch, int]]:
        """Yield the parts that make up the first `num_blocks` blocks, cut to that length."""
        for stretch, length in self.parts:
            if num_blocks <= 0:
                return
            yield stretch, min(length, num_blocks)
            num_blocks -= length

    def block_hashes(self, start: int, stop: int) -> Iterator[BlockHash]:
        """Return the names of blocks `start` to `stop` (exclusive), as far as there are that many."""
        ranges = []
        for stretch, length in self.parts:
            first = stretch.number * _MOST_BLOCKS
            ranges.append(range(first + max(start, 0), first + max(min(stop, length), 0)))
            start, stop = start - length, stop - length
        return map(BlockHash, chain.from_iterable(ranges))

    def __deepcopy__(self, memo: dict[int, Any]) -> "History":
        return self


class Histories:
    """All histories of a run: the one source of fresh stretches."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._num_stretches = 0
        self._prefixes: dict[
            tuple[tuple[str, int], ...], Stretch
        ] = {}  # by the levels around, then the group

    def begin(self, levels: Sequence[Prefix]) -> History:
        """Return the history of an agent that has not called yet: what its groups share, outermost first."""
        parts: list[tuple[Stretch, int]] = []
        path: tuple[tuple[str, int], ...] = ()
        num_blocks = num_tokens = 0
        for level in levels:
            num_tokens += level.tokens
            length = num_tokens // self.block_size - num_blocks
            if length:
                stretch = self._prefix((*path, (level.group, 0)))
                stretch.num_blocks = max(stretch.num_blocks, length)
                parts.append((stretch, length))
                num_blocks += length
            path = (*path, (level.group, level.tokens))
        return History(tuple(parts))

    def call(
        self, history: History, *, kept_tokens: int, context_tokens: int, is_shared: bool = False
    ) -> History:
        """Return the first `kept_tokens` of a history, written on to `context_tokens`.

        Whoever writes on from the end of a stretch grows it; whoever does so from before its end, or from a
        prefix, begins another. `is_shared`: others will start with a part of what is written.
        """
        num_blocks = context_tokens // self.block_size
        parts = list(history.prefix(kept_tokens // self.block_size))
        missing = num_blocks - sum([length for _, length in parts])
        if missing > 0:
            stretch, length = parts.pop() if parts else (None, 0)
            if (
                stretch is None
                or stretch.is_prefix
                or length < stretch.num_blocks
                or (is_shared and not stretch.is_shared)
            ):
                if stretch is not None:
                    parts.append((stretch, length))
                stretch, length = self._fresh(is_shared=is_shared, is_prefix=False), 0
            stretch.num_blocks = length + missing
            parts.append((stretch, stretch.num_blocks))
        return History(tuple(parts))

    def _prefix(self, path: tuple[tuple[str, int], ...]) -> Stretch:
        stretch = self._prefixes.get(path)
        if stretch is None:
            stretch = self._prefixes[path] = self._fresh(is_shared=True, is_prefix=True)
        return stretch

    def _fresh(self, *, is_shared: bool, is_prefix: bool) -> Stretch:
        self._num_stretches += 1
        return Stretch(self._num_stretches, is_shared=is_shared, is_prefix=is_prefix)
