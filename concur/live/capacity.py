"""How many tokens an engine's pool holds: its blocks, unless it says otherwise itself.

`num_gpu_blocks` times `block_size` is the pool of a model whose layers all keep the whole context. It is not
where layers differ (sliding windows, state spaces, compressed caches; vllm#51163: 3,991 blocks of 4 tokens,
yet 1,021,696 tokens fit) or where context parallelism spreads a context over ranks. vLLM then publishes
`kv_cache_size_tokens`, SGLang `max_total_num_tokens`.

vLLM computes it (v1/core/kv_cache_utils.py, `get_kv_cache_capacity`) as the number of longest requests that
fit, `kv_cache_max_concurrency` = num_gpu_blocks / blocks of a request of max_model_len, times max_model_len.
So on a plain model it is smaller than the blocks by less than one block per such request, and on a hybrid
one it holds for longest requests only (vllm#51041): better than the product, but derived.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from concur.live.errors import MetricNamesError, ScrapeError

_LEAST_BLOCK_SIZE: Final = 16
"""Of vLLM's attention kernels on GPUs; smaller blocks are those of compressor states."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """An engine's pool. `own_tokens`: what the engine says itself, where that is not its blocks."""

    num_gpu_blocks: int
    block_size: int
    own_tokens: int | None = None

    @property
    def block_tokens(self) -> int:
        """The tokens of all blocks."""
        return self.num_gpu_blocks * self.block_size

    @property
    def tokens(self) -> int:
        """The tokens that the pool holds."""
        return self.block_tokens if self.own_tokens is None else self.own_tokens


def vllm_capacity(labels: Mapping[str, str]) -> Capacity:
    """Return what the labels of vLLM's `cache_config_info` amount to.

    Raises
    ------
    MetricNamesError
        If the model's layers differ, but the engine does not say how many tokens fit.
    ScrapeError
        If a number is none, or 0.
    """
    blocks = Capacity(
        *(
            _whole(labels.get(name), f"cache_config_info{{{name}}}")
            for name in ("num_gpu_blocks", "block_size")
        )
    )
    published = labels.get("kv_cache_size_tokens", "None")
    if published == "None":
        _refuse_hybrid(labels)
        return blocks
    tokens = _whole(published, "cache_config_info{kv_cache_size_tokens}")
    longest = _number(labels.get("kv_cache_max_concurrency", "None")) or 0.0
    shortfall = blocks.block_tokens - tokens
    is_plain = -1 <= shortfall <= longest * blocks.block_size + 1  # 1: it is rounded down
    return blocks if is_plain else Capacity(blocks.num_gpu_blocks, blocks.block_size, tokens)


def sglang_capacity(num_pages: float, page_size: float, max_total_num_tokens: float | None) -> Capacity:
    """Return what SGLang's constants amount to; tokens beyond the last whole page do not count.

    Raises
    ------
    ScrapeError
        If a number is 0, or not whole.
    """
    blocks = Capacity(_whole(num_pages, "num_pages"), _whole(page_size, "page_size"))
    if max_total_num_tokens is None:
        return blocks
    tokens = _whole(max_total_num_tokens, "max_total_num_tokens")
    is_plain = 0 <= tokens - blocks.block_tokens < blocks.block_size
    return blocks if is_plain else Capacity(blocks.num_gpu_blocks, blocks.block_size, tokens)


def capacity_warning(capacity: Capacity) -> str:
    """Say where the engine's own number is used instead of its blocks'; empty where it is not."""
    if capacity.own_tokens is None:
        return ""
    return (
        f"the engine says that its pool holds {capacity.own_tokens} tokens, its {capacity.num_gpu_blocks} "
        f"blocks of {capacity.block_size} would hold {capacity.block_tokens}: its own number is used; on "
        "hybrid models that too is derived (vllm#51041), for requests of the longest kind"
    )


def _refuse_hybrid(labels: Mapping[str, str]) -> None:
    block_size = int(labels["block_size"])
    signs = [
        f"{name}={labels[name]}"
        for name in ("mamba_block_size", "mamba_page_size_padded", "sliding_window")
        if labels.get(name, "None") != "None"
    ]
    if labels.get("effective_attention_block_size", "None") not in ("None", labels["block_size"]):
        signs.append(f"effective_attention_block_size={labels['effective_attention_block_size']}")
    if labels.get("is_attention_free") == "True":
        signs.append("is_attention_free=True")
    if labels.get("kv_cache_max_concurrency", "None") != "None":
        signs.append("kv_cache_max_concurrency without it")
    if block_size < _LEAST_BLOCK_SIZE:
        signs.append(f"block_size={block_size}")
    if signs:
        raise MetricNamesError(
            f"cache_config_info has no kv_cache_size_tokens, but {', '.join(signs)}: how many tokens such a "
            "model's pool holds cannot be told from its blocks; use vLLM 0.26 or later, which publishes it"
        )


def _whole(value: float | str | None, name: str) -> int:
    number = _number(value)
    if number is None or number < 1 or number != int(number):
        raise ScrapeError(f"{name} = {value} but must be a whole number, at least 1")
    return int(number)


def _number(value: float | str | None) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if abs(number) < float("inf") else None
