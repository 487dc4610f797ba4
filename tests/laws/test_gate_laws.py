"""The gate under random events: the window, the queues, and the starvation bound."""

from hypothesis import given, settings
from hypothesis import strategies as st

from concur.gate import AgentGate, Gate, GateOrders, RequestGate
from concur.orders import ORDERS

events = st.lists(
    st.tuples(st.sampled_from(["arrive", "ask", "done", "leave", "resize"]), st.integers(0, 9)), max_size=120
)


class Harness:
    """Replays events that are possible, and keeps its own books."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.time_s = 0.0
        self.here: set[str] = set()
        self.asking: set[str] = set()
        self.in_step: set[str] = set()

    def play(self, event: str, number: int) -> None:
        self.time_s += 1.0
        agent = f"a{number}"
        active_before, window_before = self.gate.active, self.gate.window
        granted: list[str] = []
        if event == "arrive" and agent not in self.here:
            self.gate.arrive(agent, time_s=self.time_s)
            self.here.add(agent)
        elif event == "ask" and agent in self.here - self.asking - self.in_step:
            self.asking.add(agent)
            granted = self.gate.request_step(agent, time_s=self.time_s)
        elif event == "done" and agent in self.in_step:
            self.in_step.remove(agent)
            granted = self.gate.step_done(agent, time_s=self.time_s, context_tokens=number)
        elif event == "leave" and agent in self.here - self.in_step:
            self.here.discard(agent)
            self.asking.discard(agent)
            granted = self.gate.leave(agent, time_s=self.time_s)
        elif event == "resize":
            granted = self.gate.resize(1 + number, time_s=self.time_s)
        self.check(granted, active_before, window_before)

    def check(self, granted: list[str], active_before: int, window_before: int) -> None:
        gate = self.gate
        assert set(granted) <= self.asking, "only who asked may begin"
        assert len(set(granted)) == len(granted)
        self.asking -= set(granted)
        self.in_step |= set(granted)
        assert gate.active + gate.paused + gate.waiting == len(self.here)
        assert len(self.in_step) <= gate.active, "a step needs a slot"
        if gate.active > gate.window:
            assert gate.active <= active_before, "L9: nobody enters while active >= window"
        else:
            assert not self.asking or gate.active == gate.window, "no slot stays free while someone asks"


@given(events, st.sampled_from([AgentGate, RequestGate]), st.integers(1, 4), st.sampled_from(sorted(ORDERS)))
@settings(max_examples=300, deadline=None)
def test_the_window_is_respected_and_no_slot_idles(
    story: list[tuple[str, int]], kind: type[Gate], window: int, order: str
) -> None:
    orders = GateOrders(*[ORDERS[order]] * 3)
    gate = kind(window, orders=orders) if kind is AgentGate else kind(window)
    harness = Harness(gate)
    for event, number in story:
        harness.play(event, number)


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
