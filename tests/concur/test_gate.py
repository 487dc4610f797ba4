"""The gate, as stories: who may begin, in what order, and who has to pause."""

import math
from typing import Any

import pytest

from concur.errors import GateError, ParameterError
from concur.gate import AgentGate, Gate, GateOrders, RequestGate
from concur.orders import ORDERS, Order, largest, order_named, smallest
from concur.signals import CallView, Usage


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
    with pytest.raises(GateError, match="'nobody' is not at the gate"):
        gate.arrive("b", time_s=1.0, parent="nobody")
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


# Surplus


@pytest.mark.parametrize(("order", "growth_tokens"), [(smallest, 1000), (largest, -1000)])
def test_who_has_to_pause_is_chosen_once_whatever_becomes_of_the_keys(
    order: Order, growth_tokens: int
) -> None:
    """At each boundary it is the other one's turn by the keys of the moment: so nobody would ever pause."""
    gate, tokens = AgentGate(2, orders=GateOrders(pause=order)), 100_000
    arrive_and_ask(gate, "a", "b")
    for name in "ab":
        gate.step_done(name, time_s=0.0, context_tokens=tokens)
        gate.request_step(name, time_s=0.0)
    gate.resize(1, time_s=1.0)
    for step in range(40):
        name = "ba"[step % 2]
        if name in running(gate):
            tokens += growth_tokens
            gate.step_done(name, time_s=2.0 + step, context_tokens=tokens)
            gate.request_step(name, time_s=2.5 + step)
    assert (gate.active, gate.paused) == (1, 1)


def running(gate: Gate) -> set[str]:
    return {view.agent_id for view in gate.views() if view.is_in_step}


def test_a_window_that_keeps_moving_leaves_nothing_behind() -> None:
    gate = AgentGate(5)
    arrive_and_ask(gate, *"abcde")
    for name in "abcde":
        gate.step_done(name, time_s=1.0, context_tokens=10)
    for number in range(2000):
        gate.resize(1 + number % 5, time_s=2.0 + number)
    for queue in (gate._idle, gate._paused, gate._by_wait):
        assert len(queue) < 150


# Several calls at once


def test_calls_of_one_agent_at_once_share_its_slot_and_the_longest_counts() -> None:
    gate = AgentGate(1)
    assert arrive_and_ask(gate, "a", "b") == ["a"]
    assert gate.request_step("a", time_s=0.0) == ["a"]
    (view, _) = gate.views()
    assert (view.num_calls, view.is_in_step, gate.active) == (2, True, 1)
    gate.step_done("a", time_s=1.0, context_tokens=5000)
    gate.step_done("a", time_s=2.0, context_tokens=80)  # a title, say
    assert gate.context_tokens("a") == 5000
    gate.request_step("a", time_s=3.0)
    gate.step_done("a", time_s=4.0, context_tokens=300)  # a history may shrink
    assert gate.context_tokens("a") == 300
    assert gate.leave("a", time_s=5.0) == ["b"]


def test_calls_that_wait_together_begin_together() -> None:
    gate = AgentGate(1)
    arrive_and_ask(gate, "a", "b")
    assert gate.request_step("b", time_s=1.0) == []
    assert gate.leave("a", time_s=2.0) == ["b", "b"]


def test_a_surplus_agent_begins_no_further_call_beside_those_in_flight() -> None:
    gate = AgentGate(2)
    arrive_and_ask(gate, "a", "b")
    gate.resize(1, time_s=1.0)
    assert gate.request_step("b", time_s=2.0) == []
    gate.step_done("b", time_s=3.0, context_tokens=1)
    assert (gate.active, gate.paused) == (1, 1)
    assert gate.leave("a", time_s=4.0) == ["b"]


def test_calls_at_once_are_so_many_calls_at_a_request_gate() -> None:
    gate = RequestGate(2)
    arrive_and_ask(gate, "a")
    assert gate.request_step("a", time_s=0.0) == ["a"]
    assert gate.request_step("a", time_s=0.0) == []
    assert gate.active == 2
    assert gate.step_done("a", time_s=1.0, context_tokens=1) == ["a"]


