"""Random small worlds for SGLang: the same agents as for vLLM, engines that reach all its corners.

In half of them a crowd meets a starved pool and an estimate that is far too low, so that decodes outgrow it
and requests are retracted. Answers end by their length or, earlier than their limit, by themselves.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.scenario.scenario import parse_scenario
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload
from concur.validate.parity.worlds import World, any_agent, any_controller, any_order


@st.composite
def sglang_worlds(draw: st.DrawFn, release: str = "0.5.23") -> World:
    """Draw a scenario and its workload; no call is cut short."""
    is_crowd = draw(st.booleans())
    agents: list[AgentSpec] = []
    for index in range(draw(st.integers(6, 16) if is_crowd else st.integers(1, 10))):
        agents.append(draw(any_agent(index, agents)))
    agents = draw(_crowds(agents) if is_crowd else _limits(agents))
    engine = draw(_engines(agents)) | (draw(_starved(agents)) if is_crowd else {}) | {"release": release}
    scenario = parse_scenario(
        {
            "workload": {"generator": "react", "num_agents": len(agents)},
            "engine": engine,
            "gate": {"admit": draw(any_order), "resume": draw(any_order), "pause": draw(any_order)},
            "controller": {} if is_crowd else draw(any_controller()),
            "record": {"timeline_interval_s": 0.25},
        }
    )
    return scenario, Workload(tuple(agents), source="random world")


@st.composite
def hicache_worlds(draw: st.DrawFn) -> World:
    """Draw such a world with HiCache: hosts from a few tokens to plenty, links from fast to slow."""
    scenario, workload = draw(sglang_worlds())
    tier = {
        "hicache_ratio": draw(st.sampled_from([0.01, 0.3, 1.0, 4.0])),
        "hicache_write_policy": draw(
            st.sampled_from(["write_through", "write_through_selective", "write_back"])
        ),
        "bandwidth_bytes_per_s": draw(st.sampled_from([48.5e9, 4e9, 4e8])),
    }
    raw = scenario.model_dump()
    raw["engine"]["hierarchical_cache"] = tier
    return parse_scenario(raw), workload


@st.composite
def _limits(draw: st.DrawFn, agents: Sequence[AgentSpec]) -> list[AgentSpec]:
    """Draw what the clients send: nothing, the answer's length, or more than that."""
    most = draw(st.sampled_from([None, 0, 40, 400, 5000]))
    return [replace(each, steps=tuple(_step(step, most) for step in each.steps)) for each in agents]


@st.composite
def _crowds(draw: st.DrawFn, agents: Sequence[AgentSpec]) -> list[AgentSpec]:
    """Let all come at once or in waves, without tools, for answers several times as long.

    Between two waves the engine is idle, and expects little again.
    """
    factor, most = draw(st.sampled_from([2, 4])), draw(st.sampled_from([0, 0, 400]))
    wave_s = draw(st.sampled_from([0.0, 6.0]))
    return [
        replace(each, arrival_s=wave_s * (each.index % 3) * (each.parent_step is None), steps=steps)
        for each in agents
        if (steps := tuple(replace(_step(step, most, factor), tool_latency_s=0.0) for step in each.steps))
    ]


def _step(step: StepSpec, most: int | None, factor: int = 1) -> StepSpec:
    num_tokens = step.output_tokens * factor
    limit = None if most is None else max(num_tokens, most)
    return replace(step, output_tokens=num_tokens, max_new_tokens=limit)


@st.composite
def _starved(draw: st.DrawFn, agents: Sequence[AgentSpec]) -> dict[str, Any]:
    """Draw an engine that expects next to nothing of its answers, in a pool of few of them."""
    page_size = draw(st.sampled_from([1, 1, 16]))
    least_pages = least_pool_pages(agents, page_size)
    return {
        "page_size": page_size,
        "max_total_num_tokens": (least_pages + draw(st.integers(0, least_pages))) * page_size,
        "chunked_prefill_size": draw(st.sampled_from([-1, 64, 512, 8192])),
        "max_prefill_tokens": 16_384,
        "schedule_conservativeness": draw(st.sampled_from([0.0, 0.0, 0.05])),
        "max_running_requests": draw(st.sampled_from([6, 32])),
        "enable_mixed_chunk": False,
    }


@st.composite
def _engines(draw: st.DrawFn, agents: Sequence[AgentSpec]) -> dict[str, Any]:
    page_size = draw(st.sampled_from([1, 1, 16, 32]))
    max_running = draw(st.one_of(st.integers(1, 12), st.just(256)))
    least_pages = least_pool_pages(agents, page_size)
    spare_pages = draw(st.one_of(st.integers(0, 1 + least_pages // 4), st.integers(0, 2 * least_pages)))
    num_chunk_pages = draw(st.one_of(st.none(), st.integers(1, 1 + 300 // page_size)))
    chunk_tokens = -1 if num_chunk_pages is None else num_chunk_pages * page_size
    max_prefill = draw(st.one_of(st.integers(16, 400), st.just(16_384)))
    can_mix = max_running < min(chunk_tokens, max_prefill)
    return {
        "kind": "sglang",
        "max_total_num_tokens": (least_pages + spare_pages) * page_size,
        "page_size": page_size,
        "chunked_prefill_size": chunk_tokens,
        "max_prefill_tokens": max_prefill,
        "max_running_requests": max_running,
        "context_length": 16_384,
        "schedule_policy": draw(st.sampled_from(["fcfs", "lpm"])),
        "schedule_conservativeness": draw(st.sampled_from([0.0, 0.02, 0.3, 1.0])),
        "enable_mixed_chunk": can_mix and draw(st.booleans()),
        "disable_overlap_schedule": draw(st.booleans()),
    }


def least_pool_pages(agents: Sequence[AgentSpec], page_size: int) -> int:
    """Return the pages of the smallest pool in which no call of theirs is cut short."""
    steps = [step for agent in agents for step in agent.steps]
    pages = max(-(-(step.context_tokens + 6) // page_size) for step in steps)
    while any(_pool(pages, page_size).refuses(step.prompt_tokens, step.output_tokens) for step in steps):
        pages += 1
    return pages


def _pool(num_pages: int, page_size: int) -> SglangConfig:
    return SglangConfig(
        kind="sglang",
        max_total_num_tokens=max(2, num_pages * page_size),
        page_size=page_size,
        chunked_prefill_size=-1,
    )
