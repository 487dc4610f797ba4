"""SGLang's second tier: its section of a scenario, its figures, its links, and that no token is lost."""

from copy import deepcopy
from math import inf
from typing import Any

import pytest

from concur.sim.engine.hierarchical_cache import HierarchicalCacheConfig
from concur.sim.engine.request import Request
from concur.sim.engine.sglang.core import build_sglang_core, build_sglang_scheduler, core_around, transfers_of
from concur.sim.engine.sglang.transfers import HostTransfers
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.engine.stepping import StepCore
from concur.sim.errors import ScenarioError
from concur.sim.kv.hiradix import HiRadixTree
from concur.sim.record.record import RunRecord
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.step_time.step_time import LinearStepTime
from concur.sim.world.simulate import simulate
from tests.helpers import TRACES
from tests.parity.hicache_scenarios import cornered_world
from tests.sim.test_sglang import requests

STEP_TIME = LinearStepTime(0.006, 2.1e-5, 5e-5, 1.2e-8, 1e-9)
POLICIES = ("write_through", "write_through_selective", "write_back")
FIGURES = {
    ("write_through", True): (35.69, 4486, 898_490, 192_515, 63_308),
    ("write_through", False): (36.13, 4611, 890_730, 200_933, 63_308),
    ("write_through_selective", True): (36.68, 4518, 825_615, 117_035, 49_242),
    ("write_back", True): (35.52, 4488, 898_490, 185_682, 62_207),
    ("write_back", False): (35.87, 4423, 890_730, 182_109, 59_453),
}
"""Makespan, steps, cached tokens, of these from the host, and tokens backed up, as SGLang 0.5.23 decides."""


def scenario_with(tier: dict[str, Any], **engine: Any) -> Scenario:
    return parse_scenario(
        {
            "workload": {"trace": str(TRACES / "tau_airline.jsonl.gz"), "num_agents": 24},
            "engine": {"kind": "sglang", "max_total_num_tokens": 24_000, "hierarchical_cache": tier} | engine,
        }
    )


def airline(tier: dict[str, Any], **engine: Any) -> RunRecord:
    return simulate(scenario_with(tier, **engine))


@pytest.mark.parametrize(("policy", "is_sync"), FIGURES)
def test_the_figures_of_its_own_scheduler(policy: str, is_sync: bool) -> None:
    metrics = airline({"hicache_write_policy": policy}, disable_overlap_schedule=is_sync).metrics
    makespan_s, *counts = FIGURES[policy, is_sync]
    assert round(metrics["makespan_s"], 2) == makespan_s
    names = ("num_engine_steps", "cached_tokens", "host_tokens", "hicache_backup_tokens")
    assert [metrics[name] for name in names] == counts
    assert metrics["host_tokens"] == metrics["host_hit_tokens"] == metrics["load_back_tokens"]


def test_a_record_without_it_does_not_say_so() -> None:
    engine = {"kind": "sglang", "max_total_num_tokens": 9000}
    raw = {"workload": {"generator": "react", "num_agents": 1}, "engine": engine}
    assert "hierarchical_cache" not in parse_scenario(raw).model_dump(mode="json")["engine"]
    raw["engine"] = engine | {"hierarchical_cache": {}}
    dumped = parse_scenario(raw).model_dump(mode="json")["engine"]["hierarchical_cache"]
    assert dumped["hicache_write_policy"] == "write_through"


@pytest.mark.parametrize(
    ("tier", "message"),
    [
        ({"hicache_ratio": 0}, r"hicache_ratio = 0 "),
        ({"hicache_size": -1}, r"hicache_size = -1 "),
        ({"hicache_write_policy": "write_around"}, r"hicache_write_policy = 'write_around'"),
        ({"hicache_storage_backend": "file"}, r"unknown key .*hicache_storage_backend"),
        ({"bandwidth_bytes_per_s": 0}, r"bandwidth_bytes_per_s = 0 "),
        (
            {"hicache_ratio": 1e6},
            r"holds 24000000000 tokens but may hold at most 1000000000; lower hicache_r",
        ),
        ({"hicache_size": 10**6, "kv_bytes_per_token": 1}, r"but may hold at most .*; lower hicache_size"),
    ],
)
def test_what_is_not_simulated_is_refused(tier: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        scenario_with(tier)


def test_a_release_whose_rules_it_does_not_have_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r'release = "0.5.8" but hierarchical_cache has the rules of'):
        scenario_with({}, release="0.5.8")


