"""The gate under random events: slots, queues, families, leases, and the starvation bound."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concur.gate import AgentGate, Gate, GateOrders, RequestGate
from concur.orders import ORDERS
from tests.laws.gate_watch import Watch

NAMES = 10
events = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "arrive",
                "arrive",
                "ask",
                "ask",
                "ask",
                "done",
                "done",
                "abandon",
                "withdraw",
                "leave",
                "resize",
                "sleep",
            ]
        ),
        st.integers(0, NAMES - 1),
        st.integers(0, 2 * NAMES),
    ),
    max_size=150,
)


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
        watch.resize(1 + number, time_s=time_s)
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


@given(
    events,
    st.sampled_from([AgentGate, AgentGate, RequestGate]),
    st.integers(1, 4),
    st.sampled_from(sorted(ORDERS)),
)
@settings(max_examples=600, deadline=None)
def test_any_story_keeps_the_books_the_window_and_the_families(
    story: list[tuple[str, int, int]], kind: type[Gate], window: int, order: str
) -> None:
    watch = Watch(make_gate(kind, window, order))
    time_s = 0.0
    for event, number, other in story:
        time_s = play(watch, event, number, other, time_s)
    for agent in sorted(watch.here):
        watch.leave(agent, time_s=time_s)
    watch.check_empty()


@given(events, st.sampled_from(sorted(ORDERS)), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_whatever_has_happened_everyone_who_asks_gets_a_turn(
    story: list[tuple[str, int, int]], order: str, window: int
) -> None:
    """From any state: calls end, parents wait for their children, nobody else comes; and nobody is left."""
    watch = Watch(make_gate(AgentGate, window, order))
    time_s = 0.0
    for event, number, other in story:
        time_s = play(watch, event, number, other, time_s)
    for _ in range(20 * NAMES):
        if not +watch.asking:
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
