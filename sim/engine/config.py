"""`[engine]` of the scenario file."""

from typing import Self

from pydantic import Field, model_validator

from concur.sim.section import MAX_AGENTS, MAX_BLOCKS, MAX_TOKENS, Section


class HostCacheConfig(Section):
    """`[engine.host_cache]`: a second tier in host memory; `capacity_tokens` = 0 means none.

    `bandwidth_bytes_per_s` is shared by all concurrent loads. Its default, 48.5 GB/s, is what the CONCUR
    paper's Fig. 1c amounts to (8 x 6.67 GB in about 1.1 s). `kv_bytes_per_token` defaults to Qwen3-32B in
    bf16: 64 layers x 8 KV heads x 128 x 2 (K, V) x 2 bytes = 262,144. With a second tier a run is simulated
    block by block, which takes up to 50 times longer.
    """

    capacity_tokens: int = Field(0, ge=0, le=MAX_TOKENS)
    bandwidth_bytes_per_s: float = Field(48.5e9, gt=0, le=1e15)
    kv_bytes_per_token: int = Field(262_144, ge=1, le=10**9)


class EngineConfig(Section):
    """`[engine]`: vLLM's own names and meanings (0.32.0); `num_gpu_blocks` counts the null block."""

    block_size: int = Field(16, ge=1, le=1_000_000)
    num_gpu_blocks: int = Field(ge=2, le=MAX_BLOCKS)
    max_num_seqs: int = Field(256, ge=1, le=MAX_AGENTS)
    max_num_batched_tokens: int = Field(8192, ge=1, le=MAX_TOKENS)
    max_model_len: int = Field(131_072, ge=2, le=MAX_TOKENS)
    enable_prefix_caching: bool = True
    async_scheduling: bool = False
    long_prefill_token_threshold: int = Field(0, ge=0, le=MAX_TOKENS)
    scheduler_reserve_full_isl: bool = True
    watermark: float = Field(0.0, ge=0, lt=1)
    host_cache: HostCacheConfig = HostCacheConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens = {self.max_num_batched_tokens} but must be at least "
                f"max_num_seqs = {self.max_num_seqs}, as vLLM demands"
            )
        if self.host_cache.capacity_tokens and not self.enable_prefix_caching:
            raise ValueError("host_cache needs enable_prefix_caching = true: blocks are found by their hash")
        if 0 < self.host_cache.capacity_tokens < self.block_size:
            raise ValueError(
                f"host_cache.capacity_tokens = {self.host_cache.capacity_tokens} but must be 0 or at least "
                f"block_size = {self.block_size}"
            )
        return self

    @property
    def pool_tokens(self) -> int:
        """Tokens that the block pool can hold; the null block holds none."""
        return (self.num_gpu_blocks - 1) * self.block_size
