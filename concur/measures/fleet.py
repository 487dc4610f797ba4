"""The reading of a fleet: its engines as if they were one."""

from collections.abc import Sequence

from concur.signals import COUNTERS, Snapshot


def sum_of(readings: Sequence[Snapshot]) -> Snapshot:
    """Return the reading of a fleet: counts add up, shares are weighed by the tokens that the pools hold.

    The pool is that of all, with one null block. Of one engine it is its own reading, bit for bit.
    """
    first = readings[0]
    if len(readings) == 1:
        return first
    pools = [each.pool_tokens for each in readings]
    block_size = min(each.block_size for each in readings)
    steps = [each.num_engine_steps for each in readings]
    return Snapshot(
        time_s=first.time_s,
        num_requests_running=sum(each.num_requests_running for each in readings),
        num_requests_waiting=sum(each.num_requests_waiting for each in readings),
        kv_cache_usage_frac=_weighed([each.kv_cache_usage_frac for each in readings], pools) or 0.0,
        kv_cache_resident_frac=_weighed([each.kv_cache_resident_frac for each in readings], pools),
        **{name: sum(getattr(each, name) for each in readings) for name in COUNTERS},
        external_prefix_cache_queries_tokens=sum(
            each.external_prefix_cache_queries_tokens for each in readings
        ),
        external_prefix_cache_hits_tokens=sum(each.external_prefix_cache_hits_tokens for each in readings),
        num_gpu_blocks=sum(pools) // block_size + 1,
        block_size=block_size,
        num_engine_steps=None if None in steps else sum(step or 0 for step in steps),
    )


def _weighed(shares: Sequence[float | None], pools: Sequence[int]) -> float | None:
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return None
    return sum(share * pool for share, pool in zip(known, pools, strict=True)) / sum(pools)
