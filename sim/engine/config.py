"""`[engine]` of the scenario file."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from concur.sim.engine.cache_groups import KVCacheGroupConfig, check_block_sizes, expanded
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.section import MAX_AGENTS, MAX_BLOCKS, MAX_TOKENS, Section

_OF_OFFLOADING: Final = ("eviction_policy", "offload_prompt_only", "blocks_per_chunk", "store_threshold")


RELEASES: Final = ("0.24", "0.26", "0.28", "0.30", "0.31", "0.32", "0.33")
"""Of vLLM, that parity compares with; what is in between is as the one before it, as far as is known."""


class HostCacheConfig(Section):
    """`[engine.host_cache]`: a second tier in host memory; `capacity_tokens` = 0 means none.

    `kind` says how it works. `offloading` is vLLM's own `OffloadingConnector` (`concur.sim.engine.offload`),
    with its settings under vLLM's names; `bandwidth_bytes_per_s` is that of each direction of the link, and
    transfers of one direction wait for one another. `victim` is a plain cache of what the pool evicts
    (`concur.sim.kv.tier`), which no engine has; its loads share the bandwidth.

    The default bandwidth, 48.5 GB/s, is what the CONCUR paper's Fig. 1c amounts to (8 x 6.67 GB in about
    1.1 s). `kv_bytes_per_token` defaults to Qwen3-32B in bf16: 64 layers x 8 KV heads x 128 x 2 (K, V) x
    2 bytes = 262,144. With a second tier a run is simulated block by block, which takes up to 50 times
    longer.
    """

    kind: Literal["offloading", "victim"] = "offloading"
    capacity_tokens: int = Field(0, ge=0, le=MAX_TOKENS)
    bandwidth_bytes_per_s: float = Field(48.5e9, gt=0, le=1e15)
    kv_bytes_per_token: int = Field(262_144, ge=1, le=10**9)
    eviction_policy: Literal["lru", "arc"] = "lru"
    offload_prompt_only: bool = True
    blocks_per_chunk: int = Field(1, ge=1, le=1_000_000)
    store_threshold: int = Field(0, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in _OF_OFFLOADING if getattr(self, name) != _default_of(name)]
        if self.kind == "victim" and given:
            raise ValueError(
                f"{given[0]} = {getattr(self, given[0])} but a host cache of kind victim has no such "
                'setting; leave it out or set kind = "offloading"'
            )
        return self


def _default_of(name: str) -> object:
    return HostCacheConfig.model_fields[name].default


class EngineConfig(Section):
    """`[engine]`, `kind` = "vllm" or left out: vLLM's own names and meanings.

    `release` is vLLM's, as far as releases decide differently: up to 0.30, `long_prefill_token_threshold`
    caps a request that is alone too. Under `scheduling_policy` = "priority", up to 0.26 a running request can
    be passed over for a step after another has made way, and since 0.33 one that makes way for itself does
    not end the round of those who run. A host cache of kind `offloading` has another LRU since 0.33, and a
    preempted request offers its chunks anew; before 0.32 it is that of 0.32, as are `kv_cache_groups`.

    `num_gpu_blocks` counts the null block. Under `scheduling_policy` = "priority" the agents' priorities say
    who is served first and who makes way (`concur.sim.engine.vllm.policy`); `fcfs` looks at none.
    `model_runner` matters to a host cache of kind `offloading` only: `v1` submits the loads of a step before
    what it computes, `v2` after it. `kv_cache_groups` is for models whose layers differ, and empty where all
    of them keep the whole context; a run with groups is simulated block by block.
    """

    kind: Literal["vllm"] = Field("vllm", exclude=True)  # the default, and not written out
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
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    release: Literal["0.24", "0.26", "0.28", "0.30", "0.31", "0.32", "0.33"] = "0.32"
    model_runner: Literal["v1", "v2"] = "v2"
    host_cache: HostCacheConfig = HostCacheConfig()
    kv_cache_groups: tuple[KVCacheGroupConfig, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens = {self.max_num_batched_tokens} but must be at least "
                f"max_num_seqs = {self.max_num_seqs}, as vLLM demands"
            )
        if self.host_cache.capacity_tokens and not self.enable_prefix_caching:
            raise ValueError("host_cache needs enable_prefix_caching = true: blocks are found by their hash")
        if self.kv_cache_groups:
            check_block_sizes(self.kv_cache_groups, self.block_size)
            if self.host_cache.capacity_tokens:
                raise ValueError(
                    "kv_cache_groups and host_cache.capacity_tokens are not simulated together; set "
                    "host_cache.capacity_tokens = 0, or kv_cache_groups = []"
                )
        size = self.block_size * self.host_cache.blocks_per_chunk
        if 0 < self.host_cache.capacity_tokens < size:
            per_chunk = " x blocks_per_chunk" if self.host_cache.blocks_per_chunk > 1 else ""
            raise ValueError(
                f"host_cache.capacity_tokens = {self.host_cache.capacity_tokens} but must be 0 or at least "
                f"block_size{per_chunk} = {size}"
            )
        return self

    @property
    def caps_lone_requests(self) -> bool:
        """Whether `long_prefill_token_threshold` is for a request too that has nobody to make way for."""
        return self.is_before("0.31")

    def is_before(self, release: str) -> bool:
        """Tell whether the engine is of an earlier release than that one of `RELEASES`."""
        return RELEASES.index(self.release) < RELEASES.index(release)

    @property
    def cache_groups(self) -> tuple[KVCacheGroupConfig, ...]:
        """The groups of layers that the pool serves, one by one."""
        return expanded(self.kv_cache_groups, self.block_size)

    @property
    def most_blocks(self) -> tuple[int, ...]:
        """Blocks that a request holds at most in each group (`VllmConfig.max_in_flight_tokens`)."""
        in_flight = (2 if self.async_scheduling else 1) * self.max_num_batched_tokens
        return tuple(
            group.max_blocks(max_in_flight_tokens=in_flight, max_model_len=self.max_model_len)
            for group in self.cache_groups
        )

    def num_blocks_for(self, num_tokens: int) -> int:
        """Return how many blocks a request of that many tokens holds at most."""
        return sum(
            min(-(-num_tokens // group.block_size), most_blocks)
            for group, most_blocks in zip(self.cache_groups, self.most_blocks, strict=True)
        )

    @property
    def kv_cache_size_tokens(self) -> int | None:
        """Tokens that the pool holds as vLLM tells them where layers differ, `None` elsewhere.

        As many longest requests as fit, times their length (`get_kv_cache_capacity`).
        """
        if not self.kv_cache_groups:
            return None
        return int(self.num_gpu_blocks / self.num_blocks_for(self.max_model_len) * self.max_model_len)

    @property
    def pool_tokens(self) -> int:
        """Tokens that the block pool can hold; the null block holds none."""
        own = self.kv_cache_size_tokens
        return (self.num_gpu_blocks - 1) * self.block_size if own is None else own

    @property
    def max_context_tokens(self) -> int:
        """The longest prompt + output of a request, whatever the pool holds."""
        return self.max_model_len

    @property
    def unit_tokens(self) -> int:
        """Tokens of what is cached and found as a whole: a block."""
        return self.block_size

    @property
    def name_tokens(self) -> int:
        """Tokens that have a name together, see `concur.sim.kv.history`."""
        return self.block_size

    @property
    def capacity(self) -> dict[str, Any]:
        """What a live engine publishes of its pool, by the names of `concur.signals.Snapshot`."""
        own = self.kv_cache_size_tokens
        blocks = self.num_gpu_blocks if own is None else own // self.block_size
        return {"num_gpu_blocks": blocks, "block_size": self.block_size, "kv_cache_size_tokens": own}

    @property
    def is_one_step_ahead(self) -> bool:
        """Whether a step is decided while the one before it computes."""
        return self.async_scheduling

    @property
    def loaded_bytes_per_token(self) -> int:
        """What a token in host memory takes on the link."""
        return self.host_cache.kv_bytes_per_token

    @property
    def link_bytes_per_s(self) -> float:
        """The bandwidth of the link to host memory."""
        return self.host_cache.bandwidth_bytes_per_s


ENGINE_KINDS: Final = {"vllm": EngineConfig, "sglang": SglangConfig}
"""The engines that are simulated, by the name that a scenario gives them."""


def _kind_of(raw: Any) -> str:
    return str(raw.get("kind", "vllm") if isinstance(raw, Mapping) else getattr(raw, "kind", "vllm"))


def _tag_of(raw: Any) -> str:
    return f"<{_kind_of(raw)}>"


def _check_kind(raw: Any) -> Any:
    """Refuse an engine that nobody simulates."""
    if (kind := _kind_of(raw)) not in ENGINE_KINDS:
        raise ValueError(f"kind = {kind!r} but must be one of {', '.join(ENGINE_KINDS)}")
    return raw


AnyEngineConfig = EngineConfig | SglangConfig
EngineSection = Annotated[
    Annotated[EngineConfig, Tag("<vllm>")] | Annotated[SglangConfig, Tag("<sglang>")],
    Discriminator(_tag_of),
    BeforeValidator(_check_kind),
]
"""`[engine]` of a scenario, of either kind; vLLM where it says none."""