@pytest.mark.parametrize("gate", [AgentGate(1), RequestGate(1)])
def test_a_call_that_was_granted_and_not_made_is_no_step(gate: Gate) -> None:
    arrive_and_ask(gate, "a", "b")
    gate.abandon_step("a", time_s=1.0)
    view = next(gate.views())
    assert (view.steps_done, view.num_calls) == (0, 0)


@pytest.mark.parametrize("tokens", [-1, 2.5, True, 10**10, "7"])
def test_a_context_that_is_no_count_of_tokens_is_refused_and_changes_nothing(tokens: Any) -> None:
    gate = AgentGate(1)
    arrive_and_ask(gate, "a")
    with pytest.raises(ParameterError, match="context_tokens"):
        gate.step_done("a", time_s=1.0, context_tokens=tokens)
    assert running(gate) == {"a"}
    with pytest.raises(ParameterError, match="shared_prefix_tokens"):
        gate.arrive("b", time_s=1.0, shared_prefix_tokens=tokens)
    assert not gate.is_here("b")


# Giving up


def test_who_gives_up_and_asks_again_soon_keeps_its_place_and_its_age() -> None:
    gate = AgentGate(1, max_wait_s=600.0, ask_again_s=60.0)
    arrive_and_ask(gate, "holder", "a", "b")
    for number in range(7):  # it gives up after 100 s each time, and asks again 10 s later
        gate.withdraw("a", time_s=100.0 + 110.0 * number)
        assert gate.request_step("a", time_s=110.0 + 110.0 * number) == []
    view = next(view for view in gate.views() if view.agent_id == "a")
    assert view.waiting_since_s == 0.0
    assert gate.leave("holder", time_s=800.0) == ["a"]


def test_who_comes_back_too_late_is_new() -> None:
    gate = AgentGate(1, ask_again_s=60.0)
    arrive_and_ask(gate, "holder", "a", "b")
    gate.withdraw("a", time_s=10.0)
    gate.request_step("a", time_s=71.0)
    assert gate.leave("holder", time_s=80.0) == ["b"]


@pytest.mark.parametrize("gate", [AgentGate(1), RequestGate(1)])
def test_who_leaves_while_it_waits_and_comes_back_soon_has_waited_all_along(gate: Gate) -> None:
    arrive_and_ask(gate, "holder", "a")
    arrive_and_ask(gate, "b", time_s=1.0)
    gate.leave("a", time_s=100.0)
    gate.arrive("a", time_s=130.0)
    gate.request_step("a", time_s=130.0)
    assert gate.leave("holder", time_s=140.0) == ["a"]
    assert gate.leave("a", time_s=150.0) == ["b"]
    for number in range(1000):
        arrive_and_ask(gate, f"n{number}", time_s=200.0 + number)
        gate.leave(f"n{number}", time_s=200.0 + number)
    assert len(gate._left_waiting) <= 61, "those of the last minute"


# Leases


def test_a_silent_agent_loses_its_slot_and_comes_back_as_a_paused_one() -> None:
    gate = AgentGate(1, lease_s=600.0)
    arrive_and_ask(gate, "hangs", "b", "c")
    gate.step_done("hangs", time_s=10.0, context_tokens=70)
    assert gate.next_lease_s == 610.0
    assert gate.expire(time_s=609.9) == []
    assert gate.expire(time_s=610.0) == ["b"]
    assert (gate.active, gate.paused, gate.waiting) == (1, 1, 1)
    assert gate.context_tokens("hangs") == 70, "its history stays in the books"
    assert gate.request_step("hangs", time_s=700.0) == []
    assert gate.leave("b", time_s=800.0) == ["hangs"], "before new ones"


def test_a_running_call_is_never_silent() -> None:
    gate = AgentGate(1, lease_s=10.0)
    arrive_and_ask(gate, "a", "b")
    assert gate.expire(time_s=1e6) == []
    assert running(gate) == {"a"}


