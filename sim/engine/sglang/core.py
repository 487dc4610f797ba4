"""The engine loop of SGLang around its scheduler (0.5.23, `event_loop_normal` and `event_loop_overlap`)."""

from typing import Protocol

from mypy_extensions import mypyc_attr

from concur.sim.engine.sglang.scheduler import Scheduler
from concur.sim.engine.sglang.v058 import RadixTree058, Scheduler058
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.engine.stepping import StepCore, StepScheduler
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


def build_sglang_core(config: SglangConfig, step_time: StepTime) -> SglangCore:
    """Return an engine as a scenario asks for it, its cache empty."""
    return SglangCore(config, step_time, build_sglang_scheduler(config))


def build_sglang_scheduler(config: SglangConfig) -> Scheduler:
    """Return SGLang's scheduler on an empty radix tree."""
    if config.release == "0.5.8":
        return Scheduler058(config, RadixTree058(config.pool_tokens, config.page_size))
    return Scheduler(config, RadixTree(config.pool_tokens, config.page_size))
