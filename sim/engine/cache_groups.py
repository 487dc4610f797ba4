"""`[[engine.kv_cache_groups]]`: layers of several kinds over one block pool."""

from collections.abc import Sequence
from math import gcd
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from concur.sim.section import MAX_TOKENS, Section

_MAX_GROUPS: Final = 64


class KVCacheGroupConfig(Section):
    """Layers that share a block table; `num_groups` such groups, one after the other.

    vLLM splits a model's layers into groups of equal size, so that all blocks take the same memory
    (`v1/core/kv_cache_utils.py`, `get_kv_cache_groups`): gpt-oss has a group of full attention and one with
    `sliding_window = 128`, Gemma-3-27B a full one and six with 1,024. `block_size` = 0 is the engine's, which
    is the greatest common divisor of all.
    """

    kind: Literal["full", "sliding_window"] = "full"
    sliding_window: int = Field(0, ge=0, le=MAX_TOKENS)
    block_size: int = Field(0, ge=0, le=1_000_000)
    num_groups: int = Field(1, ge=1, le=_MAX_GROUPS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "sliding_window") != (self.sliding_window > 0):
            raise ValueError(
                f"sliding_window = {self.sliding_window} but a group of kind {self.kind} needs "
                + ("at least 1" if self.kind == "sliding_window" else "0; leave it out")
            )
        return self

    def max_blocks(self, *, max_in_flight_tokens: int, max_model_len: int) -> int:
        """Return how many blocks a request holds at most in one such group, whose block size is known.

        Of a window: its tokens and those in flight, and one more block because it may begin within one
        (`v1/kv_cache_interface.py`, `SlidingWindowSpec.max_admission_blocks_per_request`).
        """
        if self.kind == "full":
            return -(-max_model_len // self.block_size)
        num_tokens = min(self.sliding_window - 1 + max_in_flight_tokens, max_model_len)
        return -(-num_tokens // self.block_size) + 1


def expanded(configs: Sequence[KVCacheGroupConfig], block_size: int) -> tuple[KVCacheGroupConfig, ...]:
    """Return the groups of a pool one by one, each with its block size; one that is full if none is given."""
    return tuple(
        config.model_copy(update={"num_groups": 1, "block_size": config.block_size or block_size})
        for config in configs or (KVCacheGroupConfig(),)
        for _ in range(config.num_groups)
    )


def check_block_sizes(configs: Sequence[KVCacheGroupConfig], block_size: int) -> None:
    """Refuse groups that blocks of `block_size` tokens cannot name.

    Raises
    ------
    ValueError
        If `block_size` is not the greatest common divisor of the groups' sizes, as vLLM has it.
    """
    common = gcd(*(config.block_size or block_size for config in configs))
    if common != block_size:
        raise ValueError(
            f"block_size = {block_size} but must be the greatest common divisor of the block sizes of "
            f"kv_cache_groups, {common}"
        )
