"""The engine that is SGLang: figures of its own scheduler, its section of a scenario, its signals."""

from copy import deepcopy
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from concur.controllers import CATALOG
from concur.signals import Prefix
from concur.sim.engine.core import EngineCore
from concur.sim.engine.request import Request
from concur.sim.engine.sglang.core import SglangCore, build_sglang_core, build_sglang_scheduler
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.errors import ScenarioError
from concur.sim.kv.history import Histories
from concur.sim.record.record import RunRecord
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.step_time.step_time import LinearStepTime
from concur.sim.world.simulate import simulate
from tests.helpers import TRACES, make_agent, make_scenario, make_workload

STEP_TIME = LinearStepTime(0.006, 2.1e-5, 5e-5, 1.2e-8, 1e-9)
SYNC = {"disable_overlap_schedule": True}
FIGURES: dict[str, tuple[dict[str, Any], tuple[float, int, int]]] = {
    "ample": ({"max_total_num_tokens": 96_000} | SYNC, (34.65, 4440, 898_490)),
    "knee": (SYNC, (39.46, 4267, 668_274)),
    "knee, pages of 16": ({"page_size": 16} | SYNC, (39.39, 4287, 670_160)),
    "knee, overlap": ({}, (38.93, 4563, 671_773)),
    "knee, mixed chunks": ({"enable_mixed_chunk": True} | SYNC, (38.01, 4177, 688_103)),
    "knee, longest prefix": ({"schedule_policy": "lpm"} | SYNC, (37.53, 4435, 756_178)),
}
"""Makespan, steps and cached tokens of SGLang 0.5.23's own classes on the same agents and step time."""


def airline(engine: dict[str, Any], **sections: dict[str, Any]) -> RunRecord:
    raw: dict[str, Any] = {
        "workload": {"trace": str(TRACES / "tau_airline.jsonl.gz"), "num_agents": 24},
        "engine": {"kind": "sglang", "max_total_num_tokens": 24_000} | engine,
        "step_time": {},
    }
    for name, section in sections.items():
        raw[name] = raw.get(name, {}) | section
    return simulate(parse_scenario(raw))


def figures(record: RunRecord) -> tuple[float, int, int]:
    metrics = record.metrics
    return round(metrics["makespan_s"], 2), metrics["num_engine_steps"], metrics["cached_tokens"]


@pytest.mark.parametrize("name", FIGURES)
def test_the_figures_of_its_own_scheduler(name: str) -> None:
    engine, expected = FIGURES[name]
    record = airline(engine)
    assert figures(record) == expected
    assert record.metrics["prompt_tokens"] == 946_236
    assert record.metrics["num_preemptions"] == 0


def test_the_figures_under_a_cap_on_agents() -> None:
    record = airline(SYNC, controller={"kind": "agent_cap", "cap": 6})
    assert figures(record) == (52.99, 7924, 899_746)


def test_a_large_limit_throttles_by_itself() -> None:
    engine = {"max_total_num_tokens": 12_000, "schedule_conservativeness": 0.3} | SYNC
    assert figures(airline(engine, workload={"max_new_tokens": 4096})) == (87.51, 11_850, 548_121)


def test_a_scenario_without_a_kind_is_vllm_and_its_record_does_not_say_so() -> None:
    named = make_scenario(engine={"kind": "vllm"})
    assert named == make_scenario()
    assert "kind" not in named.model_dump(mode="json")["engine"]
    record = airline({}).run["scenario"]["engine"]
    assert record["kind"] == "sglang"
    assert parse_scenario({"workload": {"generator": "react", "num_agents": 1}, "engine": record})


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"kind": "tgi"}, r"engine: kind = 'tgi' but must be one of vllm, sglang"),
        ({"num_gpu_blocks": 4}, r"unknown key engine\.num_gpu_blocks"),
        (
            {"max_total_num_tokens": 8, "page_size": 16},
            r"max_total_num_tokens = 8 but must be at least page_s",
        ),
        (
            {"page_size": 16, "chunked_prefill_size": 100},
            r"chunked_prefill_size = 100 but must be a multiple",
        ),
        ({"chunked_prefill_size": 0}, r"chunked_prefill_size = 0 but must be a multiple of page_size = 1"),
        (
            {"enable_mixed_chunk": True, "chunked_prefill_size": 200},
            r"max_running_requests = 256 but with enable_mixed_chunk it must be below",
        ),
    ],
)
def test_what_sglang_refuses_is_refused(engine: dict[str, Any], message: str) -> None:
    raw = {"kind": "sglang", "max_total_num_tokens": 9000} | engine
    with pytest.raises(ScenarioError, match=message):
        parse_scenario({"workload": {"generator": "react", "num_agents": 1}, "engine": raw})


