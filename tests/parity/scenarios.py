"""The scenarios of the parity suite: real traces in three pools, and corners made on purpose."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from concur.sim.engine.config import EngineConfig
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload
from concur.validate.parity.worlds import World
from tests.helpers import TRACES, make_agent, make_scenario, make_workload


@dataclass(frozen=True)
class TraceCase:
    """A trace, how many of its agents, and pools of starved, knee and ample size, in blocks."""

    file: str
    num_agents: int
    max_context_tokens: int
    pools: dict[str, int]
    block_size: int = 16


TRACE_CASES = [
    TraceCase("weka.jsonl.gz", 24, 131_072, {"starved": 8300, "knee": 30_000, "ample": 150_000}),
    TraceCase("tau_airline.jsonl.gz", 100, 16_384, {"starved": 620, "knee": 3000, "ample": 24_000}),
    TraceCase("react_hotpotqa.jsonl.gz", 256, 16_384, {"starved": 200, "knee": 1500, "ample": 20_000}),
    TraceCase("lmcache_miniswe.jsonl.gz", 20, 65_536, {"starved": 3200, "knee": 5000, "ample": 16_000}),
    TraceCase("sweagent_demos.jsonl.gz", 22, 16_384, {"starved": 440, "knee": 1500, "ample": 6000}, 32),
]


def trace_world(case: TraceCase, pool: str, *, is_async: bool) -> World:
    """A trace in one of its pools."""
    engine = {"num_gpu_blocks": case.pools[pool], "async_scheduling": is_async, "block_size": case.block_size}
    num_agents = 0 if case.num_agents >= 20 and "weka" not in case.file else case.num_agents
    raw = _of_trace(case.file, num_agents, case.max_context_tokens, **engine)
    agents = _agents(case.file, num_agents, case.max_context_tokens)[: case.num_agents]
    return parse_scenario(raw), Workload(agents, source=case.file)


@cache
def _agents(file: str, num_agents: int, max_context_tokens: int) -> tuple[AgentSpec, ...]:
    """The agents of a trace; reading a long one takes seconds."""
    return build_workload(parse_scenario(_of_trace(file, num_agents, max_context_tokens))).agents


def _of_trace(file: str, num_agents: int, max_context_tokens: int, **engine: Any) -> dict[str, Any]:
    workload = {"num_agents": num_agents, "max_context_tokens": max_context_tokens}
    limits = {"max_num_batched_tokens": 2048, "max_model_len": max_context_tokens}
    return {
        "workload": {"trace": str(TRACES / file)} | workload,
        "engine": {"num_gpu_blocks": 150_000} | limits | engine,
    }


def preempting_world(*, is_async: bool) -> World:
    """Long answers in a small pool: decodes outgrow it again and again."""
    agents = [make_agent(n, [(60, 200), (40, 150)], wait_s=0.1, group="g", shared=40) for n in range(24)]
    engine = {"num_gpu_blocks": 61, "max_num_batched_tokens": 512, "async_scheduling": is_async}
    return make_scenario(engine=engine), make_workload(*agents)


def blocked_world(*, is_async: bool) -> World:
    """A long prompt is preempted by a neighbour's growth and then does not fit beside the others."""
    growing = [make_agent(n, [(100, 400)]) for n in range(2)]
    long = make_agent(2, [(700, 50)], arrival_s=0.05)
    engine = {"num_gpu_blocks": 62, "max_num_batched_tokens": 512, "async_scheduling": is_async}
    return make_scenario(engine=engine), make_workload(*growing, long)


def overflowing_world(*, is_async: bool) -> World:
    """A prefill of many chunks, admitted without a reservation, runs out of blocks half-way."""
    growing = [make_agent(n, [(100, 600)] * 2) for n in range(2)]
    long = [make_agent(n, [(2000, 50), (900, 30)], arrival_s=0.05) for n in (2, 3)]
    engine = {
        "num_gpu_blocks": 201,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 64,
        "scheduler_reserve_full_isl": False,
        "async_scheduling": is_async,
    }
    return make_scenario(engine=engine), make_workload(*growing, *long)


def reusing_world(*, is_async: bool) -> World:
    """Long answers and short questions in an ample pool: most of each prompt was generated before."""
    agents = [make_agent(n, [(30, 120)] * 5, wait_s=0.2) for n in range(6)]
    engine = {"num_gpu_blocks": 1000, "max_num_batched_tokens": 256, "async_scheduling": is_async}
    return make_scenario(engine=engine), make_workload(*agents)


def crowded_world(*, is_async: bool) -> World:
    """Everything at once, small: shared prefixes, dropped histories, a threshold, a watermark, chunks."""
    agents = []
    for number in range(10):
        steps = (StepSpec(48, 100, 40, 0.1), StepSpec(188, 64, 60, 0.0), StepSpec(90, 130, 33, 0.3))
        agents.append(AgentSpec(f"a{number}", number, "g", 48, 0.02 * number, steps))
    engine = {
        "num_gpu_blocks": 45,
        "max_num_seqs": 6,
        "max_num_batched_tokens": 128,
        "long_prefill_token_threshold": 50,
        "watermark": 0.1,
        "async_scheduling": is_async,
    }
    return make_scenario(engine=engine), Workload(tuple(agents), source="crowded")


def lone_world(*, is_async: bool) -> World:
    """One agent alone, with a threshold that must not cap it, that asks the same whole blocks twice.

    The second time the last block is computed again, beside the first: from then on its hash has two.
    """
    again = StepSpec(256, 0, 40, 0.1)
    steps = (StepSpec(0, 256, 16, 0.1), again, StepSpec(288, 64, 5, 0.1), StepSpec(128, 0, 1, 0.1))
    agents = (AgentSpec("alone", 0, None, 0, 0.0, steps),)
    engine = {"num_gpu_blocks": 60, "long_prefill_token_threshold": 50, "async_scheduling": is_async}
    return make_scenario(engine=engine), Workload(agents, source="lone")


