"""`[engine]` of the scenario file with `kind = "sglang"`."""

from math import inf
from typing import Any, Final, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from concur.sim.engine.hierarchical_cache import HierarchicalCacheConfig
from concur.sim.section import MAX_AGENTS, MAX_TOKENS, Section

_RESERVED_TOKENS: Final = 5
"""How much shorter than the longest request a prompt must be (`max_req_input_len = max_req_len - 5`)."""


class SglangConfig(Section):
    """`[engine]` with `kind = "sglang"`: SGLang's own names and meanings (0.5.23).

    `release` = "0.5.8" takes that release's rules (`concur.sim.engine.sglang.v058`): from 0.5.6 to 0.5.8
    generated tokens are not cached when a call ends.

    `chunked_prefill_size` = -1 prefills every prompt whole. `hierarchical_cache` is HiCache; left out, there
    is none. Not simulated, and so no keys: priorities, other policies and eviction policies than these, data
    parallel attention, speculative decoding, sliding windows.
    """

    kind: Literal["sglang"]
    release: Literal["0.5.23", "0.5.8"] = "0.5.23"
    max_total_num_tokens: int = Field(ge=2, le=MAX_TOKENS)
    page_size: int = Field(1, ge=1, le=1_000_000)
    chunked_prefill_size: int = Field(8192, ge=-1, le=MAX_TOKENS)
    max_prefill_tokens: int = Field(16_384, ge=1, le=MAX_TOKENS)
    max_running_requests: int = Field(256, ge=1, le=MAX_AGENTS)
    context_length: int = Field(131_072, ge=8, le=MAX_TOKENS)
    schedule_policy: Literal["fcfs", "lpm"] = "fcfs"
    schedule_conservativeness: float = Field(1.0, ge=0, le=100)
    enable_mixed_chunk: bool = False
    disable_overlap_schedule: bool = False
    hierarchical_cache: HierarchicalCacheConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_total_num_tokens < self.page_size:
            raise ValueError(
                f"max_total_num_tokens = {self.max_total_num_tokens} but must be at least "
                f"page_size = {self.page_size}"
            )
        size = self.chunked_prefill_size
        if size != -1 and (size == 0 or size % self.page_size):
            raise ValueError(
                f"chunked_prefill_size = {size} but must be a multiple of page_size = {self.page_size}, as "
                "SGLang demands, or -1 for none"
            )
        if self.enable_mixed_chunk and not (
            self.max_running_requests < self.max_prefill_tokens
            and self.max_running_requests < self.chunked_prefill_size
        ):
            raise ValueError(
                f"max_running_requests = {self.max_running_requests} but with enable_mixed_chunk it must be "
                f"below max_prefill_tokens = {self.max_prefill_tokens} and chunked_prefill_size = "
                f"{self.chunked_prefill_size}, or decodes leave a prefill nothing"
            )
        if self.hierarchical_cache is not None:
            if self.release != "0.5.23":
                raise ValueError(
                    f'release = "{self.release}" but hierarchical_cache has the rules of 0.5.23; set that '
                    "release, or leave hierarchical_cache out"
                )
            self.hierarchical_cache.host_tokens(self.pool_tokens, self.page_size)
        return self

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a tier that is not there, so that records are as they were before there was one."""
        raw: dict[str, Any] = write(self)
        if raw.get("hierarchical_cache", self) is None:
            del raw["hierarchical_cache"]
        return raw

    @property
    def pool_tokens(self) -> int:
        """Tokens that the pool can hold, in whole pages."""
        return self.max_total_num_tokens // self.page_size * self.page_size

    @property
    def max_context_tokens(self) -> int:
        """The longest prompt + output of a request, whatever the pool holds."""
        return self.context_length - 2  # `max_req_len` and `init_req_max_new_tokens` each keep one

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that is taken at all."""
        return min(self.context_length, self.pool_tokens) - 1 - _RESERVED_TOKENS

    @property
    def unit_tokens(self) -> int:
        """Tokens of what is cached and found as a whole: a page."""
        return self.page_size

    @property
    def name_tokens(self) -> int:
        """Tokens that have a name together, see `concur.sim.kv.history`: the tree finds them one by one."""
        return 1

    @property
    def capacity(self) -> dict[str, Any]:
        """What a live engine publishes of its pool, by the names of `concur.signals.Snapshot`."""
        num_pages = self.pool_tokens // self.page_size
        return {
            "num_gpu_blocks": num_pages,
            "block_size": self.page_size,
            "kv_cache_size_tokens": self.pool_tokens,
        }

    @property
    def is_one_step_ahead(self) -> bool:
        """Whether a step is decided while the one before it computes."""
        return not self.disable_overlap_schedule

    @property
    def loaded_bytes_per_token(self) -> int:
        """What a token in host memory takes on the link; there is none here."""
        return 0

    @property
    def link_bytes_per_s(self) -> float:
        """The bandwidth of the link to host memory; there is none here."""
        return inf

    def max_new_tokens(self, num_prompt_tokens: int) -> int:
        """Return how many tokens a prompt of that length may be answered with (`init_req_max_new_tokens`)."""
        of_length = min(self.context_length, self.pool_tokens) - 1 - num_prompt_tokens - 1
        if self.release == "0.5.8":  # the pool itself is no bound there
            return max(0, of_length)
        pages_tokens = -(-num_prompt_tokens // self.page_size) * self.page_size
        return max(0, min(of_length, self.pool_tokens - pages_tokens - self.page_size - 1))

    def refuses(self, num_prompt_tokens: int, num_output_tokens: int) -> bool:
        """Tell whether a call would be aborted or cut short."""
        is_too_long = num_prompt_tokens > self.max_prompt_tokens
        return is_too_long or self.max_new_tokens(num_prompt_tokens) < num_output_tokens
