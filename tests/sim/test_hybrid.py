"""Layers of several kinds over one block pool: which blocks a hit needs, which leave, what fits."""

from typing import Any

import pytest

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.vllm.build import build_core, build_reference_scheduler
from concur.sim.engine.vllm.fast import FastCore
from concur.sim.errors import ScenarioError
from concur.sim.kv.block_pool import BlockPool
from concur.sim.kv.groups import CacheGroup, FullAttention, SlidingWindow
from concur.sim.kv.history import BlockHash, Histories, History
from concur.sim.kv.hybrid import HybridKVCacheManager
from concur.sim.scenario.build import check_fits
from concur.sim.step_time.step_time import LinearStepTime
from concur.sim.world.simulate import simulate
from tests.helpers import TRACES, make_agent, make_scenario, make_workload
from tests.parity.scenarios import CORNERS, MODELS, corner, with_groups

GPT_OSS: Any = [{"kind": "full"}, {"kind": "sliding_window", "sliding_window": 128}]


def history_of(num_tokens: int, block_size: int = 16) -> History:
    histories = Histories(block_size)
    return histories.call(histories.begin(()), kept_tokens=0, context_tokens=num_tokens)


def make_manager(*groups: CacheGroup, num_blocks: int = 101) -> HybridKVCacheManager:
    return HybridKVCacheManager(
        BlockPool(num_blocks, enable_caching=True),
        groups,
        block_size=16,
        watermark=0.0,
        most_blocks=[19 if isinstance(group, SlidingWindow) else 256 for group in groups],
    )


def served(manager: HybridKVCacheManager, history: History, num_tokens: int) -> None:
    """A request that computes its whole prompt in one step, and ends."""
    manager.adopt("served", history, manager.count_hits(history, num_tokens))
    manager.append("served", num_tokens, num_tokens)
    manager.free("served")


def num_idle_cached(manager: HybridKVCacheManager) -> int:
    return manager.block_pool.num_cached_free_blocks


@pytest.mark.parametrize(("window", "num_blocks"), [(1, 0), (2, 1), (17, 1), (18, 2), (128, 8)])
def test_a_hit_needs_the_blocks_of_the_tokens_before_the_next_one(window: int, num_blocks: int) -> None:
    assert SlidingWindow(16, window).num_hit_blocks == num_blocks


def test_a_window_is_looked_for_from_the_right() -> None:
    window = SlidingWindow(16, 33)
    cached = [True, False, True, True, True, False, True]
    assert window.find(cached.__getitem__, 7 * 16, 16) == 5 * 16
    assert window.find(cached.__getitem__, 4 * 16, 16) == 4 * 16
    assert window.find(cached.__getitem__, 3 * 16, 16) == 16, "a beginning needs no more than there is"
    assert window.find(cached.__getitem__, 7 * 16, 64) == 4 * 16, "hits end at multiples of 64"
    assert FullAttention(16).find(cached.__getitem__, 7 * 16, 16) == 16


def test_of_a_long_prefix_a_window_holds_its_end_only() -> None:
    manager, history = make_manager(FullAttention(16), SlidingWindow(16, 33)), history_of(320)
    served(manager, history, 320)
    assert num_idle_cached(manager) == 2 * 20
    hits = manager.count_hits(history, 320)
    assert hits == 19, "the last token is always computed"
    manager.adopt("again", history, hits)
    full, window = manager.get_tables("again")
    assert len(full) == len(window) == 19
    assert [block.block_id == 0 for block in window] == [True] * 17 + [False] * 2
    assert manager.num_blocks_of("again") == 19 + 2


def test_a_prefix_whose_window_is_gone_is_no_hit() -> None:
    manager, history = make_manager(FullAttention(16), SlidingWindow(16, 33)), history_of(320)
    served(manager, history, 320)
    manager.adopt("holds the end", history, manager.count_hits(history, 320))
    manager.block_pool.get_new_blocks(manager.block_pool.get_num_free_blocks())
    assert manager.count_hits(history, 320) == 19
    assert manager.count_hits(history, 160) == 0, "full attention has it all, the window nothing of its end"


def test_what_leaves_the_window_is_freed_and_stays_findable() -> None:
    manager, history = make_manager(FullAttention(16), SlidingWindow(16, 33)), history_of(320)
    manager.adopt("a", history, 0)
    manager.append("a", 160, 160)
    assert manager.num_blocks_of("a") == 20
    manager.remove_skipped_blocks("a", 160)
    assert manager.num_blocks_of("a") == 10 + 2
    assert num_idle_cached(manager) == 8
    manager.remove_skipped_blocks("a", 160)
    assert manager.num_blocks_of("a") == 12, "once"
    manager.append("a", 176, 176)
    assert [len(table) for table in manager.get_tables("a")] == [11, 11]


def test_a_reservation_counts_what_is_held_at_any_one_time() -> None:
    manager, history = make_manager(FullAttention(16), SlidingWindow(16, 33), num_blocks=91), history_of(1024)
    # 64 blocks of full attention; a window of 32 tokens and 256 in flight are 19 blocks
    assert manager.can_reserve(history, 0, 1024, keep_free_blocks=7)
    assert not manager.can_reserve(history, 0, 1024, keep_free_blocks=8)
    assert not manager.can_admit(history, 0, 1024, keep_free_blocks=0)
    assert manager.can_admit(history, 0, 256, keep_free_blocks=58)


