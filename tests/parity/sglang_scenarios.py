"""The scenarios of the parity suite with SGLang: beginnings of real traces, and corners made on purpose."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import parse_scenario
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload
from concur.validate.parity.worlds import World
from tests.helpers import TRACES, make_agent, make_workload

BEGINNINGS = {
    "weka": (4, 3),
    "tau_airline": (16, 8),
    "react_hotpotqa": (24, 8),
    "lmcache_miniswe": (5, 8),
    "sweagent_demos": (6, 6),
}
"""Of each trace so many agents, and so many calls of each."""
POOLS = {"starved": 0.15, "knee": 0.4, "ample": 1.2}
"""The pool over the sum of all longest histories; never less than one and a half of the longest."""


def engine(max_total_num_tokens: int, *, is_overlapped: bool, **settings: Any) -> dict[str, Any]:
    """An engine's section."""
    return {
        "kind": "sglang",
        "max_total_num_tokens": max_total_num_tokens,
        "disable_overlap_schedule": not is_overlapped,
        "context_length": 1 << 20,
    } | settings


def trace_world(name: str, pool: str, *, is_overlapped: bool, **settings: Any) -> World:
    """The beginning of a trace in one of its pools."""
    agents = beginning(name)
    longest = max(agent.peak_context_tokens for agent in agents)
    total = sum(agent.peak_context_tokens for agent in agents)
    tokens = max(int(POOLS[pool] * total), int(1.5 * longest))
    section = engine(tokens, is_overlapped=is_overlapped, chunked_prefill_size=2048, **settings)
    return parse_scenario(_of_trace(name, section)), Workload(agents, source=name)


@cache
def beginning(name: str) -> tuple[AgentSpec, ...]:
    """The first calls of a trace's first agents; reading a long trace takes seconds."""
    num_agents, num_calls = BEGINNINGS[name]
    scenario = parse_scenario(_of_trace(name, engine(10**9, is_overlapped=True)))
    chosen = build_workload(scenario).agents[:num_agents]
    return tuple(replace(agent, steps=agent.steps[:num_calls]) for agent in chosen)


def _of_trace(name: str, section: dict[str, Any]) -> dict[str, Any]:
    return {"workload": {"trace": str(TRACES / f"{name}.jsonl.gz")}, "engine": section}


def with_limit(agent: AgentSpec, max_new_tokens: int) -> AgentSpec:
    """The same agent with a limit for each answer, which ends by itself before, or with it."""
    steps = (replace(each, max_new_tokens=max(each.output_tokens, max_new_tokens)) for each in agent.steps)
    return replace(agent, steps=tuple(steps))


def world(agents: list[AgentSpec], max_total_num_tokens: int, **settings: Any) -> World:
    """A world made by hand."""
    raw = {
        "workload": {"generator": "react", "num_agents": len(agents)},
        "engine": engine(max_total_num_tokens, **settings),
    }
    return parse_scenario(raw), make_workload(*agents)


def retracting_world(*, is_overlapped: bool, page_size: int = 1) -> World:
    """Long answers, of which next to nothing is expected, in a small pool: decodes outgrow it.

    After a retraction more is expected, until the engine has been idle: so they come in waves.
    """
    agents = [make_agent(n, [(60, 120), (40, 90)], arrival_s=9.0 * (n // 8)) for n in range(48)]
    limited = [with_limit(agent, 0) for agent in agents]
    settings = {"page_size": page_size, "schedule_conservativeness": 0.0, "chunked_prefill_size": 512}
    return world(limited, 960, is_overlapped=is_overlapped, **settings)


def growing_world(*, is_overlapped: bool, page_size: int = 1) -> World:
    """A few with short prompts and long answers, one after the other: together they outgrow the pool."""
    agents = [with_limit(make_agent(n, [(50, 300), (20, 30)], arrival_s=0.1 * n), 0) for n in range(4)]
    settings = {"page_size": page_size, "schedule_conservativeness": 0.0, "chunked_prefill_size": 512}
    return world(agents, 720, is_overlapped=is_overlapped, **settings)


def early_world(*, is_overlapped: bool, page_size: int = 1) -> World:
    """Answers that end long before their limit, shared beginnings, histories of which parts are dropped."""
    agents = []
    for number in range(12):
        steps = (StepSpec(48, 100, 40, 0.1), StepSpec(188, 64, 60, 0.0), StepSpec(90, 130, 33, 0.3))
        agents.append(with_limit(AgentSpec(f"a{number}", number, "g", 48, 0.02 * number, steps), 300))
    settings = {"page_size": page_size, "schedule_conservativeness": 0.1, "chunked_prefill_size": 128}
    return world(agents, 2500, is_overlapped=is_overlapped, **settings)


def alike_world(*, is_overlapped: bool, page_size: int = 1) -> World:
    """Groups that begin alike, all at once, the longest prefix first."""
    agents = [
        make_agent(n, [(90, 20), (50, 30), (70, 10)], wait_s=0.05, group=f"g{n // 6}", shared=120)
        for n in range(18)
    ]
    settings = {"page_size": page_size, "schedule_policy": "lpm", "max_running_requests": 5}
    return world(agents, 1500, is_overlapped=is_overlapped, chunked_prefill_size=256, **settings)


def mixed_world(*, is_overlapped: bool, page_size: int = 1) -> World:
    """Long prompts in chunks, with the decodes of others in the same batches, and hardly any room."""
    agents = [make_agent(n, [(500, 60), (300, 40)], arrival_s=0.03 * n) for n in range(8)]
    settings = {"page_size": page_size, "enable_mixed_chunk": True, "max_running_requests": 8}
    return world(agents, 2400, is_overlapped=is_overlapped, chunked_prefill_size=64, **settings)


def crowded_world(*, is_overlapped: bool, page_size: int = 1) -> World:
    """More who wait than run, for long: the queue is refreshed again and again, and seats are short."""
    agents = [make_agent(n, [(40, 12), (30, 9), (60, 15)], group="g", shared=30) for n in range(40)]
    settings = {"page_size": page_size, "max_running_requests": 3, "max_prefill_tokens": 100}
    return world(agents, 2000, is_overlapped=is_overlapped, chunked_prefill_size=-1, **settings)


CORNERS: dict[str, Callable[..., World]] = {
    "retracting": retracting_world,
    "growing": growing_world,
    "early": early_world,
    "alike": alike_world,
    "mixed": mixed_world,
    "crowded": crowded_world,
}