@pytest.mark.parametrize(
    ("tier", "expected"),
    [({"hicache_ratio": 1.5}, 36_016), ({"hicache_size": 1, "kv_bytes_per_token": 10**5}, 10_016)],
)
def test_the_host_holds_what_was_asked_for_and_a_page(tier: dict[str, Any], expected: int) -> None:
    config = scenario_with(tier, page_size=16).engine
    assert isinstance(config, SglangConfig)
    assert config.hierarchical_cache is not None
    assert config.hierarchical_cache.host_tokens(config.pool_tokens, config.page_size) == expected


def test_a_slow_link_makes_steps_wait_and_is_worse_than_a_fast_one() -> None:
    fast, slow = (airline({"bandwidth_bytes_per_s": each}).metrics for each in (48.5e9, 2e9))
    assert slow["makespan_s"] > 1.2 * fast["makespan_s"]
    for metrics, bandwidth in ((fast, 48.5e9), (slow, 2e9)):
        assert metrics["host_load_s"] == pytest.approx(metrics["load_back_tokens"] * 262_144 / bandwidth)
        assert 0 < metrics["host_reload_wait_s"] <= metrics["host_load_s"]
        assert metrics["host_backup_stall_s"] == 0


def test_a_run_in_which_sglang_aborts_a_request_is_refused() -> None:
    scenario, workload = cornered_world(is_overlapped=True, page_size=1)
    with pytest.raises(
        ScenarioError, match=r"max_total_num_tokens = 336 is too few .* aborts request \S+ .*more"
    ):
        simulate(scenario, workload)


def test_a_write_back_holds_the_loop_up() -> None:
    metrics = airline({"hicache_write_policy": "write_back", "bandwidth_bytes_per_s": 4e9}).metrics
    assert metrics["host_backup_stall_s"] >= metrics["host_backup_s"] * (1 - 1e-9) > 0


def with_its_tree(policy: str, page_size: int) -> tuple[StepCore, HiRadixTree, Scenario]:
    tier = {"hicache_write_policy": policy, "hicache_ratio": 0.5, "bandwidth_bytes_per_s": 5e9}
    scenario = scenario_with(tier, page_size=page_size)
    config = scenario.engine
    assert isinstance(config, SglangConfig)
    transfers = transfers_of(config)
    scheduler = build_sglang_scheduler(config, transfers)
    assert isinstance(scheduler.tree, HiRadixTree)
    return core_around(scheduler, config, STEP_TIME, transfers), scheduler.tree, scenario


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("policy", POLICIES)
def test_no_token_is_lost_on_either_tier(policy: str, page_size: int) -> None:
    core, tree, scenario = with_its_tree(policy, page_size)
    host_tokens = tree.host_available_tokens
    record = simulate(scenario, build_workload(scenario), core=core)
    core.run_until(inf)
    assert not tree.has_transfers
    assert tree.available_tokens + tree.evictable_tokens == 24_000
    assert tree.host_available_tokens + sum(node.num_tokens for node in tree._backed_up) == host_tokens
    assert record.metrics["hicache_backup_tokens"] > host_tokens > tree.host_available_tokens


@pytest.mark.parametrize("policy", POLICIES)
def test_a_copy_in_the_middle_of_a_run_is_the_same_engine(policy: str) -> None:
    def outcome(core: StepCore) -> list[tuple[str, float | None, int, int]]:
        finished: list[Request] = []
        while core.next_change_s < inf:
            finished += core.run_until(inf)
        return [
            (each.request_id, each.finished_s, each.num_cached_tokens, each.num_host_tokens)
            for each in finished
        ]

    config = SglangConfig(
        kind="sglang",
        max_total_num_tokens=420,
        hierarchical_cache=HierarchicalCacheConfig.model_validate(
            {"hicache_write_policy": policy, "bandwidth_bytes_per_s": 1e9, "hicache_ratio": 9}
        ),
    )
    core = build_sglang_core(config, STEP_TIME)
    for request in requests():
        core.submit(request)
    core.run_until(0.4)
    twin = deepcopy(core)
    of_core = outcome(core)
    assert outcome(twin) == of_core
    assert policy == "write_through_selective" or sum(host for *_, host in of_core) > 0


def test_transfers_of_one_direction_wait_for_one_another_and_for_what_computes() -> None:
    config = scenario_with({"bandwidth_bytes_per_s": 1000.0, "kv_bytes_per_token": 10}).engine
    assert isinstance(config, SglangConfig)
    transfers = transfers_of(config)
    assert isinstance(transfers, HostTransfers)
    transfers.go_on(time_s=1.0, computed_s=3.0)
    assert transfers.write(100) == 4.0
    assert transfers.write(50) == 4.5
    assert transfers.load(200) == 5.0
    assert transfers.next_end_s == 4.0
    transfers.wait_until(4.5)
    assert (transfers.time_s, transfers.traffic.host_backup_stall_s) == (4.5, 3.5)
    assert transfers.next_end_s == 5.0
