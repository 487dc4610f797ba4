"""Which engine steps to measure: a designed grid over batch shapes.

Four kinds of points, each a `Point`: decodes of equal context, decodes of unequal context, prefill chunks on
cached context (one or several a step), and a prefill chunk that joins running decodes. Sizes and contexts
grow geometrically: the terms of `concur.sim.step_time.step_time` span orders of magnitude. Where CUDA graphs
are captured the decode sizes include the one just beyond a captured size, which is padded to the next (vLLM
0.32.0, v1/cudagraph_dispatcher.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

_FACTOR: Final = 4
_FIRST_CONTEXT_TOKENS: Final = 64
_FIRST_CHUNK_TOKENS: Final = 16
DECODE_STEPS: Final = 4  # decode steps measured per point
_SLACK_TOKENS: Final = 16  # beyond a point's context: its new tokens, at most
_POOL_SHARE: Final = 0.9  # of the pool, at most: a full one would preempt


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine can hold and schedule."""

    block_size: int
    num_gpu_blocks: int
    max_num_batched_tokens: int
    max_num_seqs: int
    max_model_len: int
    cudagraph_capture_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prefill:
    """A chunk of `num_tokens` on `context_tokens` cached ones (whole blocks)."""

    num_tokens: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Point:
    """Decodes with these contexts (whole blocks), and prefills that join them in one step."""

    decode_context_tokens: tuple[int, ...] = ()
    prefills: tuple[Prefill, ...] = ()

    @property
    def num_scheduled_tokens(self) -> int:
        """Tokens of the step that has all of the point's requests."""
        return len(self.decode_context_tokens) + sum(prefill.num_tokens for prefill in self.prefills)


def design(limits: Limits) -> list[Point]:
    """Return the points that fit the engine, without duplicates, in a fixed order."""
    points = (*_decodes(limits), *_unequal_decodes(limits), *_prefills(limits), *_mixed(limits))
    return [point for point in dict.fromkeys(points) if _fits(point, limits)]


def shuffled(num_points: int, *, seed: int, repeat: int) -> list[int]:
    """Return the order of one repeat: shuffled, so that whatever a budget cuts off is spread evenly."""
    return [int(index) for index in np.random.default_rng([seed, repeat]).permutation(num_points)]


def decode_sizes(max_num_seqs: int) -> list[int]:
    """Return batch sizes: powers of two, and the largest."""
    powers = (1 << exponent for exponent in range(max_num_seqs.bit_length()))
    return sorted({*powers, max_num_seqs})


def sizes_beside(limits: Limits) -> list[int]:
    """Return the batch sizes just beyond captured powers of two."""
    sizes = decode_sizes(limits.max_num_seqs)
    captured = [size for size in sizes if size in limits.cudagraph_capture_sizes and size > _FACTOR]
    return [size + 1 for size in captured if size < limits.max_num_seqs]


def context_ladder(limits: Limits, *, room_tokens: int = 0) -> list[int]:
    """Return context lengths in tokens, whole blocks, growing geometrically up to the longest possible.

    The longest leaves room for `room_tokens` more.
    """
    longest = limits.max_model_len - _SLACK_TOKENS - room_tokens
    lengths = _geometric(_FIRST_CONTEXT_TOKENS, longest)
    block = limits.block_size
    return sorted({max(block, length // block * block) for length in lengths})


def _decodes(limits: Limits) -> Iterator[Point]:
    for size, context in product(decode_sizes(limits.max_num_seqs), context_ladder(limits)):
        yield Point((context,) * size)
    for size, context in product(
        sizes_beside(limits), context_ladder(limits)[:2]
    ):  # padding is of any context
        yield Point((context,) * size)


def _unequal_decodes(limits: Limits) -> Iterator[Point]:
    """Contexts spread evenly from nearly nothing to twice the mean."""
    block = limits.block_size
    for size, mean in product(_geometric(_FACTOR, limits.max_num_seqs), context_ladder(limits)):
        spread = (max(1, round(2 * mean * (rank + 0.5) / size / block)) * block for rank in range(size))
        yield Point(tuple(spread))


def _prefills(limits: Limits) -> Iterator[Point]:
    chunks = _geometric(_FIRST_CHUNK_TOKENS, limits.max_num_batched_tokens)
    for chunk in chunks:
        for context in (0, *context_ladder(limits, room_tokens=chunk)):
            yield Point(prefills=(Prefill(chunk, context),))
    for number, chunk, context in product((_FACTOR, _FACTOR**2), chunks, (0, *context_ladder(limits)[1:3])):
        yield Point(prefills=(Prefill(chunk, context),) * number)


def _mixed(limits: Limits) -> Iterator[Point]:
    sizes = [size for size in (1, 8, 64) if size < limits.max_num_seqs]
    for size, decode_context in product(sizes, context_ladder(limits)[1:4:2]):
        budget = limits.max_num_batched_tokens - size
        for chunk in (_FIRST_CHUNK_TOKENS, budget // 8, budget):
            for prefill_context in (0, *context_ladder(limits, room_tokens=chunk)[1::2]):
                yield Point((decode_context,) * size, (Prefill(chunk, prefill_context),))


def _geometric(first: int, last: int) -> list[int]:
    """Return first, first * factor, ... and the last."""
    values = [last]
    value = first
    while value * 1.5 < last:
        values.append(value)
        value *= _FACTOR
    return sorted(values)


def _fits(point: Point, limits: Limits) -> bool:
    prefill_ends = [prefill.num_tokens + prefill.context_tokens for prefill in point.prefills]
    ends = [*point.decode_context_tokens, *prefill_ends]
    blocks = sum(-(-(end + _SLACK_TOKENS) // limits.block_size) for end in ends)
    return (
        blocks <= _POOL_SHARE * limits.num_gpu_blocks
        and max(ends) + _SLACK_TOKENS <= limits.max_model_len
        and len(ends) <= limits.max_num_seqs
        and 0 < point.num_scheduled_tokens <= limits.max_num_batched_tokens
    )