def test_a_slot_goes_to_no_paused_agent_that_is_silent() -> None:
    gate = AgentGate(2, lease_s=100.0)
    arrive_and_ask(gate, "a", "b", "new")
    gate.resize(1, time_s=1.0)
    gate.step_done("b", time_s=2.0, context_tokens=1)
    assert gate.leave("a", time_s=200.0) == ["new"]


def test_a_parent_whose_child_works_is_not_silent() -> None:
    gate = AgentGate(2, lease_s=100.0)
    arrive_and_ask(gate, "p")
    gate.step_done("p", time_s=1.0, context_tokens=1)
    gate.arrive("c", time_s=1.0, parent="p")
    assert gate.request_step("c", time_s=1.0) == ["c"]
    gate.expire(time_s=150.0)
    assert gate.active == 2
    gate.leave("c", time_s=200.0)
    gate.expire(time_s=299.0)
    assert gate.active == 1
    gate.expire(time_s=300.0)
    assert gate.active == 0


def test_hung_tools_do_not_stop_the_healthy() -> None:
    gate = AgentGate(2, lease_s=600.0)
    names = [f"a{number}" for number in range(20)]
    arrive_and_ask(gate, *names)
    for name in names[:2]:
        gate.step_done(name, time_s=1.0, context_tokens=1)  # and their tools never return
    done, time_s, ready = 0, 601.0, gate.expire(time_s=601.0)
    while ready:
        time_s += 1.0
        ready = [name for agent in ready for name in gate.leave(agent, time_s=time_s)]
        done += 1
    assert (gate.active, gate.waiting, gate.paused) == (0, 0, 2)


# Families


def family(gate: Gate, *children: str) -> None:
    """A parent whose call has ended, and children that have arrived."""
    arrive_and_ask(gate, "p")
    gate.step_done("p", time_s=1.0, context_tokens=4000)
    for child in children:
        gate.arrive(child, time_s=2.0, parent="p")


def test_a_parent_lends_its_slot_to_one_child_after_the_other() -> None:
    gate = AgentGate(1)
    family(gate, "c", "d")
    assert gate.request_step("c", time_s=3.0) == ["c"]
    assert gate.request_step("d", time_s=3.0) == []
    assert (gate.active, gate.lent, gate.paused, gate.waiting) == (1, 1, 0, 1)
    parent = next(gate.views())
    assert (parent.lends_slot, parent.holds_slot) == (True, False)
    assert gate.leave("c", time_s=4.0) == ["d"]
    assert gate.leave("d", time_s=5.0) == []
    assert (gate.active, gate.lent) == (1, 0), "the slot is back"
    assert gate.request_step("p", time_s=6.0) == ["p"]


def test_children_take_free_slots_first_and_come_before_strangers() -> None:
    gate = AgentGate(2)
    family(gate, "c", "d", "e")
    gate.arrive("stranger", time_s=2.0)
    assert gate.request_step("c", time_s=3.0) == ["c"]
    assert gate.lent == 0
    assert gate.request_step("stranger", time_s=3.0) == []
    assert gate.request_step("d", time_s=4.0) == ["d"]
    assert gate.request_step("e", time_s=5.0) == []
    assert gate.leave("c", time_s=6.0) == ["e"]


def test_a_parent_that_goes_on_beside_its_child_has_its_slot_back_at_the_childs_step_boundary() -> None:
    gate = AgentGate(1)
    family(gate, "c")
    gate.request_step("c", time_s=3.0)
    assert gate.request_step("p", time_s=4.0) == []
    assert gate.step_done("c", time_s=5.0, context_tokens=10) == ["p"]
    assert gate.request_step("c", time_s=6.0) == []
    assert gate.step_done("p", time_s=7.0, context_tokens=10) == ["c"], "and so on in turns"


def test_a_slot_goes_down_the_line_and_up_again() -> None:
    gate = AgentGate(1)
    family(gate, "c")
    gate.request_step("c", time_s=3.0)
    gate.step_done("c", time_s=4.0, context_tokens=10)
    gate.arrive("g", time_s=4.0, parent="c")
    assert gate.request_step("g", time_s=5.0) == ["g"]
    assert (gate.active, gate.lent) == (1, 2)
    gate.leave("g", time_s=6.0)
    gate.leave("c", time_s=7.0)
    assert (gate.active, gate.lent) == (1, 0)
    assert gate.request_step("p", time_s=8.0) == ["p"]