def test_a_call_that_would_be_cut_short_is_refused() -> None:
    workload = make_workload(make_agent(0, [(50, 10), (20, 25)]))
    assert simulate(small(page_size=1, tokens=108), workload).metrics["generated_tokens"] == 35
    with pytest.raises(
        ScenarioError, match=r"agent-0, step 1: a prompt of 80 and an answer of 25 tokens, but"
    ):
        simulate(small(page_size=1, tokens=106), workload)


def small(*, page_size: int, tokens: int) -> Scenario:
    engine = {"kind": "sglang", "max_total_num_tokens": tokens, "page_size": page_size}
    return parse_scenario({"workload": {"generator": "react", "num_agents": 1}, "engine": engine})


def test_answers_shorter_than_their_limit_take_a_token_more_under_overlap() -> None:
    agent = make_agent(0, [(50, 10), (20, 5)])
    early = replace(agent, steps=tuple(replace(step, max_new_tokens=100) for step in agent.steps))
    scenario = small(page_size=1, tokens=1000)
    foreseen, surprised = (simulate(scenario, make_workload(each)) for each in (agent, early))
    assert foreseen.metrics["generated_tokens"] == surprised.metrics["generated_tokens"] == 15
    assert surprised.metrics["num_engine_steps"] == foreseen.metrics["num_engine_steps"] + 2
    assert foreseen.requests["cached_tokens"].tolist() == [0, 59]
    assert surprised.requests["cached_tokens"].tolist() == [0, 60]  # its last token was computed too


def test_the_law_sees_the_pool_in_pages_and_gauges_as_often_as_sglang_shows_them() -> None:
    record = airline({"page_size": 16}, controller={"kind": "concur", "interval_s": 0.5})
    ticks = record.ticks
    assert (ticks["kv_cache_usage_frac"] * 100 % 1).round(6).isin([0.0, 1.0]).all()  # two digits
    assert ticks["kv_cache_usage_frac"].max() > 0.5
    assert (ticks["kv_cache_resident_frac"] >= ticks["kv_cache_usage_frac"] - 0.005).all()
    assert record.metrics["num_engine_steps"] > 40 * ticks["kv_cache_usage_frac"].nunique()


@pytest.mark.parametrize("kind", CATALOG.own)
def test_every_law_runs_on_it(kind: str) -> None:
    cap = {"cap": 4} if "cap" in kind else {}
    record = simulate(
        parse_scenario(
            {
                "workload": {"generator": "react", "num_agents": 12},
                "engine": {"kind": "sglang", "max_total_num_tokens": 16_000, "page_size": 16},
                "controller": {"kind": kind, "interval_s": 0.5} | cap,
            }
        )
    )
    assert len(record.agents) == 12
    assert len(record.ticks) > 50


def requests() -> list[Request]:
    """Two calls each of six agents of a group, and their answers longer than the pool can hold together."""
    histories, made = Histories(1), []
    for agent in range(6):
        history, kept = histories.begin([Prefix("g", 30)]), 30
        for call in range(2):
            prompt, output = kept + 40, 60 + 7 * agent
            history = histories.call(history, kept_tokens=kept, context_tokens=prompt + output)
            made.append(
                Request(f"{agent}/{call}", agent, call, prompt, output, history, kept, 6.0 * call, output)
            )
            kept = prompt + output
    return sorted(made, key=lambda request: request.arrival_s)


def run_to_end(core: EngineCore) -> list[tuple[str, float | None, int, int]]:
    finished: list[Request] = []
    while core.next_change_s < inf:
        finished += core.run_until(inf)
    return [(r.request_id, r.finished_s, r.num_cached_tokens, r.num_preemptions) for r in finished]


@pytest.mark.parametrize("is_sync", [False, True], ids=["overlap", "normal"])
def test_a_copy_in_the_middle_of_a_run_is_the_same_engine(is_sync: bool) -> None:
    config = SglangConfig(
        kind="sglang",
        max_total_num_tokens=420,
        schedule_conservativeness=0.0,
        disable_overlap_schedule=is_sync,
    )
    core = build_sglang_core(config, STEP_TIME)
    for request in requests():
        core.submit(request)
    core.run_until(0.4)
    twin = deepcopy(core)
    outcome = run_to_end(core)
    assert run_to_end(twin) == outcome
    assert len(outcome) == 11  # one had ended before the copy
    assert sum(preemptions for *_, preemptions in outcome) > 0


def test_a_run_ends_with_nothing_locked() -> None:
    scenario = parse_scenario(
        {
            "workload": {"generator": "react", "num_agents": 6},
            "engine": {"kind": "sglang", "max_total_num_tokens": 12_000, "page_size": 16},
        }
    )
    assert isinstance(scenario.engine, SglangConfig)
    scheduler = build_sglang_scheduler(scenario.engine)
    core = SglangCore(scenario.engine, STEP_TIME, scheduler)
    simulate(scenario, build_workload(scenario), core=core)
    tree = scheduler.tree
    assert tree.available_tokens + tree.evictable_tokens == scenario.engine.pool_tokens
