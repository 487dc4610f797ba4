"""The gate, as stories: who may begin, in what order, and who has to pause."""

import pytest

from concur.errors import GateError, ParameterError
from concur.gate import AgentGate, Gate, GateOrders, RequestGate
from concur.orders import ORDERS, largest, order_named, smallest


def arrive_and_ask(gate: Gate, *agent_ids: str, time_s: float = 0.0) -> list[str]:
    granted = []
    for agent_id in agent_ids:
        gate.arrive(agent_id, time_s=time_s)
        granted += gate.request_step(agent_id, time_s=time_s)
    return granted


def test_agents_are_admitted_up_to_the_window_first_come_first_served() -> None:
    gate = AgentGate(2)
    assert arrive_and_ask(gate, "a", "b", "c", "d") == ["a", "b"]
    assert (gate.active, gate.paused, gate.waiting) == (2, 0, 2)


def test_a_slot_is_held_through_the_tool_wait_and_passes_on_at_the_end() -> None:
    gate = AgentGate(1)
    arrive_and_ask(gate, "a", "b")
    assert gate.step_done("a", time_s=1.0, context_tokens=10) == []
    assert gate.active == 1
    assert gate.request_step("a", time_s=2.0) == ["a"]
    assert gate.leave("a", time_s=3.0) == ["b"]


def test_on_shrink_the_youngest_pause_at_their_step_boundary_and_nobody_is_cut_off() -> None:
    gate = AgentGate(3)
    for number, agent_id in enumerate("abc"):
        arrive_and_ask(gate, agent_id, time_s=float(number))
    assert gate.resize(1, time_s=3.0) == []
    assert gate.active == 3  # all are in a step: none is touched
    gate.step_done("a", time_s=4.0, context_tokens=10)
    assert gate.active == 3  # the oldest is not surplus
    gate.step_done("c", time_s=5.0, context_tokens=10)
    gate.step_done("b", time_s=6.0, context_tokens=10)
    assert (gate.active, gate.paused) == (1, 2)
    assert gate.request_step("b", time_s=7.0) == []
    assert gate.request_step("a", time_s=7.0) == ["a"]


def test_a_surplus_agent_between_two_steps_pauses_at_once() -> None:
    gate = AgentGate(2)
    arrive_and_ask(gate, "a", time_s=0.0)
    arrive_and_ask(gate, "b", time_s=1.0)
    gate.step_done("b", time_s=2.0, context_tokens=10)
    gate.resize(1, time_s=3.0)
    assert (gate.active, gate.paused) == (1, 1)
    assert gate.num_pauses("b") == 1


def test_paused_agents_resume_before_new_ones_are_admitted() -> None:
    gate = AgentGate(2)
    arrive_and_ask(gate, "a", "b", "new")
    gate.resize(1, time_s=1.0)
    gate.step_done("b", time_s=2.0, context_tokens=10)
    gate.request_step("b", time_s=3.0)
    assert gate.resize(2, time_s=4.0) == ["b"]
    assert gate.leave("a", time_s=5.0) == ["new"]


def test_a_paused_agent_in_its_tool_wait_has_its_slot_back_before_a_new_one_gets_in() -> None:
    gate = AgentGate(2)
    arrive_and_ask(gate, "a", "b", "new")
    gate.resize(1, time_s=1.0)
    gate.step_done("b", time_s=2.0, context_tokens=10)
    assert gate.leave("a", time_s=3.0) == []
    assert (gate.active, gate.paused, gate.waiting) == (1, 0, 1)
    assert gate.request_step("b", time_s=4.0) == ["b"]


def test_an_overdue_agent_goes_before_everyone() -> None:
    gate = AgentGate(1, max_wait_s=100.0)
    arrive_and_ask(gate, "a", time_s=0.0)
    arrive_and_ask(gate, "new", time_s=1.0)
    gate.step_done("a", time_s=2.0, context_tokens=10)
    gate.resize(1, time_s=2.0)
    assert gate.request_step("a", time_s=50.0) == ["a"]  # it holds its slot
    assert gate.leave("a", time_s=101.0) == ["new"]


