"""The pool that a law sees: the engine's own number, where its blocks are not the pool."""

from dataclasses import replace
from typing import Any

import pytest

from concur import make_controller
from concur.controllers import Controller
from concur.controllers.base import LogValue
from concur.signals import Snapshot
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario, make_snapshot


class Hybrid:
    """A law that sees what a hybrid model publishes: fewer tokens in its blocks than fit."""

    def __init__(self, law: Controller, pool_tokens: int) -> None:
        self.law, self.pool_tokens = law, pool_tokens

    window = property(lambda self: self.law.window)
    reads_agents = property(lambda self: self.law.reads_agents)

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        seen = replace(
            snapshot, num_gpu_blocks=snapshot.num_gpu_blocks // 4, kv_cache_size_tokens=self.pool_tokens
        )
        return self.law.update(seen, active=active)

    def log_state(self) -> dict[str, LogValue]:
        return self.law.log_state()


def test_the_null_block_is_none_of_the_pool_of_blocks() -> None:
    blocks = make_snapshot(num_gpu_blocks=101, block_size=16)
    assert (blocks.pool_tokens, blocks.total_tokens) == (1600, 1616)
    own = replace(blocks, kv_cache_size_tokens=5000)
    assert (own.pool_tokens, own.total_tokens) == (5000, 5000)
    assert make_snapshot().pool_tokens == 0


@pytest.mark.parametrize(
    ("kind", "parameters", "has_null_block"),
    [("hybrid", {}, True), ("ledger", {}, False), ("turnover", {"max_model_len": 2048}, False)],
)
def test_laws_decide_by_what_the_engine_says_of_its_pool(
    kind: str, parameters: dict[str, Any], has_null_block: bool
) -> None:
    scenario = make_scenario(
        workload={"num_agents": 32}, controller={"kind": kind, "interval_s": 1.0} | parameters
    )
    engine = scenario.vllm
    pool_tokens = (engine.num_gpu_blocks - has_null_block) * engine.block_size

    def law() -> Controller:
        return make_controller(kind, **scenario.controller.parameters)

    true = simulate(scenario, law=law).ticks["window"].tolist()
    seen = simulate(scenario, law=lambda: Hybrid(law(), pool_tokens)).ticks["window"].tolist()
    assert len(set(true)) > 2, "a window that never moves proves nothing"
    assert seen == true
