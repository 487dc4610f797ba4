"""The order in which a reading lists the agents says nothing: no decision may depend on it."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concur.controllers import CATALOG, WRAPPERS, make_controller
from concur.measures.residents import read_ledger, shared_tokens
from concur.signals import AgentView
from tests.helpers import make_snapshot

PARAMS: dict[str, dict[str, Any]] = {
    "request_cap": {"cap": 4},
    "agent_cap": {"cap": 4},
    "ledger": {"tool_weight": 0.3, "max_wait_s": 7.0},
    "hybrid": {"max_wait_s": 7.0},
}

views = st.builds(
    lambda flags, steps, tokens, group, shared, since_s: AgentView(
        "",
        0,
        0.0,
        admitted_s=0.0 if steps else None,
        waiting_since_s=None if flags % 2 else since_s,
        context_tokens=tokens if steps else 0,
        steps_done=steps,
        prefix_group=group,
        shared_prefix_tokens=shared,
        is_in_step=flags == 3,
        holds_slot=flags % 2 == 1,
    ),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([0, 10, 100, 333, 700, 701]),
    st.sampled_from([None, "g", "h"]),
    st.sampled_from([0, 50, 300, 650]),
    st.sampled_from([0.0, 3.0, 9.0]),
)


def named(agents: list[AgentView], *, is_numbered: bool) -> list[AgentView]:
    return [
        replace(agent, agent_id=f"a{number}", index=number if is_numbered else 0)
        for number, agent in enumerate(agents)
    ]


@given(st.lists(views, max_size=8), st.randoms(use_true_random=False))
def test_a_prefix_is_counted_once_at_its_longest_by_one_function(
    agents: list[AgentView], rng: random.Random
) -> None:
    longest: dict[str, int] = {}
    for agent in agents:
        if agent.prefix_group is not None:
            longest[agent.prefix_group] = max(longest.get(agent.prefix_group, 0), agent.shared_prefix_tokens)
    shuffled = rng.sample(agents, len(agents))
    assert shared_tokens(shuffled) == shared_tokens(agents) == sum(longest.values())
    holders = [agent for agent in agents if agent.holds_slot]
    assert read_ledger(shuffled, 16).shared_tokens == shared_tokens(holders)


def test_the_ledger_law_counts_a_groups_longest_prefix_in_either_order() -> None:
    agents = [
        AgentView(
            f"a{n}", n, 0.0, steps_done=1, context_tokens=1300, prefix_group="g", shared_prefix_tokens=shared
        )
        for n, shared in enumerate((1300, 600))
    ]
    for order in (agents, agents[::-1]):
        law = make_controller("ledger")
        held = tuple(replace(agent, holds_slot=True) for agent in order)
        law.update(make_snapshot(5.0, num_gpu_blocks=1000, block_size=16, agents=held), active=2)
        assert law.log_state() == {"used_tokens": 1300 + 700 + 2 * 100}


@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
@given(
    st.sampled_from(sorted(CATALOG)),
    st.lists(st.lists(views, max_size=9), min_size=1, max_size=6),
    st.booleans(),
    st.integers(20, 300),
    st.randoms(use_true_random=False),
)
@settings(max_examples=150, deadline=None)
def test_no_decision_depends_on_the_order_of_the_agents(
    wrapper: str | None,
    kind: str,
    story: list[list[AgentView]],
    is_numbered: bool,
    blocks: int,
    rng: random.Random,
) -> None:
    wrappers = (wrapper,) if wrapper else ()
    one, other = (make_controller(kind, wrappers=wrappers, **PARAMS.get(kind, {})) for _ in range(2))
    for number, agents in enumerate(story, start=1):
        listed = named(agents, is_numbered=is_numbered)
        shuffled = rng.sample(listed, len(listed))
        active = sum(agent.holds_slot for agent in listed)
        snapshot = make_snapshot(
            2.0 * number,
            num_gpu_blocks=blocks,
            block_size=16,
            generation_tokens=100 * number,
            prefix_cache_queries_tokens=700 * number,
            prefix_cache_hits_tokens=300 * number,
            num_requests_running=active,
            agents=tuple(listed),
        )
        windows = [
            law.update(replace(snapshot, agents=tuple(each)), active=active)
            for law, each in ((one, listed), (other, shuffled))
        ]
        assert windows[0] == windows[1]
        assert one.log_state() == other.log_state()
