"""The bound in tokens beside the one in agents: who comes in, who pauses, and that nobody is locked out."""

import pytest

from concur.errors import ParameterError
from concur.gate import AgentGate
from concur.signals import UNBOUNDED, TokenBudget


def gate_with(budget: TokenBudget, *contexts: int, window: int = 100) -> AgentGate:
    """Agents that have called once, all in their tool wait."""
    gate = AgentGate(window)
    for number, context in enumerate(contexts):
        agent_id = f"a{number}"
        gate.arrive(agent_id, time_s=float(number))
        gate.request_step(agent_id, time_s=float(number))
        gate.step_done(agent_id, time_s=float(number), context_tokens=context)
    gate.resize(window, budget=budget, time_s=50.0)
    return gate


def active(gate: AgentGate) -> set[str]:
    return {view.agent_id for view in gate.views() if view.holds_slot}


def test_nobody_comes_in_whom_the_budget_has_no_room_for() -> None:
    gate = gate_with(TokenBudget(1000.0, newcomer_tokens=300.0), 400, 400)
    gate.arrive("new", time_s=60.0)
    assert gate.request_step("new", time_s=60.0) == []
    assert gate.leave("a0", time_s=61.0) == ["new"]


def test_who_does_not_fit_is_waited_for_and_not_passed_over() -> None:
    gate = gate_with(TokenBudget(1000.0, newcomer_tokens=700.0), 400)
    gate.arrive("first", time_s=60.0)
    gate.request_step("first", time_s=60.0)
    gate.resize(100, budget=TokenBudget(1000.0, newcomer_tokens=650.0), time_s=61.0)
    gate.arrive("second", time_s=62.0)
    assert gate.request_step("second", time_s=62.0) == []
    assert gate.leave("a0", time_s=63.0) == ["first"], "and the second once it has room"


def test_alone_anyone_fits() -> None:
    gate = gate_with(TokenBudget(100.0, newcomer_tokens=500.0))
    gate.arrive("huge", time_s=60.0)
    assert gate.request_step("huge", time_s=60.0) == ["huge"]
    assert gate.step_done("huge", time_s=61.0, context_tokens=9000) == []
    assert gate.request_step("huge", time_s=62.0) == ["huge"]


def test_over_the_budget_the_youngest_pause_until_the_rest_fits() -> None:
    gate = gate_with(TokenBudget(1000.0, 2000.0), 600, 300, 300, 300)
    assert active(gate) == {"a0", "a1", "a2", "a3"}, "1,500 is not over 2,000"
    gate.request_step("a0", time_s=60.0)
    gate.step_done("a0", time_s=61.0, context_tokens=1200)
    assert active(gate) == {"a0"}, "2,100 is, and 1,500 without the two youngest does not fit 1,000"


def test_a_call_in_flight_is_never_touched() -> None:
    gate = gate_with(UNBOUNDED, 600, 600)
    gate.request_step("a1", time_s=60.0)
    gate.resize(100, budget=TokenBudget(700.0, 700.0), time_s=61.0)
    assert active(gate) == {"a0", "a1"}
    assert gate.request_step("a1", time_s=62.0) == [], "but no further one begins"
    gate.step_done("a1", time_s=63.0, context_tokens=700)
    assert active(gate) == {"a0"}


def test_a_sub_agent_borrows_without_asking_the_budget() -> None:
    gate = gate_with(TokenBudget(1000.0, newcomer_tokens=500.0), 900)
    gate.arrive("child", time_s=60.0, parent="a0")
    assert gate.request_step("child", time_s=60.0) == ["child"]


@pytest.mark.parametrize(
    "budget", [TokenBudget(0.0), TokenBudget(10.0, 5.0), TokenBudget(newcomer_tokens=-1.0)]
)
def test_a_budget_that_cannot_be_is_refused(budget: TokenBudget) -> None:
    with pytest.raises(ParameterError):
        AgentGate(1).resize(1, budget=budget, time_s=0.0)
