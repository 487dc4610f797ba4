"""The sums of what went through: nobody who had a slot is missed, nothing falls, who left is forgotten."""

import pickle
from dataclasses import fields
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from concur.controllers import make_controller
from concur.gate import AgentGate, Gate
from concur.measures.flows import FlowMeter, Flows
from concur.measures.residents import read_ledger
from concur.signals import AgentView, Departures, Snapshot, Usage
from tests.helpers import make_snapshot

SUMS = [field.name for field in fields(Flows) if field.name != "net_private_tokens"]


def take(
    meter: FlowMeter, *agents: AgentView, time_s: float = 0.0, departed: Departures | None = None
) -> Flows:
    snapshot = make_snapshot(time_s, agents=agents, departed=departed or Departures(), block_size=16)
    return meter.update(snapshot, read_ledger(agents, 16))


def reading(gate: Gate, time_s: float) -> Snapshot:
    agents, calls = tuple(gate.views()), gate.take_calls()
    return make_snapshot(time_s, agents=agents, departed=gate.departed, calls=calls, block_size=16)


def measure(meter: FlowMeter, gate: Gate, time_s: float) -> Flows:
    snapshot = reading(gate, time_s)
    return meter.update(snapshot, read_ledger(snapshot.agents, 16))


def test_an_agent_that_had_a_slot_and_left_is_a_departure_whether_a_step_was_seen_or_not() -> None:
    meter = FlowMeter()
    active = AgentView("a", 0, 0.0, admitted_s=0.0, is_in_step=True, holds_slot=True)
    queued = AgentView("b", 1, 0.0, waiting_since_s=0.0)
    take(meter, active, queued, time_s=1.0)
    flows = take(meter, time_s=2.0)  # both are gone; b never had a slot
    assert (flows.departures, flows.steps) == (1, 1)


def test_agents_that_come_run_and_leave_between_two_readings_are_counted_by_the_gate() -> None:
    gate, meter = AgentGate(2), FlowMeter()
    measure(meter, gate, 0.0)
    for number in range(3):  # one call each, of 100 + 10 * number tokens after a prefix of 60
        name, tokens = f"a{number}", 160 + 10 * number
        gate.arrive(name, time_s=0.1, prefix_group="g", shared_prefix_tokens=60)
        gate.request_step(name, time_s=0.1)
        gate.leave(name, time_s=0.2, context_tokens=tokens)
    gate.arrive("b", time_s=0.3)  # two calls, the last one reported as a step
    for tokens in (50, 80):
        gate.request_step("b", time_s=0.4)
        gate.step_done("b", time_s=0.5, context_tokens=tokens)
    gate.leave("b", time_s=0.6)
    gate.arrive("never in", time_s=0.7)
    gate.leave("never in", time_s=0.8)
    assert gate.departed == Departures(agents=4, calls=5, tokens=330 + 80, call_tokens=330 + 50 + 80)
    flows = measure(meter, gate, 1.0)
    assert (flows.departures, flows.steps) == (4, 5)
    assert (flows.grown_tokens, flows.ended_calls, flows.ended_call_tokens) == (410, 5, 460)


def test_the_lives_that_readings_have_shown_are_not_counted_again() -> None:
    """Next to an agent of one call, one of three whose first two calls were seen leaves as well."""
    gate, meter = AgentGate(2), FlowMeter()
    for name in ("long", "short"):
        gate.arrive(name, time_s=0.0)
        gate.request_step(name, time_s=0.0)
    gate.step_done("long", time_s=0.5, context_tokens=100)
    measure(meter, gate, 1.0)
    gate.request_step("long", time_s=1.1)
    gate.step_done("long", time_s=1.5, context_tokens=150)
    seen = measure(meter, gate, 2.0)
    assert (seen.steps, seen.grown_tokens, seen.departures) == (2, 150, 0)
    gate.request_step("long", time_s=2.1)
    gate.leave("long", time_s=2.5, context_tokens=190)
    gate.leave("short", time_s=2.5, context_tokens=70)
    flows = measure(meter, gate, 3.0)
    assert (flows.steps, flows.departures, flows.grown_tokens) == (4, 2, 190 + 70)
    assert (flows.ended_calls, flows.ended_call_tokens) == (4, 100 + 150 + 190 + 70)


def test_a_last_call_that_a_reading_has_shown_is_not_counted_again() -> None:
    """Live agents may report their last call as any other, and leave a little later."""
    gate, meter = AgentGate(1), FlowMeter()
    gate.arrive("a", time_s=0.0)
    for number in (1, 2):
        gate.request_step("a", time_s=float(number))
        gate.step_done("a", time_s=number + 0.5, context_tokens=100 * number)
    assert measure(meter, gate, 3.0).steps == 2
    gate.leave("a", time_s=3.5)
    flows = measure(meter, gate, 4.0)
    assert (flows.steps, flows.departures, flows.ended_calls) == (2, 1, 2)


