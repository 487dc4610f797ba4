"""SGLang 0.5.8's rules where they differ, in stories whose ends follow from its sources."""

from typing import Any

from concur.sim.engine.sglang.core import SglangCore, build_sglang_scheduler
from concur.sim.engine.sglang.v058 import RadixTree058
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.step_time.step_time import LinearStepTime
from concur.sim.world.simulate import simulate
from tests.helpers import make_agent, make_workload


def old(**settings: Any) -> Scenario:
    engine = {"kind": "sglang", "max_total_num_tokens": 1000, "disable_overlap_schedule": True}
    engine |= {"release": "0.5.8"} | settings
    return parse_scenario({"workload": {"generator": "react", "num_agents": 1}, "engine": engine})


def test_it_leaves_a_tree_of_the_prompt() -> None:
    config = old().engine
    assert isinstance(config, SglangConfig)
    scheduler = build_sglang_scheduler(config)
    core = SglangCore(config, LinearStepTime(1.0, 0.0, 0.0, 0.0, 0.0), scheduler)
    simulate(old(), make_workload(make_agent(0, [(10, 4)])), core=core)
    assert scheduler.tree.evictable_tokens == 10  # 10 + 4 tokens; 0.5.23 keeps 13
    assert scheduler.tree.available_tokens == 990


def test_it_prefills_every_answer_again() -> None:
    workload = make_workload(make_agent(0, [(50, 10), (20, 5), (30, 5)]))
    assert simulate(old(), workload).requests["cached_tokens"].tolist() == [0, 50, 80]
    assert simulate(old(release="0.5.23"), workload).requests["cached_tokens"].tolist() == [0, 59, 84]


def test_it_evicts_as_many_tokens_as_it_needs_however_many_are_free() -> None:
    tree = RadixTree058(100, 1)
    for number in range(4):
        tree.take(20)
        tree.insert(((number, 0, 20),), owned_from=0)
    tree.make_room(20)
    assert tree.num_evicted_tokens == 0
    tree.make_room(25)
    assert tree.num_evicted_tokens == 40
    assert tree.available_tokens == 60


def test_it_takes_limits_that_the_pool_does_not_hold() -> None:
    engine = old(max_total_num_tokens=100, page_size=16, chunked_prefill_size=-1).engine
    assert isinstance(engine, SglangConfig)
    assert engine.max_new_tokens(50) == 96 - 1 - 50 - 1
    newer = engine.model_copy(update={"release": "0.5.23"})
    assert newer.max_new_tokens(50) == 96 - 64 - 16 - 1