CORNERS = {
    "preempting": preempting_world,
    "blocked": blocked_world,
    "overflowing": overflowing_world,
    "reusing": reusing_world,
    "crowded": crowded_world,
    "lone": lone_world,
}


def corner(name: str, *, is_async: bool) -> tuple[Scenario, Workload]:
    """One of the worlds made on purpose."""
    return CORNERS[name](is_async=is_async)


def with_priorities(world: World) -> World:
    """The same world under `priority`: of four agents the one that comes last goes first."""
    scenario, workload = world
    engine = scenario.vllm.model_copy(update={"scheduling_policy": "priority"})
    agents = tuple(replace(agent, priority=-(agent.index % 4)) for agent in workload.agents)
    return scenario.model_copy(update={"engine": engine}), replace(workload, agents=agents)


def latecomers_world(*, is_async: bool) -> World:
    """Under `priority`: everybody who comes goes before all who run already, and the pool is small."""
    agents = [
        replace(make_agent(n, [(60, 250), (40, 150)], wait_s=0.1, arrival_s=0.1 * n), priority=-n)
        for n in range(24)
    ]
    engine = {"num_gpu_blocks": 61, "max_num_batched_tokens": 512, "async_scheduling": is_async}
    return make_scenario(engine=engine | {"scheduling_policy": "priority"}), make_workload(*agents)


SHORTENED = {"weka": (4, 3), "tau_airline": (20, 12), "react_hotpotqa": (40, 12)} | {
    "lmcache_miniswe": (5, 12),
    "sweagent_demos": (8, 8),
}
"""Of each trace so many agents, and so many calls of each: the tier has its say long before the end."""


def shortened(case: TraceCase, *, is_async: bool) -> World:
    """The beginning of a trace, in a pool that just holds its longest agent beside a little more."""
    scenario, workload = trace_world(case, "starved", is_async=is_async)
    num_agents, num_calls = SHORTENED[case.file.split(".")[0]]
    agents = tuple(replace(agent, steps=agent.steps[:num_calls]) for agent in workload.agents[:num_agents])
    longest_blocks = max(agent.peak_context_tokens for agent in agents) // case.block_size
    engine = scenario.engine.model_copy(update={"num_gpu_blocks": 2 + longest_blocks * 5 // 4})
    return scenario.model_copy(update={"engine": engine}), Workload(agents, source=case.file)


TIERS = {"small": 0.5, "medium": 2.0, "ample": 10.0}
"""Host memory over the pool."""


def offloading(
    world: World, *, tier: float, runner: str = "v2", bandwidth_bytes_per_s: float = 48.5e9, **host: Any
) -> World:
    """The same world with vLLM's connector, and host memory for `tier` times the pool."""
    scenario, workload = world
    engine = scenario.engine.model_dump() | {"model_runner": runner}
    engine["host_cache"] = {
        "kind": "offloading",
        "capacity_tokens": int(tier * scenario.engine.pool_tokens),
        "bandwidth_bytes_per_s": bandwidth_bytes_per_s,
    } | host
    return scenario.model_copy(update={"engine": EngineConfig(**engine)}), workload


def twins_world(*, is_async: bool) -> World:
    """Agents that ask the same whole blocks one after another, while the last of them is on its way.

    The pool never answers for a prompt's last block, host memory does.
    """
    steps = (StepSpec(64, 0, 20, 0.05), StepSpec(84, 12, 30, 0.2), StepSpec(64, 0, 10, 0.05))
    agents = tuple(AgentSpec(f"a{n}", n, "g", 64, 0.02 * (n // 2), steps) for n in range(8))
    engine = {"num_gpu_blocks": 40, "max_num_batched_tokens": 256, "async_scheduling": is_async}
    return make_scenario(engine=engine), Workload(agents, source="twins")


_FULL = {"kind": "full"}
MODELS: dict[str, list[dict[str, Any]]] = {
    "gpt-oss": [_FULL, {"kind": "sliding_window", "sliding_window": 128}],
    "Gemma-3": [_FULL, {"kind": "sliding_window", "sliding_window": 1024, "num_groups": 6}],
    "two windows": [_FULL] + [{"kind": "sliding_window", "sliding_window": size} for size in (40, 200)],
    "windows alone": [{"kind": "sliding_window", "sliding_window": size} for size in (64, 250)],
    "windows of block sizes": [
        {"kind": "sliding_window", "sliding_window": 100},
        {"kind": "sliding_window", "sliding_window": 60, "block_size": 48},
    ],
    "full, of block sizes": [{"kind": "full", "block_size": size} for size in (32, 48)],
    "block sizes": [
        {"kind": "sliding_window", "sliding_window": 100, "block_size": 32},
        {"kind": "full", "block_size": 48},
        {"kind": "sliding_window", "sliding_window": 30, "block_size": 16},
    ],
}
"""Groups of layers, in blocks of 16."""


def with_groups(world: World, groups: list[dict[str, Any]], *, pool: float = 1.0) -> World:
    """The same world with layers that differ, in `pool` times the blocks, but room for the longest agent."""
    scenario, workload = world
    engine = scenario.engine.model_dump() | {"kv_cache_groups": groups}
    longest = max(agent.peak_context_tokens for agent in workload.agents)
    least_blocks = 1 + EngineConfig(**engine).num_blocks_for(longest)
    engine["num_gpu_blocks"] = max(least_blocks, int(pool * scenario.vllm.num_gpu_blocks))
    return scenario.model_copy(update={"engine": EngineConfig(**engine)}), workload