def test_calls_tell_what_was_new_in_their_prompts_also_where_histories_are_cut() -> None:
    gate, meter = AgentGate(1), FlowMeter()
    measure(meter, gate, 0.0)
    gate.arrive("a", time_s=0.0, prefix_group="g", shared_prefix_tokens=60)
    for prompt, kept, cached in ((160, 60, 0), (200, 190, 190), (120, 90, 0)):  # the third drops most of it
        gate.request_step("a", time_s=1.0)
        gate.step_done("a", time_s=2.0, usage=Usage(prompt, 40, cached, kept))
    flows = measure(meter, gate, 3.0)
    assert (flows.told_calls, flows.new_tokens) == (3, 100 + 10 + 30)
    assert (flows.first_calls, flows.first_tokens) == (1, 100 + 40)
    gate.request_step("a", time_s=4.0)
    gate.step_done("a", time_s=5.0, context_tokens=300)
    assert measure(meter, gate, 6.0).told_calls == 3, "a context alone tells nothing of the call"


def test_an_id_that_comes_back_begins_anew() -> None:
    meter = FlowMeter()
    old = AgentView("a", 0, 0.0, admitted_s=0.0, steps_done=5, context_tokens=500, holds_slot=True)
    assert take(meter, old, time_s=1.0).steps == 5
    new = AgentView("a", 7, 1.5, admitted_s=1.5, holds_slot=True)
    flows = take(meter, new, time_s=2.0)
    assert (flows.steps, flows.departures) == (6, 1)
    faster = AgentView("a", 7, 1.5, admitted_s=1.5, steps_done=1, context_tokens=40, holds_slot=True)
    assert take(meter, faster, time_s=3.0).grown_tokens == 540


def test_a_gate_that_began_anew_adds_nothing() -> None:
    meter = FlowMeter()
    take(meter, time_s=1.0, departed=Departures(9, 90, 900, 9000))
    before = meter.now
    after = take(meter, time_s=2.0, departed=Departures(1, 1, 10, 10))
    assert [getattr(after, name) for name in SUMS[1:]] == [getattr(before, name) for name in SUMS[1:]]


events = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "ask", "done", "leave", "resize", "read", "read"]), st.integers(0, 5)
    ),
    max_size=150,
)


class Story:
    """Random events that are possible, with ids that come back; counts what really happened."""

    def __init__(self) -> None:
        self.gate = AgentGate(2)
        self.meter = FlowMeter()
        self.readings: list[Flows] = [self.meter.now]
        self.num_departures = self.num_calls = 0
        self.time_s = 0.0

    def play(self, event: str, number: int) -> None:
        self.time_s += 0.25
        name, gate = f"a{number}", self.gate
        view = {view.agent_id: view for view in gate.views()}.get(name)
        if event == "read":
            self.readings.append(measure(self.meter, gate, self.time_s))
        elif event == "resize":
            gate.resize(1 + number, time_s=self.time_s)
        elif event == "arrive" and view is None:
            gate.arrive(name, time_s=self.time_s)
        elif view is None:
            return
        elif event == "ask" and not view.is_in_step and view.waiting_since_s is None:
            gate.request_step(name, time_s=self.time_s)
        elif event == "done" and view.is_in_step:
            gate.step_done(name, time_s=self.time_s, context_tokens=view.context_tokens + 10 + number)
            self.num_calls += 1
        elif event == "leave":
            gate.leave(name, time_s=self.time_s, context_tokens=view.context_tokens + 10)
            self.num_calls += view.is_in_step
            self.num_departures += view.admitted_s is not None


@given(events)
@settings(max_examples=300, deadline=None)
def test_flows_never_fall_and_miss_no_departure(story: list[tuple[str, int]]) -> None:
    told = Story()
    for event, number in [*story, ("read", 0)]:
        told.play(event, number)
    for before, after in pairwise(told.readings):
        assert all(getattr(before, name) <= getattr(after, name) for name in SUMS)
    assert told.meter.now.departures == told.num_departures
    assert told.gate.departed.agents == told.num_departures
    assert told.gate.departed.calls <= told.num_calls


def test_it_remembers_no_more_than_the_agents_here() -> None:
    gate, meter = AgentGate(5), FlowMeter()
    sizes = []
    for number in range(400):
        name = f"a{number:05d}"
        gate.arrive(name, time_s=float(number))
        gate.request_step(name, time_s=float(number))
        measure(meter, gate, number + 0.5)  # seen in its call
        if number % 2:
            gate.step_done(name, time_s=number + 0.6, context_tokens=1000)
            measure(meter, gate, number + 0.7)
        gate.leave(name, time_s=number + 0.8, context_tokens=1000)
        measure(meter, gate, number + 0.9)
        sizes.append(len(pickle.dumps(meter)))
    assert meter.now.departures == 400
    assert sizes[-1] < sizes[9] + 100


def test_turnover_counts_those_that_no_reading_shows_and_not_those_who_never_had_a_slot() -> None:
    def turned(num_unseen: int, num_queued: int) -> float:
        law = make_controller("turnover", initial_window=10)
        counters = {"generation_tokens": 10, "num_requests_running": 4}
        queue = tuple(AgentView(f"q{n}", n, 0.0, waiting_since_s=0.0) for n in range(num_queued))
        law.update(make_snapshot(5.0, agents=queue, **counters), active=10)
        counters["generation_tokens"] = 20
        departed = Departures(agents=num_unseen, calls=num_unseen)
        law.update(make_snapshot(10.0, departed=departed, **counters), active=10)
        state = law.log_state()["turned"]
        assert isinstance(state, float)
        return state

    assert turned(num_unseen=6, num_queued=0) == 0.6
    assert turned(num_unseen=0, num_queued=6) == 0.0