def test_overdue_beats_paused_before_new() -> None:
    gate = AgentGate(2, max_wait_s=100.0)
    arrive_and_ask(gate, "a", "b", "new")
    gate.resize(1, time_s=1.0)
    gate.step_done("b", time_s=90.0, context_tokens=10)
    gate.request_step("b", time_s=95.0)
    assert gate.resize(2, time_s=100.0) == ["new"]
    assert gate.resize(3, time_s=101.0) == ["b"]


def test_orders_choose_whom_to_resume() -> None:
    for order, expected in ((largest, "c"), (smallest, "b")):
        gate = AgentGate(3, orders=GateOrders(resume=order))
        arrive_and_ask(gate, "a", "b", "c")
        gate.resize(1, time_s=1.0)
        gate.step_done("b", time_s=2.0, context_tokens=100)
        gate.step_done("c", time_s=2.0, context_tokens=900)
        gate.request_step("b", time_s=3.0)
        gate.request_step("c", time_s=3.0)
        assert gate.leave("a", time_s=4.0) == [expected]


def test_a_waiting_agent_that_leaves_gives_up_its_place() -> None:
    gate = AgentGate(1)
    arrive_and_ask(gate, "a", "b", "c")
    assert gate.leave("b", time_s=1.0) == []
    assert gate.leave("a", time_s=2.0) == ["c"]
    assert (gate.active, gate.paused, gate.waiting) == (1, 0, 0)


def test_request_gate_frees_the_slot_during_the_tool_wait() -> None:
    gate = RequestGate(1)
    assert arrive_and_ask(gate, "a", "b") == ["a"]
    assert gate.step_done("a", time_s=1.0, context_tokens=10) == ["b"]
    assert gate.request_step("a", time_s=2.0) == []
    assert gate.step_done("b", time_s=3.0, context_tokens=10) == ["a"]


def test_request_gate_is_first_come_first_served_across_old_and_new_agents() -> None:
    gate = RequestGate(1)
    arrive_and_ask(gate, "a")
    arrive_and_ask(gate, "new", time_s=1.0)
    assert gate.step_done("a", time_s=2.0, context_tokens=10) == ["new"]
    gate.arrive("newer", time_s=3.0)
    gate.request_step("a", time_s=4.0)
    gate.request_step("newer", time_s=5.0)
    assert gate.step_done("new", time_s=6.0, context_tokens=10) == ["a"]


def test_events_out_of_order_are_refused() -> None:
    gate = AgentGate(1)
    arrive_and_ask(gate, "a")
    with pytest.raises(GateError, match="arrived twice"):
        gate.arrive("a", time_s=1.0)
    with pytest.raises(GateError, match="before its last one ended"):
        gate.request_step("a", time_s=1.0)
    with pytest.raises(GateError, match="not at the gate"):
        gate.step_done("z", time_s=1.0, context_tokens=0)
    gate.step_done("a", time_s=1.0, context_tokens=1)
    with pytest.raises(GateError, match="had not begun"):
        gate.step_done("a", time_s=1.0, context_tokens=1)


def test_a_window_of_zero_and_an_unknown_order_are_refused() -> None:
    with pytest.raises(ParameterError, match="window = 0"):
        AgentGate(0)
    with pytest.raises(ParameterError, match="window = 0"):
        AgentGate(1).resize(0, time_s=0.0)
    with pytest.raises(ParameterError, match="max_wait_s"):
        AgentGate(1, max_wait_s=0.0)
    with pytest.raises(ParameterError, match="order = 'random'"):
        order_named("random")
    assert set(ORDERS) == {"longest_waiting", "oldest", "youngest", "largest", "smallest"}
