"""An engine as a scenario asks for it, its cache empty."""

from concur.sim.engine.cache_groups import KVCacheGroupConfig
from concur.sim.engine.config import EngineConfig
from concur.sim.engine.core import EngineCore
from concur.sim.engine.offload.connector import OffloadingConnector
from concur.sim.engine.offload.core import ConnectedCore
from concur.sim.engine.offload.scheduler import ConnectedScheduler
from concur.sim.engine.stepping import StepCore
from concur.sim.engine.vllm.fast import FastCore, FastScheduler
from concur.sim.engine.vllm.hybrid import HybridScheduler
from concur.sim.engine.vllm.scheduler import Scheduler
from concur.sim.kv.block_pool import BlockPool
from concur.sim.kv.groups import CacheGroup, FullAttention, SlidingWindow
from concur.sim.kv.hybrid import HybridKVCacheManager
from concur.sim.kv.kv_cache_manager import KVCacheManager
from concur.sim.kv.segments import SegmentCache
from concur.sim.kv.tier import HostCache
from concur.sim.step_time.step_time import StepTime


def build_core(config: EngineConfig, step_time: StepTime) -> EngineCore:
    """Return the fastest core that can do what the configuration asks for."""
    if config.host_cache.capacity_tokens or config.kv_cache_groups:
        return build_reference_core(config, step_time)
    cache = SegmentCache(
        config.num_gpu_blocks,
        block_size=config.block_size,
        watermark=config.watermark,
        enable_caching=config.enable_prefix_caching,
    )
    return FastCore(config, step_time, FastScheduler(config, cache))


def build_reference_core(config: EngineConfig, step_time: StepTime) -> StepCore:
    """Return the reference: step by step and block by block."""
    scheduler = build_reference_scheduler(config)
    if isinstance(scheduler, ConnectedScheduler):
        return ConnectedCore(config, step_time, scheduler)
    return StepCore(config, step_time, scheduler)


def build_reference_scheduler(config: EngineConfig) -> Scheduler[KVCacheManager] | HybridScheduler:
    """Return vLLM's scheduler on the block pool, with a second tier or several groups where there are any."""
    if config.kv_cache_groups:
        return HybridScheduler(config, _hybrid_manager(config))
    host = config.host_cache
    if host.capacity_tokens and host.kind == "offloading":
        manager = _block_manager(config, None)
        return ConnectedScheduler(config, manager, OffloadingConnector(config, manager))
    capacity_blocks = host.capacity_tokens // config.block_size
    tier = HostCache(capacity_blocks) if capacity_blocks else None
    return Scheduler(config, _block_manager(config, tier), tier)


def _block_manager(config: EngineConfig, tier: HostCache | None) -> KVCacheManager:
    block_pool = BlockPool(
        config.num_gpu_blocks,
        enable_caching=config.enable_prefix_caching,
        on_evict=None if tier is None else tier.store,
    )
    return KVCacheManager(block_pool, block_size=config.block_size, watermark=config.watermark)


def _hybrid_manager(config: EngineConfig) -> HybridKVCacheManager:
    return HybridKVCacheManager(
        BlockPool(config.num_gpu_blocks, enable_caching=config.enable_prefix_caching),
        [_rules(group) for group in config.cache_groups],
        block_size=config.block_size,
        watermark=config.watermark,
        most_blocks=config.most_blocks,
    )


def _rules(group: KVCacheGroupConfig) -> CacheGroup:
    if group.kind == "full":
        return FullAttention(group.block_size)
    return SlidingWindow(group.block_size, group.sliding_window)
