"""The engine loop of SGLang around its scheduler (0.5.23, `event_loop_normal` and `event_loop_overlap`)."""

from typing import Protocol

from mypy_extensions import mypyc_attr

from concur.sim.engine.sglang.hicache_core import HiCacheCore, HiCacheScheduler
from concur.sim.engine.sglang.scheduler import Scheduler
from concur.sim.engine.sglang.transfers import HostTransfers
from concur.sim.engine.sglang.v058 import RadixTree058, Scheduler058
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.engine.stepping import StepCore, StepScheduler
from concur.sim.kv.hiradix import HiRadixTree
from concur.sim.kv.radix import RadixTree
from concur.sim.step_time.step_time import StepTime


class SglangScheduler(StepScheduler, Protocol):
    """What this loop asks of a scheduler beyond a plain one."""

    def rest(self) -> None:
        """Take note that there is nothing to do."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SglangCore(StepCore):
    """An `EngineCore` that tells SGLang's scheduler when there is nothing to do."""

    def __init__(self, config: SglangConfig, step_time: StepTime, scheduler: SglangScheduler) -> None:
        super().__init__(config, step_time, scheduler)
        self._sglang = scheduler

    def _decide(self, until_s: float) -> None:
        super()._decide(until_s)
        if self.is_idle:
            self._sglang.rest()
            self.stats = self._sglang.make_stats()


def build_sglang_core(config: SglangConfig, step_time: StepTime) -> StepCore:
    """Return an engine as a scenario asks for it, its cache empty."""
    transfers = transfers_of(config)
    return core_around(build_sglang_scheduler(config, transfers), config, step_time, transfers)


def transfers_of(config: SglangConfig) -> HostTransfers | None:
    """Return idle links to the host, where there is HiCache."""
    return None if config.hierarchical_cache is None else HostTransfers(config.hierarchical_cache)


def core_around(
    scheduler: HiCacheScheduler, config: SglangConfig, step_time: StepTime, transfers: HostTransfers | None
) -> StepCore:
    """Return the loop around a scheduler; with `transfers` that of HiCache."""
    if transfers is None:
        return SglangCore(config, step_time, scheduler)
    return HiCacheCore(config, step_time, scheduler, transfers)


def build_sglang_scheduler(config: SglangConfig, transfers: HostTransfers | None = None) -> Scheduler:
    """Return SGLang's scheduler on an empty radix tree; with `transfers` on one with an empty host behind."""
    if config.release == "0.5.8":
        return Scheduler058(config, RadixTree058(config.pool_tokens, config.page_size))
    tier = config.hierarchical_cache
    if tier is None or transfers is None:
        return Scheduler(config, RadixTree(config.pool_tokens, config.page_size))
    tree = HiRadixTree(
        config.pool_tokens,
        config.page_size,
        host_tokens=tier.host_tokens(config.pool_tokens, config.page_size),
        write_policy=tier.hicache_write_policy,
        transfers=transfers,
    )
    return Scheduler(config, tree)
