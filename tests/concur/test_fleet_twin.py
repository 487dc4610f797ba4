"""One plan for a fleet: what it is told of agents that move, its model of several engines, and its plans."""

from dataclasses import replace
from typing import Any

import pytest

from concur.controllers import make_controllers
from concur.controllers.twin import Twin
from concur.signals import AgentView, CallView, Snapshot
from concur.sim.scenario.scenario import Scenario
from concur.sim.world.simulate import simulate
from concur.twin.batch import Batch
from concur.twin.calls import CallPool
from concur.twin.fleet_model import FleetFuture, FleetRollout
from concur.twin.fleet_plan import FleetPlanner, Part
from concur.twin.future import Future, FutureAgent, FutureCall, Policy
from concur.twin.lives import Lives
from concur.twin.model import Rollout
from tests.concur.test_twin import COSTS
from tests.helpers import make_scenario, make_snapshot
from tests.sim.test_fleets import tables_of

OPEN = Policy(8.0, 0.3, 10**6)
CALL = FutureCall(100.0, 20.0, 1.0, 1.0)


def busy(fleet: dict[str, Any] | None, kind: str) -> Scenario:
    return make_scenario(
        workload={"generator": "react", "num_agents": 40, "mean_steps": 8},
        engine={"num_gpu_blocks": 1201, "max_model_len": 11_000},
        controller={"kind": kind},
        **({"fleet": fleet} if fleet else {}),
    )


@pytest.mark.parametrize("gate", ["global", "per_engine", "placement"])
def test_in_front_of_one_engine_it_is_twin_in_every_byte(gate: str) -> None:
    one = simulate(busy({"num_engines": 1, "gate": gate}, "fleet_twin"))
    none = simulate(busy(None, "twin"))
    assert len(one.ticks) > 10
    for name, table in tables_of(one).items():
        assert table.equals(none.tables[name]), name


@pytest.mark.parametrize(
    "fleet", [{"gate": "per_engine", "routing": "session"}, {"gate": "placement"}], ids=str
)
def test_it_plans_and_each_engine_gets_a_budget_of_its_own(fleet: dict[str, Any]) -> None:
    engines = [{"count": 2}, {"engine": {"num_gpu_blocks": 701}}]
    record = simulate(busy(fleet | {"engines": engines}, "fleet_twin"))
    planned = record.ticks[record.ticks["state"].str.contains("expected_end_s")]
    assert sorted(planned["engine_index"].unique()) == [0, 1, 2]
    last = planned.groupby("engine_index")["admit_tokens"].last()
    assert last.nunique() > 1
    again = simulate(busy(fleet | {"engines": engines}, "fleet_twin"))
    assert again.ticks.equals(record.ticks), "the same readings, the same plans"


def test_laws_of_one_fleet_share_what_they_know_and_those_of_two_do_not() -> None:
    one, other = make_controllers("fleet_twin", 2)
    third, _ = make_controllers("fleet_twin", 2)
    assert isinstance(one, Twin)
    assert isinstance(other, Twin)
    assert isinstance(third, Twin)
    assert one._batch is other._batch
    assert one._batch is not third._batch
    assert make_controllers("twin", 2)[0] is not make_controllers("twin", 2)[1]


def view(agent_id: str, steps: int) -> AgentView:
    return AgentView(agent_id, 0, 0.0, 0.0, None, 100 * steps, steps, None, 0, False, True)


def reading(time_s: float, *agents: AgentView, calls: tuple[CallView, ...] = ()) -> Snapshot:
    return replace(make_snapshot(time_s), agents=agents, calls=calls)


class TestBatch:
    def test_an_agent_that_goes_to_another_gate_has_not_ended_its_life(self) -> None:
        batch = Batch(2)
        batch.observe(reading(1.0, view("a", 3), view("b", 2)), 0)
        batch.observe(reading(1.0), 1)
        batch.observe(reading(2.0, view("b", 2)), 0)  # between the gates
        batch.observe(reading(2.0, view("a", 4)), 1)
        batch.observe(reading(3.0, view("b", 2)), 0)
        assert list(batch.lives._ended) == []

    def test_one_that_moves_to_a_gate_that_has_been_read_already_has_not_either(self) -> None:
        batch = Batch(2)
        batch.observe(reading(1.0), 0)
        batch.observe(reading(1.0, view("a", 3)), 1)
        batch.observe(reading(2.0), 0)
        batch.observe(reading(2.0), 1)  # it went to gate 0 after that was read
        assert list(batch.lives._ended) == []
        batch.observe(reading(3.0, view("a", 4)), 0)
        batch.observe(reading(3.0), 1)
        assert list(batch.lives._ended) == []

    def test_one_that_no_gate_has_any_more_has_ended_it_with_its_last_call(self) -> None:
        batch = Batch(2)
        batch.observe(reading(1.0, view("a", 3)), 0)
        batch.observe(reading(1.0), 1)
        batch.observe(reading(2.0, calls=(CallView("a", 3, 1.5, 0.1, 200, 5, 100, 100),)), 0)
        assert list(batch.lives._ended) == []
        batch.observe(reading(2.0), 1)
        assert list(batch.lives._ended) == [4]

    def test_a_gate_that_is_not_read_any_more_holds_nobody_back(self) -> None:
        batch = Batch(2)
        batch.observe(reading(1.0, view("c", 9)), 1)
        batch.observe(reading(1.0, view("a", 3)), 0)
        batch.observe(reading(50.0), 0)
        assert list(batch.lives._ended) == [3]


