"""`[engine.hierarchical_cache]` of the scenario file: SGLang's HiCache."""

from typing import Literal

from pydantic import Field

from concur.sim.section import MAX_TOKENS, Section


class HierarchicalCacheConfig(Section):
    """`[engine.hierarchical_cache]`: a second tier in host memory, under SGLang's own names (0.5.23).

    It holds `hicache_ratio` times the tokens of the pool, or what fits into `hicache_size` GB (10^9 bytes)
    where that is more than 0, and a page beyond that. `bandwidth_bytes_per_s` is that of each direction of
    the link; transfers of one direction wait for one another. Its default and that of `kv_bytes_per_token`
    are those of `[engine.host_cache]`.

    Not simulated, and so no keys: storage behind the host, host memory as a mere buffer, layouts and kernels
    of the transfers.
    """

    hicache_ratio: float = Field(2.0, gt=0, le=1e6)
    hicache_size: int = Field(0, ge=0, le=10**6)
    hicache_write_policy: Literal["write_through", "write_through_selective", "write_back"] = "write_through"
    bandwidth_bytes_per_s: float = Field(48.5e9, gt=0, le=1e15)
    kv_bytes_per_token: int = Field(262_144, ge=1, le=10**9)

    def host_tokens(self, pool_tokens: int, page_size: int) -> int:
        """Return how many tokens fit on the host (`HostKVCache.__init__`).

        Raises
        ------
        ValueError
            If that is more than can be simulated.
        """
        if self.hicache_size > 0:
            asked = int(self.hicache_size * 1e9 // self.kv_bytes_per_token)
        else:
            asked = int(pool_tokens * self.hicache_ratio)
        if asked > MAX_TOKENS:
            raise ValueError(
                f"hierarchical_cache holds {asked} tokens but may hold at most {MAX_TOKENS}; lower "
                f"{'hicache_size' if self.hicache_size > 0 else 'hicache_ratio'}"
            )
        return (asked // page_size + 1) * page_size
