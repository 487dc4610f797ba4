"""Random small worlds: scenarios and agents that reach the corners of the scheduler.

Hypothesis strategies, so that a world that breaks something shrinks to a small one. Pools range from starved
(the longest agent just fits) to ample, budgets from 64 tokens up, sequences from 1 to 256, with shared
prefixes that nest, dropped histories, sub-agents that join or run beside their parent, forks, every
admission rule on and off, static and adaptive windows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st

from concur.orders import ORDERS
from concur.signals import Prefix
from concur.sim.engine.config import EngineConfig
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload

World = tuple[Scenario, Workload]

_waits_s = st.sampled_from([0.0, 0.01, 0.3, 2.0])
any_order = st.sampled_from(sorted(ORDERS))


@st.composite
def worlds(draw: st.DrawFn, *, with_host_cache: bool = False, least_agents: int = 1) -> World:
    """Draw a scenario and its workload; no agent is longer than the pool."""
    agents: list[AgentSpec] = []
    for index in range(draw(st.integers(least_agents, 10))):
        agents.append(draw(any_agent(index, agents)))
    block_size = draw(st.sampled_from([16, 32] if not with_host_cache else [4, 16, 32]))
    longest_blocks = max(-(-agent.peak_context_tokens // block_size) for agent in agents)
    scenario = parse_scenario(
        {
            "workload": {"generator": "react", "num_agents": len(agents)},
            "engine": draw(_engines(block_size, longest_blocks)) | draw(_host_caches(with_host_cache)),
            "gate": {"admit": draw(any_order), "resume": draw(any_order), "pause": draw(any_order)},
            "controller": draw(any_controller()),
            "record": {"timeline_interval_s": 0.25},
        }
    )
    return scenario, Workload(tuple(agents), source="random world")


@st.composite
def offloading_worlds(draw: st.DrawFn, *, least_agents: int = 4) -> World:
    """Draw a world whose engine offloads to host memory: tiers from one chunk up, links from very slow up."""
    scenario, workload = draw(worlds(least_agents=least_agents))
    engine = scenario.engine.model_dump() | {"enable_prefix_caching": True}
    longest_blocks = max(
        -(-agent.peak_context_tokens // scenario.vllm.block_size) for agent in workload.agents
    )
    pool_blocks = longest_blocks + draw(
        st.integers(0, longest_blocks // 2)
    )  # starved: what is evicted comes back
    engine |= {"num_gpu_blocks": 1 + pool_blocks, "model_runner": draw(st.sampled_from(["v1", "v2"]))}
    blocks_per_chunk = draw(st.sampled_from([1, 1, 1, 2, 3]))
    num_chunks = draw(st.one_of(st.integers(1, 60), st.just(5000)))
    engine["host_cache"] = {
        "kind": "offloading",
        "capacity_tokens": num_chunks * blocks_per_chunk * scenario.vllm.block_size,
        "bandwidth_bytes_per_s": draw(st.sampled_from([2e8, 2e9, 48.5e9])),
        "eviction_policy": draw(st.sampled_from(["lru", "lru", "arc"])),
        "offload_prompt_only": draw(st.sampled_from([True, True, False])),
        "blocks_per_chunk": blocks_per_chunk,
        "store_threshold": draw(st.sampled_from([0, 0, 2])),
    }
    return scenario.model_copy(update={"engine": EngineConfig(**engine)}), workload


@st.composite
def hybrid_worlds(draw: st.DrawFn, *, least_agents: int = 3) -> World:
    """Draw a world whose layers differ: windows from one token up, blocks of three sizes, a few groups."""
    scenario, workload = draw(worlds(least_agents=least_agents))
    engine = scenario.vllm.model_dump()
    sizes = st.sampled_from([1, 1, 1, 2, 3])  # over the engine's block size
    windows = st.one_of(st.just(0), st.integers(1, 80), st.integers(80, 600))
    groups = [
        {
            "kind": "sliding_window" if window else "full",
            "sliding_window": window,
            "block_size": size * scenario.vllm.block_size,
            "num_groups": draw(st.integers(1, 3)),
        }
        for window, size in draw(st.lists(st.tuples(windows, sizes), min_size=1, max_size=4))
    ]
    groups[0]["block_size"] = 0  # the engine's is their greatest common divisor
    engine["kv_cache_groups"] = groups
    longest = max(agent.peak_context_tokens for agent in workload.agents)
    least_blocks = EngineConfig(**engine).num_blocks_for(longest)
    spare_blocks = draw(st.one_of(st.integers(0, least_blocks // 3), st.integers(0, 3 * least_blocks)))
    engine["num_gpu_blocks"] = 1 + least_blocks + spare_blocks
    return scenario.model_copy(update={"engine": EngineConfig(**engine)}), workload


@st.composite
def priority_worlds(draw: st.DrawFn, *, is_plain: bool = False) -> World:
    """Draw a world of any kind whose agents have priorities; in most plain ones the pool is small."""
    kind = worlds if is_plain else draw(st.sampled_from([worlds, offloading_worlds, hybrid_worlds]))
    scenario, workload = draw(kind(least_agents=8))
    engine = scenario.vllm.model_dump() | {"scheduling_policy": "priority"}
    if kind is worlds and draw(st.integers(0, 3)):
        longest = max(agent.peak_context_tokens for agent in workload.agents)
        engine |= {"num_gpu_blocks": 2 + -(-longest // engine["block_size"]), "watermark": 0.0}
    levels = st.integers(-1, draw(st.sampled_from([0, 5, 5])))
    agents = tuple(replace(agent, priority=draw(levels)) for agent in workload.agents)
    changed: dict[str, Any] = {"engine": EngineConfig(**engine)}
    if draw(st.booleans()):
        changed["controller"] = ControllerConfig()
    return scenario.model_copy(update=changed), replace(workload, agents=agents)


@st.composite
def any_agent(draw: st.DrawFn, index: int, others: Sequence[AgentSpec]) -> AgentSpec:
    """Draw an agent that comes by itself, or a child of one of the others."""
    if others and draw(st.integers(0, 2)) == 0:
        return draw(_children(index, draw(st.sampled_from(others))))
    shared = draw(st.sampled_from([0, 10, 48, 100]))
    steps = draw(_steps(shared))
    group = draw(st.sampled_from(["g", "h", None]))  # alone with a prefix, or in a group without one
    outer_tokens = draw(st.sampled_from([0, 0, 7, 32])) if group is not None else 0
    outer = (Prefix("all", outer_tokens),) if 0 < outer_tokens <= shared else ()
    return AgentSpec(f"a{index}", index, group, shared, draw(_waits_s), steps, outer_prefixes=outer)


@st.composite
def _children(draw: st.DrawFn, index: int, parent: AgentSpec) -> AgentSpec:
    parent_step = draw(st.integers(0, len(parent.steps) - 1))
    history = parent.steps[parent_step].context_tokens
    fork_tokens = draw(st.one_of(st.just(0), st.just(history), st.integers(0, history)))
    return AgentSpec(
        f"a{index}",
        index,
        None,
        0,
        0.0,
        draw(_steps(fork_tokens)),
        parent=parent.agent_id,
        parent_step=parent_step,
        spawn_delay_s=draw(_waits_s),
        joins=draw(st.booleans()),
        fork_tokens=fork_tokens,
    )


@st.composite
def _steps(draw: st.DrawFn, history: int) -> tuple[StepSpec, ...]:
    """Draw the steps of an agent that starts with a history of that length."""
    steps: list[StepSpec] = []
    for number in range(draw(st.integers(1, 5))):
        drops = number > 0 and draw(st.integers(0, 3)) == 0
        kept = draw(st.integers(0, history)) if drops else history
        new = draw(st.integers(0 if kept else 1, 150))
        step = StepSpec(kept, new, draw(st.integers(1, 60)), draw(_waits_s))
        history = step.context_tokens
        steps.append(step)
    return tuple(steps)


@st.composite
def _engines(draw: st.DrawFn, block_size: int, longest_blocks: int) -> dict[str, Any]:
    max_num_seqs = draw(st.one_of(st.integers(1, 12), st.just(256)))
    spare_blocks = draw(st.one_of(st.integers(0, longest_blocks // 4), st.integers(0, 3 * longest_blocks)))
    return {
        "block_size": block_size,
        "num_gpu_blocks": 1 + longest_blocks + spare_blocks,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max(64, max_num_seqs, draw(st.integers(64, 700))),
        "max_model_len": 16_384,
        "long_prefill_token_threshold": draw(st.sampled_from([0, 20, 50])),
        "scheduler_reserve_full_isl": draw(st.booleans()),
        "watermark": draw(st.sampled_from([0.0, 0.05, 0.2])),
        "enable_prefix_caching": draw(st.sampled_from([True, True, True, False])),
        "async_scheduling": draw(st.booleans()),
    }


@st.composite
def _host_caches(draw: st.DrawFn, with_host_cache: bool) -> dict[str, Any]:
    if not with_host_cache:
        return {}
    capacity = draw(st.sampled_from([0, 500, 10_000]))
    kind = draw(st.sampled_from(["offloading", "victim"]))
    tier = {"host_cache": {"kind": kind, "capacity_tokens": capacity, "bandwidth_bytes_per_s": 1e9}}
    return tier | ({"enable_prefix_caching": True} if capacity else {})


@st.composite
def any_controller(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a law: none, a static cap, or the window of the paper."""
    kind = draw(st.sampled_from(["none", "request_cap", "agent_cap", "concur"]))
    common = {"kind": kind, "interval_s": draw(st.sampled_from([0.05, 0.5, 5.0]))}
    if "cap" in kind:
        return common | {"cap": draw(st.integers(1, 6))}
    if kind == "none":
        return common
    return common | {
        "initial_window": draw(st.integers(1, 8)),
        "u_low_frac": 0.1,
        "u_high_frac": 0.3,
        "h_thresh_frac": draw(st.sampled_from([0.2, 0.9])),
        "wrappers": draw(st.sampled_from([[], ["app_limited"]])),
    }


KINDS: Final[Mapping[str, Callable[[], st.SearchStrategy[World]]]] = {
    "plain": worlds,
    "groups": hybrid_worlds,
    "tier": offloading_worlds,
    "priority": partial(priority_worlds, is_plain=True),
}
"""Worlds by what is special about them."""


def of_release(drawn: st.SearchStrategy[World], release: str) -> st.SearchStrategy[World]:
    """Return the same worlds on an engine of that release of vLLM."""

    def changed(world: World) -> World:
        scenario, workload = world
        engine = scenario.vllm.model_copy(update={"release": release})
        return scenario.model_copy(update={"engine": engine}), workload

    return drawn.map(changed)