def test_kinds_are_asked_until_nobody_shortens_the_hit() -> None:
    """Windows of one and of two blocks: each finds its end of the prefix where the other has nothing."""
    groups = (FullAttention(16), SlidingWindow(16, 17), SlidingWindow(16, 33))
    manager, history = make_manager(*groups), history_of(176)
    names = list(history.block_hashes(0, 10))
    cached = [(0, index) for index in range(10)] + [(1, 9), (1, 3), (2, 4), (2, 5)]
    pool = manager.block_pool
    for block, (number, index) in zip(pool.get_new_blocks(len(cached)), cached, strict=True):
        pool.cache_full_block(block, BlockHash(names[index] * len(groups) + number))  # as the manager does
    assert manager.count_hits(history, 176) == 0, "10 blocks, then 6, 4 and none"


def test_blocks_of_several_sizes_are_hit_at_common_multiples() -> None:
    manager, history = make_manager(FullAttention(32), SlidingWindow(48, 40)), history_of(320)
    served(manager, history, 320)
    assert manager.alignment_tokens == 96
    assert manager.count_hits(history, 320) == 288 // 16
    assert manager.count_hits(history, 288) == 192 // 16


@pytest.mark.parametrize("model", MODELS)
def test_every_block_is_free_or_referenced_and_all_come_back(model: str) -> None:
    for name in CORNERS:
        scenario, workload = with_groups(corner(name, is_async=True), MODELS[model])
        core = build_core(scenario.vllm, LinearStepTime(0.01, 1e-5, 1e-5, 0.0, 0.0))
        record = simulate(scenario, workload, core=core)
        assert len(record.requests) == sum(len(agent.steps) for agent in workload.agents)
        pool = core._scheduler.kv_cache_manager.block_pool  # type: ignore[attr-defined]
        assert pool.get_num_free_blocks() == scenario.vllm.num_gpu_blocks - 1
        assert all(block.ref_cnt == 0 for block in pool.blocks[1:])


def test_without_groups_nothing_changes_and_one_full_group_does_the_same() -> None:
    scenario, workload = corner("crowded", is_async=False)
    assert isinstance(build_core(scenario.vllm, LinearStepTime(0.01, 0, 0, 0, 0)), FastCore)
    plain = simulate(scenario, workload)
    grouped = simulate(*with_groups((scenario, workload), [{"kind": "full"}]))
    assert plain.requests.equals(grouped.requests)
    assert plain.timeline.drop(columns="num_evictions").equals(grouped.timeline.drop(columns="num_evictions"))


def run_of_tau(num_gpu_blocks: int, groups: list[dict[str, Any]]) -> tuple[float, float]:
    scenario = make_scenario(
        workload={"trace": str(TRACES / "tau_airline.jsonl.gz"), "num_agents": 24, "generator": None},
        engine={"num_gpu_blocks": num_gpu_blocks, "max_model_len": 32_768, "kv_cache_groups": groups},
        step_time={"profile": "h100-sxm_qwen3-32b_tp2"},
    )
    metrics = simulate(scenario).metrics
    return round(float(metrics["hit_rate"]), 2), round(float(metrics["makespan_s"]), 1)


def test_a_model_with_windows_is_not_a_dense_one() -> None:
    """The same memory: a block of gpt-oss is of half of the layers, so that there are twice as many."""
    assert run_of_tau(1501, []) == (0.67, 68.3)
    assert run_of_tau(3001, GPT_OSS) == (0.93, 54.0)


def test_the_pool_in_tokens_is_what_vllm_says() -> None:
    engine = EngineConfig(
        num_gpu_blocks=3001,
        max_num_batched_tokens=8192,
        max_model_len=32_768,
        kv_cache_groups=GPT_OSS,
    )
    assert engine.num_blocks_for(32_768) == 2048 + -(-(127 + 8192) // 16) + 1
    assert engine.pool_tokens == int(3001 / 2569 * 32_768)
    assert EngineConfig(num_gpu_blocks=3001).kv_cache_size_tokens is None


def test_an_agent_that_does_not_fit_beside_its_windows_is_refused() -> None:
    scenario = make_scenario(engine={"num_gpu_blocks": 130, "kv_cache_groups": GPT_OSS})
    check_fits(make_workload(make_agent(0, [(1000, 20)])), scenario.engine)
    with pytest.raises(ScenarioError, match="set it to at least 139"):
        check_fits(make_workload(make_agent(0, [(1080, 20)])), scenario.engine)


@pytest.mark.parametrize(
    ("engine", "problem"),
    [
        ({"kv_cache_groups": [{"kind": "sliding_window"}]}, "sliding_window = 0 but a group of kind sliding"),
        ({"kv_cache_groups": [{"sliding_window": 5}]}, "needs 0; leave it out"),
        ({"kv_cache_groups": [{"block_size": 32}]}, "greatest common divisor of the block sizes of kv_cac"),
        (
            {"kv_cache_groups": GPT_OSS, "host_cache": {"capacity_tokens": 4096}},
            "kv_cache_groups and host_cache.capacity_tokens are not simulated together",
        ),
    ],
)
def test_groups_that_make_no_pool_are_refused(engine: dict[str, Any], problem: str) -> None:
    with pytest.raises(ScenarioError, match=problem):
        make_scenario(engine=engine)


def test_the_reference_is_built_of_groups() -> None:
    scenario = make_scenario(engine={"kv_cache_groups": GPT_OSS})
    manager = build_reference_scheduler(scenario.vllm).kv_cache_manager
    assert isinstance(manager, HybridKVCacheManager)
    assert manager.groups == (FullAttention(16), SlidingWindow(16, 128))
