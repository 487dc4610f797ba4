"""The scenarios of the parity suite with SGLang's HiCache: beginnings of traces, corners made on purpose."""

from collections.abc import Callable
from typing import Any

from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.scenario.scenario import parse_scenario
from concur.sim.workload.spec import AgentSpec, StepSpec
from concur.validate.parity.worlds import World
from tests.helpers import make_agent
from tests.parity.sglang_scenarios import trace_world, with_limit, world

POLICIES = ("write_through", "write_through_selective", "write_back")
FAST, SLOW = 48.5e9, 4e8
"""Bytes per second: the default, and where transfers take as long as many steps."""


def with_tier(there: World, **settings: Any) -> World:
    """The same world with HiCache."""
    scenario, workload = there
    assert isinstance(scenario.engine, SglangConfig)
    raw = scenario.model_dump()
    raw["engine"]["hierarchical_cache"] = settings
    return parse_scenario(raw), workload


def hicache_trace_world(name: str, *, is_overlapped: bool, page_size: int, **settings: Any) -> World:
    """The beginning of a trace in a starved pool with a host twice as large; the queue in either order."""
    policy = "lpm" if settings.pop("is_sorted") else "fcfs"
    there = trace_world(
        name, "starved", is_overlapped=is_overlapped, page_size=page_size, schedule_policy=policy
    )
    return with_tier(there, **settings)


def turns(num_agents: int, wait_s: float, shared: int) -> list[AgentSpec]:
    """Agents that begin alike and come back when what they have left in the pool is gone."""
    steps = [(200, 20), (60, 30), (50, 25)]
    return [
        make_agent(n, steps, wait_s=wait_s, arrival_s=0.4 * n, group=f"g{n // 5}", shared=shared)
        for n in range(num_agents)
    ]


def returning_world(*, is_overlapped: bool, page_size: int, **settings: Any) -> World:
    """Everything is evicted before it is wanted again, and the host has room for all."""
    there = world(turns(10, 6.0, 50), 720, is_overlapped=is_overlapped, page_size=page_size)
    return with_tier(there, hicache_ratio=8.0, **settings)


def crammed_world(*, is_overlapped: bool, page_size: int, **settings: Any) -> World:
    """The host is smaller than the pool: what goes there soon makes room for others, or finds none."""
    there = world(turns(14, 0.5, 120), 960, is_overlapped=is_overlapped, page_size=page_size)
    return with_tier(there, hicache_ratio=0.9, **settings)


def tiny_world(*, is_overlapped: bool, page_size: int, **settings: Any) -> World:
    """A host too small for most of what is evicted, and turns that are not worth a load."""
    steps = (StepSpec(40, 6, 6, 1.0), StepSpec(50, 4, 5, 1.0), StepSpec(59, 40, 9, 0.0))
    agents = [AgentSpec(f"a{n}", n, f"g{n // 4}", 40, 0.1 * n, steps) for n in range(16)]
    there = world(agents, 192, is_overlapped=is_overlapped, page_size=page_size, chunked_prefill_size=-1)
    return with_tier(there, hicache_ratio=0.1, **settings)


def trifling_world(*, is_overlapped: bool, page_size: int, **settings: Any) -> World:
    """What all begin with stays in the pool, and what each adds to it is not worth a load."""
    steps = (StepSpec(48, 4, 5, 3.0), StepSpec(57, 6, 30, 0.0))
    agents = [AgentSpec(f"a{n}", n, "g", 48, 0.1 * n, steps) for n in range(30)]
    there = world(agents, 256, is_overlapped=is_overlapped, page_size=page_size, max_running_requests=2)
    return with_tier(there, hicache_ratio=8.0, **settings)


def outgrown_world(*, is_overlapped: bool, page_size: int, **settings: Any) -> World:
    """Decodes outgrow the pool: who is retracted finds on the host what was taken from the pool."""
    steps = [(60, 120), (40, 90)]
    agents = [with_limit(make_agent(n, steps, arrival_s=3.0 * (n // 8)), 0) for n in range(24)]
    greedy = {"page_size": page_size, "schedule_conservativeness": 0.0, "chunked_prefill_size": 64}
    return with_tier(world(agents, 960, is_overlapped=is_overlapped, **greedy), hicache_ratio=2.0, **settings)


def cornered_world(*, is_overlapped: bool, page_size: int) -> World:
    """What the one leaves is still on its way to the host when the other, alone, has filled the rest."""
    agents = [with_limit(make_agent(0, [(100, 200)]), 201), make_agent(1, [(120, 10)], arrival_s=0.1)]
    greedy = {"page_size": page_size, "schedule_conservativeness": 0.0, "chunked_prefill_size": -1}
    there = world(agents, 336, is_overlapped=is_overlapped, **greedy)
    return with_tier(there, hicache_write_policy="write_through", bandwidth_bytes_per_s=2e7)


HICACHE_CORNERS: dict[str, Callable[..., World]] = {
    "returning": returning_world,
    "crammed": crammed_world,
    "tiny": tiny_world,
    "trifling": trifling_world,
    "outgrown": outgrown_world,
}
