"""Which steps to ask for: uniform shapes, spread over what a scheduler can put into one step.

Prefill chunks on contexts, several prefills at once, decode batches at and beside vLLM's CUDA-graph capture
sizes, and mixtures of both. Sizes go up roughly geometrically: relative error is what is fitted. Where the
kernels are uneven in a step's tokens, prefills are put beside each bend (`uneven_sizes`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

_CHUNKS: Final = (
    *(1, 8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048, 2560, 3072),
    *(4096, 5000, 6144, 8192, 12_288, 16_384),
)
_CONTEXTS: Final = (0, 512, 2048, 4096, 8192, 16_384, 32_768, 65_536, 114_688)
_UNEVEN_CONTEXTS: Final = (0, 1024, 8192, 32_768)
_UNEVEN_FRAC: Final = 0.01  # a fifth of the error that a profile may have
_BATCHES: Final = (
    *(1, 2, 3, 4, 5, 8, 9, 12, 16, 20, 24, 32, 33, 48, 56, 64, 65, 80, 96, 112, 128, 129, 160, 192, 200),
    *(224, 256, 257, 304, 320, 384, 390, 448, 512, 640, 768, 1024),
)
_DECODE_CONTEXTS: Final = (
    *(16, 128, 512, 1024, 2048, 4096, 6000, 8192, 12_000, 16_384, 32_768, 49_152, 65_536, 98_304, 131_071),
)
_MIXED_PREFILLS: Final = (  # number and tokens each; not all beside a tile's edge
    *((1, 16), (1, 100), (1, 128), (1, 300), (1, 512), (1, 800), (1, 1024), (1, 1500), (1, 2048), (1, 3000)),
    *((1, 4096), (1, 7000), (3, 400), (4, 256), (16, 128), (64, 100)),
)
_MIXED_CONTEXTS: Final = (0, 8192, 49_152)
_MIXED_DECODES: Final = ((4, 8192), (16, 30_000), (32, 2048), (64, 16_384), (128, 4096), (250, 1024))


@dataclass(frozen=True, slots=True)
class StepShape:
    """One step: `num_prefills` chunks of `prefill_tokens` on `prefill_context_tokens` each, and decodes."""

    num_prefills: int = 0
    prefill_tokens: int = 0
    prefill_context_tokens: int = 0
    num_decodes: int = 0
    decode_context_tokens: int = 0

    @property
    def phase(self) -> Literal["prefill", "decode", "mixed"]:
        """What the step consists of."""
        if not self.num_decodes:
            return "prefill"
        return "mixed" if self.num_prefills else "decode"

    @property
    def num_tokens(self) -> int:
        """Tokens scheduled."""
        return self.num_prefills * self.prefill_tokens + self.num_decodes

    @property
    def kv_tokens(self) -> int:
        """Tokens in the KV cache at the end of the step."""
        prefills = self.num_prefills * (self.prefill_tokens + self.prefill_context_tokens)
        return prefills + self.num_decodes * (self.decode_context_tokens + 1)


def capture_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """Return vLLM's default CUDA-graph capture sizes in tokens.

    Source: `vllm/config/vllm.py` (0.32.0), `_set_cudagraph_sizes`: 1, 2, 4, steps of 8 below 256, steps of
    16 from there, up to twice `max_num_seqs` but no more than 512.
    """
    largest = min(2 * max_num_seqs, 512)
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16))
    return tuple(size for size in sizes if size <= largest)


def uneven_sizes(duration_s: Callable[[int], float], limit: int, capture_sizes: Iterable[int]) -> list[int]:
    """Return the token counts up to `limit` between which a duration is a straight line, within a hundredth.

    Bisects between the designed chunks. A step of so many tokens as a CUDA graph holds is padded to one of
    `capture_sizes`, so these are all that count below the largest.
    """
    padded = [size for size in capture_sizes if size <= limit]
    largest = max(padded, default=0)
    sizes = [largest, *(size for size in _CHUNKS if largest < size <= limit)] if padded else [*_CHUNKS]
    found = {*padded, *sizes}
    gaps = list(pairwise(sizes))
    while gaps:
        low, high = gaps.pop()
        middle = (low + high) // 2
        if middle == low:
            continue
        line_s = duration_s(low) + (middle - low) / (high - low) * (duration_s(high) - duration_s(low))
        if abs(line_s / duration_s(middle) - 1.0) > _UNEVEN_FRAC:
            found.add(middle)
            gaps += [(low, middle), (middle, high)]
    return sorted(found)


def step_shapes(
    *,
    step_tokens: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: int,
    chunks: Iterable[int] = (),
) -> list[StepShape]:
    """Return the shapes within the tokens that a step may attend to and the limits of the scheduler.

    `chunks` are prefills to ask for beside the designed ones.
    """
    beside = (StepShape(1, tokens, context) for tokens in chunks for context in _UNEVEN_CONTEXTS)
    shapes = dict.fromkeys((*_prefills(), *_decodes(), *_mixtures(), *beside))
    return [
        shape
        for shape in shapes
        if shape.kv_tokens <= step_tokens
        and shape.num_tokens <= max_num_batched_tokens
        and shape.num_prefills + shape.num_decodes <= max_num_seqs
        and shape.prefill_tokens + shape.prefill_context_tokens <= max_model_len
        and shape.decode_context_tokens < max_model_len
    ]


def _prefills() -> Iterator[StepShape]:
    for tokens in _CHUNKS:
        for context in _CONTEXTS:
            yield StepShape(1, tokens, context)
    for number in (2, 3, 4, 8, 16, 32, 64, 128, 256, 512):
        for tokens in (8, 16, 32, 64, 128, 256, 1024, 3000):
            for context in (0, 1024, 4096, 12_000, 30_000):
                yield StepShape(number, tokens, context)


def _decodes() -> Iterator[StepShape]:
    for batch in _BATCHES:
        for context in _DECODE_CONTEXTS:
            yield StepShape(num_decodes=batch, decode_context_tokens=context)


def _mixtures() -> Iterator[StepShape]:
    for number, tokens in _MIXED_PREFILLS:
        for context in _MIXED_CONTEXTS:
            for batch, decode_context in _MIXED_DECODES:
                yield StepShape(number, tokens, context, batch, decode_context)