def agents_at(*homes: int, contexts: float = 500.0, holds: bool = True) -> tuple[FleetFuture, Future]:
    """Return a fleet of two engines of 2000 tokens, and the same agents before one of them."""
    agents = tuple(FutureAgent(contexts, contexts, holds, 0.0, 0.0, (CALL, CALL)) for _ in homes)
    engine = Future(agents, COSTS, 2000.0, newcomer_tokens=100.0)
    return FleetFuture((engine, engine), homes), engine


class TestFleetModel:
    @pytest.mark.parametrize("move_after_s", [None, 1.0])
    def test_agents_of_one_engine_take_as_long_as_without_the_other(self, move_after_s: float | None) -> None:
        fleet, alone = agents_at(0, 0, 0)
        both = FleetRollout(fleet, (OPEN, OPEN), move_after_s=move_after_s).run()
        assert both.end_s == pytest.approx(Rollout(alone, OPEN).run().end_s)

    def test_two_engines_work_at_the_same_time(self) -> None:
        fleet, alone = agents_at(0, 1, 0, 1)
        both = FleetRollout(fleet, (OPEN, OPEN), move_after_s=None).run().end_s
        _, half = agents_at(0, 0)
        assert both == pytest.approx(Rollout(half, OPEN).run().end_s)
        assert both is not None
        assert both < (Rollout(alone, OPEN).run().end_s or 0)

    def test_who_waits_goes_to_the_idle_engine_only_if_it_may_and_after_its_limit(self) -> None:
        narrow = Policy(8.0, 0.3, 1)
        fleet, _ = agents_at(0, 0, 0, 0, holds=False)
        ends = [
            FleetRollout(fleet, (narrow, narrow), move_after_s=each).run().end_s for each in (None, 0.5, 1e9)
        ]
        assert None not in ends
        stay, move, never = (float(end or 0) for end in ends)
        assert move < 0.8 * stay
        assert never == pytest.approx(stay)

    def test_new_agents_are_taken_by_whichever_engine_has_room(self) -> None:
        narrow = Policy(8.0, 0.3, 1)
        fleet, _ = agents_at(0, 0, 0, 0, contexts=0.0, holds=False)
        stay = FleetRollout(fleet, (narrow, narrow), move_after_s=None).run().end_s or 0
        free = FleetRollout(fleet, (narrow, narrow), move_after_s=1e9).run().end_s or 0
        assert free == pytest.approx(stay / 2, rel=0.05)

    def test_a_run_that_would_decide_the_same_is_not_another_one(self) -> None:
        fleet, _ = agents_at(0, 1, 0, 1)
        rollout = FleetRollout(fleet, (OPEN, OPEN), move_after_s=None)
        rollout.run()
        assert rollout.agrees((replace(OPEN, admit_frac=7.0), OPEN))
        assert not rollout.agrees((OPEN, replace(OPEN, admit_frac=0.1)))


def test_a_plan_tightens_the_engine_that_overflows_and_leaves_the_other_alone() -> None:
    calls = CallPool()
    for number in range(30):
        calls.add(
            CallView(f"x{number % 6}", number // 6, 1.0, 1.0, 600 + 300 * (number // 6), 20, 500, 500), 0
        )
    lives = Lives()
    for _ in range(20):
        lives.ended(8)
    lives.see([3] * 18)
    here = [
        tuple(
            replace(view(f"{name}{n}", 3), context_tokens=1500, index=n, heard_s=30.0) for n in range(number)
        )
        for name, number in (("a", 16), ("b", 2))
    ]
    costs = replace(COSTS, prefill_token_s=1e-3)
    parts = [Part(agents, OPEN, costs, 9000.0, 1.0, 1.0) for agents in here]
    planner = FleetPlanner(0, move_after_s=None)
    for _ in range(6):
        planned = planner.plan(30.0, parts, calls, lives)
        parts = [replace(part, policy=each.policy) for part, each in zip(parts, planned, strict=True)]
    assert parts[0].policy.admit_frac < 2.0
