"""The gate of a fleet, event by event: who begins where, what goes with whoever moves, what outages do."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concur.errors import GateError
from concur.gate import AgentGate, Gate
from concur.gate.fleet import EngineGates, FleetGate, GlobalGate
from concur.gate.placement import PlacedGates, PlacementRule
from concur.routing import RoutedCall, make_router
from concur.signals import UNBOUNDED, TokenBudget, Usage


def placed(*windows: int, after_s: float = 5.0, most_room: bool = False) -> PlacedGates:
    return PlacedGates([AgentGate(window) for window in windows], PlacementRule(after_s, most_room))


def engines_of(gate: FleetGate, granted: list[str]) -> list[tuple[str, int]]:
    return [(agent_id, gate.take_engine(agent_id)) for agent_id in granted]


def ask(gate: FleetGate, agent_id: str, time_s: float) -> list[tuple[str, int]]:
    if not gate.is_here(agent_id):
        gate.arrive(agent_id, time_s=time_s)
    return engines_of(gate, gate.request_step(agent_id, time_s=time_s))


def call(gate: FleetGate, agent_id: str, time_s: float, tokens: int = 100) -> list[tuple[str, int]]:
    """Ask, and be done at once."""
    begun = ask(gate, agent_id, time_s)
    assert [each for each, _ in begun] == [agent_id]
    done = gate.step_done(agent_id, time_s=time_s, usage=Usage(tokens, 1))
    return begun + engines_of(gate, done)


class TestGlobal:
    def test_asks_the_router_when_a_call_begins_and_not_before(self) -> None:
        gate = GlobalGate(AgentGate(1), make_router("least_loaded"), 2)
        assert ask(gate, "a", 0.0) == [("a", 0)]
        assert ask(gate, "b", 0.0) == []
        assert [load.num_in_flight for load in gate.loads] == [1, 0]
        assert engines_of(gate, gate.leave("a", time_s=1.0)) == [("b", 1)]
        assert [load.num_in_flight for load in gate.loads] == [0, 1]

    def test_forgets_who_gave_up(self) -> None:
        gate = GlobalGate(AgentGate(1), make_router("round_robin"), 2)
        ask(gate, "a", 0.0)
        ask(gate, "b", 0.0)
        gate.withdraw("b", time_s=1.0)
        assert gate.leave("a", time_s=2.0) == []
        assert ask(gate, "b", 3.0) == [("b", 1)]


class TestEngineGates:
    def test_move_an_agent_with_all_that_is_known_of_it(self) -> None:
        gate = EngineGates([AgentGate(2), AgentGate(2)], make_router("round_robin"))
        gate.arrive("a", time_s=0.0, prefix_group="g", shared_prefix_tokens=30)
        assert call(gate, "a", 1.0, tokens=99) == [("a", 0)]
        assert ask(gate, "a", 2.0) == [("a", 1)]
        assert gate.context_tokens("a") == 100, "what it brings"
        gate.step_done("a", time_s=2.0, usage=Usage(199, 1))
        (view,) = gate.views()
        assert (view.context_tokens, view.steps_done, view.admitted_s) == (200, 2, 1.0)
        assert (view.prefix_group, view.shared_prefix_tokens) == ("g", 30)
        assert gate.gates[0].num_members == 0
        assert gate.gates[0].departed.agents == 0, "it has moved, not left"
        gate.leave("a", time_s=3.0)
        assert (gate.gates[1].departed.agents, gate.gates[1].departed.calls) == (1, 2)
        assert gate.num_moves == 1

    def test_hold_a_window_for_each_engine(self) -> None:
        gate = EngineGates([AgentGate(1), AgentGate(1)], make_router("round_robin"))
        assert [ask(gate, name, 0.0) for name in "abcd"] == [[("a", 0)], [("b", 1)], [], []]
        assert engines_of(gate, gate.leave("b", time_s=1.0)) == [("d", 1)]

    def test_count_a_call_for_the_router_from_when_it_was_routed(self) -> None:
        gate = EngineGates([AgentGate(1), AgentGate(9)], make_router("least_loaded"))
        for name in "abcd":
            ask(gate, name, 0.0)
        assert [load.num_in_flight for load in gate.loads] == [2, 2]
        gate.withdraw("c", time_s=1.0)
        assert [load.num_in_flight for load in gate.loads] == [1, 2]

    def test_route_those_again_who_wait_at_an_engine_that_dies(self) -> None:
        gate = EngineGates([AgentGate(1), AgentGate(2)], make_router("round_robin"))
        for name in "abcd":
            ask(gate, name, 0.0)
        waiting = [name for name in "cd" if gate.gate_of(name) == 0]
        granted = gate.set_up(0, is_up=False, time_s=1.0)
        assert waiting == ["c"]
        assert gate.gate_of("c") == 1
        assert engines_of(gate, granted) == []
        assert engines_of(gate, gate.leave("b", time_s=2.0)) == [("c", 1)]
        assert gate.gate_of("a") == 0, "its call is in flight there, until it fails"
        gate.step_done("a", time_s=3.0)
        assert engines_of(gate, gate.leave("d", time_s=3.0)) == []
        assert ask(gate, "a", 4.0) == [("a", 1)]

    def test_keep_a_child_with_a_parent_that_is_at_the_same_gate_only(self) -> None:
        gate = EngineGates([AgentGate(1), AgentGate(1)], make_router("round_robin"))
        call(gate, "parent", 0.0)
        gate.arrive("child", time_s=1.0, parent="parent")
        assert ask(gate, "child", 1.0) == [("child", 1)], "at another gate, on a slot of its own"
        gate.step_done("child", time_s=2.0)
        assert ask(gate, "child", 2.0) == [("child", 0)], "back with its parent, which lends its slot"
        assert gate.lent == 1


class TestPlacement:
    def test_goes_to_the_most_room_and_then_stays(self) -> None:
        gate = placed(2, 3)
        assert [call(gate, name, 0.0) for name in "abcde"] == [
            [("a", 0)], [("b", 1)], [("c", 1)], [("d", 0)], [("e", 1)],
        ]  # fmt: skip
        gate.leave("b", time_s=1.0)
        assert call(gate, "a", 1.0) == [("a", 0)]
        assert gate.num_moves == 0

    def test_waits_at_its_origin_for_its_limit_and_moves_then(self) -> None:
        gate = placed(1, 1, after_s=5.0)
        call(gate, "a", 0.0)
        ask(gate, "b", 0.0)
        assert (gate.gate_of("a"), gate.gate_of("b")) == (0, 1)
        ask(gate, "c", 1.0)
        assert engines_of(gate, gate.expire(time_s=601.0)) == [("c", 0)], "who is silent loses its slot"
        assert ask(gate, "a", 700.0) == []
        assert gate.next_lease_s == 705.0
        assert engines_of(gate, gate.leave("b", time_s=701.0)) == [], "not yet"
        assert engines_of(gate, gate.expire(time_s=704.0)) == []
        assert engines_of(gate, gate.expire(time_s=705.0)) == [("a", 1)]
        assert gate.num_moves == 1

    def test_with_the_most_room_first_takes_whichever_engine_is_free_first(self) -> None:
        gate = placed(1, 1, after_s=1e9, most_room=True)
        call(gate, "a", 0.0)
        ask(gate, "b", 0.0)
        ask(gate, "c", 1.0)
        assert engines_of(gate, gate.expire(time_s=601.0)) == [("c", 0)]
        assert ask(gate, "a", 700.0) == []
        assert (gate.paused, gate.gates[0].num_members) == (1, 1), "it waits at no gate"
        assert engines_of(gate, gate.leave("b", time_s=701.0)) == [("a", 1)]
        assert (gate.paused, gate.num_moves) == (0, 1)

    def test_lets_those_who_wait_at_no_gate_give_up_and_leave(self) -> None:
        gate = placed(1, most_room=True)
        ask(gate, "a", 0.0)
        ask(gate, "b", 0.0)
        ask(gate, "c", 0.0)
        assert gate.waiting == 2
        gate.withdraw("b", time_s=1.0)
        gate.leave("c", time_s=1.0)
        assert gate.waiting == 1
        assert gate.leave("a", time_s=2.0) == []
        assert ask(gate, "b", 3.0) == [("b", 0)]

    def test_moves_at_once_from_an_engine_that_dies(self) -> None:
        gate = placed(1, 1, after_s=1e9)
        ask(gate, "a", 0.0)
        ask(gate, "b", 0.0)
        ask(gate, "c", 0.0)
        assert gate.gate_of("c") == 0
        assert gate.set_up(0, is_up=False, time_s=1.0) == []
        assert gate.gate_of("c") == 1
        gate.step_done("a", time_s=1.0)
        assert ask(gate, "a", 2.0) == []
        assert gate.gate_of("a") == 1
        assert engines_of(gate, gate.leave("b", time_s=3.0)) == [("a", 1)], "it was admitted before"


def test_nobody_moves_back_while_it_moves_though_its_origin_seems_to_have_room_without_it() -> None:
    gate = placed(4, 1)
    gate.resize(0, 4, time_s=0.0, budget=TokenBudget(600.0, 900.0, 50.0))
    assert call(gate, "b", 0.0, tokens=199) == [("b", 0)]
    assert ask(gate, "x", 1.0) == [("x", 1)]
    gate.arrive("a", time_s=2.0, prefix_group="g", shared_prefix_tokens=500)
    assert ask(gate, "a", 2.0) == [], "200, 50 and its prefix are too much; without the prefix they fit"
    assert engines_of(gate, gate.leave("x", time_s=3.0)) == [("a", 1)]
    assert gate.gate_of("a") == 1


def test_an_agent_in_a_call_does_not_move() -> None:
    gate = AgentGate(1)
    gate.arrive("a", time_s=0.0)
    gate.request_step("a", time_s=0.0)
    with pytest.raises(GateError, match="moves while it calls or asks"):
        gate.move_out("a", time_s=1.0)


KINDS: dict[str, Callable[[], FleetGate]] = {
    "global": lambda: GlobalGate(AgentGate(3), make_router("power_of_two"), 3),
    "per engine": lambda: EngineGates(_three(), make_router("round_robin")),
    "origin": lambda: PlacedGates(_three(), PlacementRule(2.0)),
    "most room": lambda: PlacedGates(_three(), PlacementRule(0.0, is_most_room_first=True)),
}


def _three() -> list[Gate]:
    return [AgentGate(1), AgentGate(1), AgentGate(1)]


class Crowd:
    """Agents at the gate of a fleet, and what a test knows of them; events that cannot follow do nothing."""

    def __init__(self, gate: FleetGate) -> None:
        self.gate = gate
        self.waiting: set[str] = set()
        self.calling: set[str] = set()
        self.here: set[str] = set()
        self.time_s = 0.0

    def begin(self, granted: list[str]) -> None:
        for agent_id in granted:
            self.waiting.remove(agent_id)
            self.calling.add(agent_id)
            assert 0 <= self.gate.take_engine(agent_id) < 3

    def ask(self, agent_id: str) -> None:
        if agent_id in self.waiting | self.calling:
            return
        if agent_id not in self.here:
            self.gate.arrive(agent_id, time_s=self.time_s)
        self.here.add(agent_id)
        self.waiting.add(agent_id)
        asked = RoutedCall(agent_id, agent_id, 50)
        self.begin(self.gate.request_step(agent_id, time_s=self.time_s, call=asked))

    def end(self, agent_id: str) -> None:
        if agent_id in self.calling:
            self.calling.remove(agent_id)
            self.begin(self.gate.step_done(agent_id, time_s=self.time_s, usage=Usage(100, 10)))

    def give_up(self, agent_id: str) -> None:
        if agent_id in self.waiting:
            self.waiting.remove(agent_id)
            self.begin(self.gate.withdraw(agent_id, time_s=self.time_s))

    def leave(self, agent_id: str) -> None:
        if agent_id in self.here:
            for group in (self.here, self.waiting, self.calling):
                group.discard(agent_id)
            self.begin(self.gate.leave(agent_id, time_s=self.time_s))

    def resize(self, agent_id: str) -> None:
        number = int(agent_id)
        gate = number % len(self.gate.gates)
        self.begin(self.gate.resize(gate, 1 + number % 3, time_s=self.time_s, budget=UNBOUNDED))

    def fail_or_mend(self, agent_id: str) -> None:
        engine, loads = int(agent_id) % 3, self.gate.loads
        if any(load.is_up for index, load in enumerate(loads) if index != engine):
            self.begin(self.gate.set_up(engine, is_up=not loads[engine].is_up, time_s=self.time_s))

    def wait(self, seconds: float) -> None:
        self.time_s += seconds
        self.begin(self.gate.expire(time_s=self.time_s))

    def check(self) -> None:
        members = sum(each.num_members for each in self.gate.gates)
        assert len(self.here) == members + self.gate.num_nowhere
        assert sum(load.num_in_flight for load in self.gate.loads) >= len(self.calling)

    def go_home(self) -> None:
        """Let everybody get to the end, one after the other, with all engines up."""
        for engine in range(3):
            self.begin(self.gate.set_up(engine, is_up=True, time_s=self.time_s))
        while self.here:
            self.wait(700.0)
            assert self.calling or not self.waiting, "who waits alone is let in"
            for agent_id in sorted(self.calling or self.here):
                self.leave(agent_id)


EVENTS = (
    Crowd.ask,
    Crowd.ask,
    Crowd.end,
    Crowd.end,
    Crowd.give_up,
    Crowd.leave,
    Crowd.resize,
    Crowd.fail_or_mend,
)


@pytest.mark.parametrize("kind", list(KINDS))
@given(events=st.lists(st.tuples(st.integers(0, len(EVENTS) - 1), st.integers(0, 7)), max_size=120))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_each_agent_is_somewhere_once_and_gets_to_its_end(
    kind: str, events: list[tuple[int, int]]
) -> None:
    crowd = Crowd(KINDS[kind]())
    for what, number in events:
        crowd.wait(0.7)
        EVENTS[what](crowd, str(number))
        crowd.check()
    crowd.go_home()
    gate = crowd.gate
    assert (gate.active, gate.paused, gate.waiting) == (0, 0, 0)
    assert [load.num_in_flight for load in gate.loads] == [0, 0, 0]
