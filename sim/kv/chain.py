"""Prefix chains: what makes two blocks hold the same tokens.

vLLM names a full block by a hash over its tokens and its parent's hash (0.32.0,
`v1/core/kv_cache_utils.py::hash_block_tokens`). A trace has no tokens, only how many are shared and kept, so
a block is named here by an integer that is equal exactly where vLLM's hash would be:

- a block that lies wholly inside the shared prefix belongs to the prefix group,
- any other block belongs to one agent, and to one writing of its history: dropping tokens
  (`kept_tokens`) renames every block from the first one that changes.
"""

from collections import defaultdict
from typing import NewType

BlockHash = NewType("BlockHash", int)


class BlockHasher:
    """Name blocks of all agents of a run; the one source of fresh `BlockHash`es."""

    __slots__ = ("_groups", "_num_hashes", "block_size")

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._num_hashes = 0
        self._groups: defaultdict[str, list[BlockHash]] = defaultdict(list)

    def fresh(self, count: int) -> list[BlockHash]:
        """Return `count` names that nothing else has."""
        first = self._num_hashes
        self._num_hashes += count
        return [BlockHash(number) for number in range(first, first + count)]

    def shared(self, prefix_group: str, num_blocks: int) -> list[BlockHash]:
        """Return the names of the first `num_blocks` blocks of a group's shared prefix."""
        chain = self._groups[prefix_group]
        if len(chain) < num_blocks:
            chain += self.fresh(num_blocks - len(chain))
        return chain[:num_blocks]


class AgentChain:
    """The block names of one agent's history, kept up to date call by call.

    `block_hashes` covers the *full* blocks of prompt + output of the current call. Extending costs O(new
    blocks).
    """

    __slots__ = ("_hasher", "_is_first_call", "_prefix_group", "_shared_blocks", "block_hashes")

    def __init__(self, hasher: BlockHasher, *, prefix_group: str | None, shared_prefix_tokens: int) -> None:
        self._hasher = hasher
        self._prefix_group = prefix_group
        self._shared_blocks = 0 if prefix_group is None else shared_prefix_tokens // hasher.block_size
        self._is_first_call = True
        self.block_hashes: list[BlockHash] = []

    def begin_call(self, *, kept_tokens: int, context_tokens: int) -> list[BlockHash]:
        """Drop what the new prompt does not keep, extend to `context_tokens`, return the names.

        For the first call `kept_tokens` is the shared prefix.
        """
        block_size = self._hasher.block_size
        hashes = self.block_hashes
        if self._is_first_call and self._prefix_group is not None:
            hashes += self._hasher.shared(self._prefix_group, self._shared_blocks)
        self._is_first_call = False
        del hashes[kept_tokens // block_size :]
        hashes += self._hasher.fresh(context_tokens // block_size - len(hashes))
        return hashes