def test_a_borrower_whose_lender_leaves_keeps_the_slot() -> None:
    gate = AgentGate(1)
    family(gate, "c")
    gate.request_step("c", time_s=3.0)
    gate.arrive("other", time_s=3.0)
    gate.request_step("other", time_s=3.0)
    assert gate.leave("p", time_s=4.0) == []
    assert (gate.active, gate.lent) == (1, 0)
    assert gate.leave("c", time_s=5.0) == ["other"]


def test_a_slot_that_was_lent_comes_home_even_before_strangers_that_are_overdue() -> None:
    gate = AgentGate(1, max_wait_s=10.0)
    family(gate, "c")
    arrive_and_ask(gate, "stranger")
    gate.request_step("c", time_s=3.0)
    assert gate.leave("c", time_s=100.0) == []
    assert gate.request_step("p", time_s=101.0) == ["p"]


def test_a_shrunken_window_pauses_a_family_together() -> None:
    gate = AgentGate(2)
    arrive_and_ask(gate, "old")
    family(gate, "c")
    gate.request_step("c", time_s=3.0)
    gate.resize(1, time_s=4.0)
    gate.step_done("c", time_s=5.0, context_tokens=10)
    assert (gate.active, gate.lent, gate.paused) == (1, 0, 2)
    assert gate.request_step("c", time_s=6.0) == []
    assert gate.leave("old", time_s=7.0) == ["c"]


def test_a_lease_that_has_run_out_has_run_out_for_everyone() -> None:
    """0.1 + 0.2 is more than 0.3 in floating point: taken by one sum and given by another, for ever."""
    for heard_s, lease_s in ((0.1, 0.2), (0.7, 0.1), (1.1, 2.2), (3.3, 120.0), (1e6 / 3, 120.0)):
        gate = AgentGate(1, lease_s=lease_s)
        arrive_and_ask(gate, "a")
        gate.step_done("a", time_s=heard_s, context_tokens=1)
        gate.expire(time_s=heard_s + lease_s)
        assert gate.active == 0
        assert gate.next_lease_s == math.inf


def test_a_slot_that_comes_back_to_a_silent_lender_sets_no_lease_in_the_past() -> None:
    """A shell that waits until `next_lease_s` could not wait for a time that is over."""
    gate = AgentGate(1, lease_s=600.0)
    arrive_and_ask(gate, "parent")
    gate.step_done("parent", time_s=1.0, context_tokens=10)
    gate.arrive("child", time_s=2.0, parent="parent")
    assert gate.request_step("child", time_s=2.0) == ["child"], "lent"
    gate.step_done("child", time_s=700.0, context_tokens=10)
    gate.expire(time_s=1300.0)
    assert gate.next_lease_s >= 1300.0
    assert gate.active == 0


def test_ended_calls_are_told_once_with_what_is_known_of_them() -> None:
    gate = AgentGate(2)
    gate.arrive("a", time_s=0.0, prefix_group="g", shared_prefix_tokens=100)
    gate.request_step("a", time_s=1.0)
    gate.step_done("a", time_s=5.0, usage=Usage(300, 40, cached_tokens=96))
    gate.request_step("a", time_s=7.5)
    gate.leave("a", time_s=9.0, usage=Usage(400, 10, kept_tokens=200))
    first, second = gate.take_calls()
    assert gate.take_calls() == ()
    assert first == CallView("a", 0, 5.0, None, 300, 40, 100, 96), (
        "a first prompt keeps the shared prefix at most"
    )
    assert second == CallView("a", 1, 9.0, 2.5, 400, 10, 200, None)


def test_a_usage_that_is_none_is_refused() -> None:
    gate = AgentGate(1)
    arrive_and_ask(gate, "a")
    with pytest.raises(ParameterError, match="cached_tokens"):
        gate.step_done("a", time_s=1.0, usage=Usage(10, 5, cached_tokens=-1))
