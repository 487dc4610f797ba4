"""The gate under random events: slots, queues, families, leases, and the starvation bound."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concur.gate import AgentGate, Gate, GateOrders, RequestGate
from concur.orders import ORDERS
from concur.signals import UNBOUNDED, TokenBudget
from tests.laws.gate_watch import Watch

NAMES = 10
EVENTS = [*["arrive"] * 2, *["ask"] * 4, *["done"] * 5, "abandon", "withdraw", "leave", "sleep"]
BUDGETS = (
    UNBOUNDED,
    TokenBudget(3000.0, 4000.0, newcomer_tokens=200.0),
    TokenBudget(500.0, 500.0, newcomer_tokens=900.0),
    UNBOUNDED,
    TokenBudget(1500.0),
)
Story = Iterator[tuple[str, int, int]]


def random_story(rng: random.Random, num_events: int) -> Story:
    """Events on few agents; the window is set now and then, so that a surplus has the time to drain."""
    for number in range(num_events):
        event = "resize" if number % 9 == 0 else rng.choice(EVENTS)
        yield event, rng.randrange(NAMES), rng.randrange(2 * NAMES)


def make_gate(kind: type[Gate], window: int, order: str, **options: float) -> Gate:
    if kind is RequestGate:
        return RequestGate(window, max_wait_s=options.get("max_wait_s", 50.0))
    return AgentGate(window, orders=GateOrders(*[ORDERS[order]] * 3), **({"lease_s": 30.0} | options))


def play(watch: Any, event: str, number: int, other: int, time_s: float) -> float:
    """Play one event if it can happen; return the time after it."""
    agent, time_s = f"a{number}", time_s + 1.0
    if event == "arrive" and agent not in watch.here:
        parent = f"a{other}" if f"a{other}" in watch.here else None
        watch.arrive(agent, time_s=time_s, parent=parent)
    elif event == "resize":
        watch.resize(1 + number, time_s=time_s, budget=BUDGETS[other % len(BUDGETS)])
    elif event == "sleep":
        time_s += 5.0 * other
        watch.expire(time_s=time_s)
    elif agent not in watch.here:
        return time_s
    elif event == "ask" and watch.asking[agent] + watch.calls[agent] < 3:
        watch.request_step(agent, time_s=time_s)
    elif event == "done" and watch.calls[agent]:
        watch.step_done(agent, time_s=time_s, context_tokens=100 * other if other else None)
    elif event == "abandon" and watch.calls[agent]:
        watch.abandon_step(agent, time_s=time_s)
    elif event == "withdraw" and watch.asking[agent]:
        watch.withdraw(agent, time_s=time_s)
    elif event == "leave":
        watch.leave(agent, time_s=time_s)
    return time_s


@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize("kind", [AgentGate, RequestGate])
def test_any_story_keeps_the_books_the_window_and_the_families(kind: type[Gate], order: str) -> None:
    for seed in range(12):
        rng = random.Random(seed)
        watch = Watch(make_gate(kind, rng.randrange(1, 5), order))
        time_s = 0.0
        for event, number, other in random_story(rng, 400):
            time_s = play(watch, event, number, other, time_s)
        for agent in sorted(watch.here):
            watch.leave(agent, time_s=time_s)
        watch.check_empty()


@pytest.mark.parametrize("order", sorted(ORDERS))
def test_whatever_has_happened_everyone_who_asks_gets_a_turn(order: str) -> None:
    """From any state: calls end, parents wait for their children, nobody else comes; and nobody is left."""
    for seed in range(60):
        rng = random.Random(seed)
        watch = Watch(make_gate(AgentGate, rng.randrange(1, 4), order), check_every=5)
        time_s = 0.0
        for event, number, other in random_story(rng, rng.randrange(20, 120)):
            time_s = play(watch, event, number, other, time_s)
        drain(watch, time_s)


def drain(watch: Watch, time_s: float) -> None:
    for _ in range(20 * NAMES):
        if not watch.num_asking:
            return
        time_s += 1.0
        for agent in ending(watch):
            watch.leave(agent, time_s=time_s)
        for agent in sorted(watch.here):
            if watch.calls[agent]:
                watch.step_done(agent, time_s=time_s, context_tokens=1)
                break
    pytest.fail(f"still asking: {+watch.asking}")


def ending(watch: Watch) -> Iterator[str]:
    """Agents that have nothing left to do: neither calls, nor requests, nor children."""
    parents = {view.parent for view in watch.gate.views()}
    return iter(
        [a for a in sorted(watch.here) if not watch.calls[a] and not watch.asking[a] and a not in parents]
    )


@given(st.sampled_from(sorted(ORDERS)), st.integers(1, 3))
def test_an_overdue_agent_gets_the_next_free_slot(order: str, window: int) -> None:
    gate = AgentGate(window, orders=GateOrders(*[ORDERS[order]] * 3), max_wait_s=50.0)
    for number in range(6):
        gate.arrive(f"a{number}", time_s=float(number))
        gate.request_step(f"a{number}", time_s=float(number))
    running = [view.agent_id for view in gate.views() if view.is_in_step]
    longest = min(
        (view for view in gate.views() if not view.is_in_step), key=lambda view: view.waiting_since_s or 0.0
    )
    assert gate.leave(running[0], time_s=100.0) == [longest.agent_id]
