"""Fleets in the simulated world: one engine is no fleet, each is itself, and nothing is lost between them."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from concur.controllers import CATALOG
from concur.routing import ROUTERS
from concur.sim.engine.core import EngineCore
from concur.sim.engine.request import Request
from concur.sim.errors import ScenarioError
from concur.sim.record.record import RunRecord, load_record, write_record
from concur.sim.record.rows import TABLES
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.world.cores import core_of, cores_of
from concur.sim.world.histories import FleetHistories
from concur.sim.world.simulate import simulate
from tests.helpers import make_agent, make_scenario, make_workload

GATES: list[dict[str, Any]] = [
    {"gate": "global"},
    {"gate": "per_engine"},
    {"gate": "placement", "move_after_s": 2.0},
    {"gate": "placement", "placement": "most_room", "move_after_s": 0.0},
]
BUSY: dict[str, Any] = {
    "workload": {"generator": "react", "num_agents": 16, "mean_steps": 6},
    "engine": {"num_gpu_blocks": 701, "max_model_len": 11_000},
}
PARAMETERS = {"agent_cap": {"cap": 4}, "request_cap": {"cap": 3}}


SMALL: dict[str, Any] = {"generator": "react", "num_agents": 10, "mean_steps": 4}


def fleet_of(fleet: dict[str, Any], kind: str = "agent_cap", **sections: dict[str, Any]) -> Scenario:
    controller = {"kind": kind, "interval_s": 1.0} | PARAMETERS.get(kind, {})
    return make_scenario(**(BUSY | sections), controller=controller, fleet=fleet)


def tables_of(record: RunRecord) -> dict[str, Any]:
    return {name: record.tables[name].drop_columns(_own(record, name)) for name in TABLES}


def _own(record: RunRecord, name: str) -> list[str]:
    return [column for column in record.tables[name].column_names if column == "engine_index"]


@pytest.mark.parametrize("fleet", GATES[:3], ids=str)  # with the most room first who waits is at no gate
@pytest.mark.parametrize("kind", ["none", "agent_cap", "hybrid", "request_cap"])
def test_a_fleet_of_one_engine_is_no_fleet_in_every_byte_of_its_tables(
    fleet: dict[str, Any], kind: str
) -> None:
    scenario = fleet_of(fleet | {"num_engines": 1}, kind)
    one, none = simulate(scenario), simulate(scenario.model_copy(update={"fleet": None}))
    assert len(one.requests) > 60
    for name, table in tables_of(one).items():
        assert table.equals(none.tables[name]), name
    own = {"engines", "num_moves", "wall_clock_s"}
    assert {key: value for key, value in one.metrics.items() if key not in own} == {
        key: value for key, value in none.metrics.items() if key not in own
    }
    assert one.metrics["num_moves"] == 0


def test_without_a_fleet_nothing_in_a_record_speaks_of_one() -> None:
    record = simulate(make_scenario())
    assert "fleet" not in record.run["scenario"]
    assert "engines" not in record.metrics
    assert not {"engine_index"} & {name for table in record.tables.values() for name in table.column_names}
    assert record.engines.empty


class Logged:
    """An engine that keeps a copy of every request, as it came."""

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self.received: list[Request] = []

    def submit(self, request: Request) -> None:
        self.received.append(deepcopy(request))
        self.core.submit(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)


def run_alone(core: EngineCore, received: Sequence[Request]) -> Iterator[Request]:
    """Yield what an engine finishes that is sent these requests at their times, and has nobody else."""
    waiting = sorted(received, key=lambda request: request.arrival_s)
    while waiting or core.next_change_s < np.inf:
        until_s = waiting[0].arrival_s if waiting else np.inf
        while finished := core.run_until(until_s):
            yield from finished
        while waiting and waiting[0].arrival_s == until_s:
            core.submit(waiting.pop(0))


@pytest.mark.parametrize("fleet", GATES, ids=str)
def test_each_engine_of_a_fleet_does_what_it_would_do_alone_with_what_it_received(
    fleet: dict[str, Any],
) -> None:
    routing = {} if fleet["gate"] == "placement" else {"routing": "power_of_two"}
    scenario = fleet_of(fleet | routing | {"num_engines": 3})
    cores = [Logged(core) for core in cores_of(scenario)]
    record = simulate(scenario, cores=cores)
    assert all(len(core.received) > 15 for core in cores)
    columns = ["agent_index", "call_index", "scheduled_s", "first_token_s", "finished_s", "cached_tokens"]
    for index, core in enumerate(cores):
        calls = record.requests[record.requests["engine_index"] == index]
        alone = [
            (
                each.agent_index,
                each.call_index,
                each.scheduled_s,
                each.first_token_s,
                each.finished_s,
                each.num_cached_tokens,
            )
            for each in run_alone(core_of(scenario.engines[index]), core.received)
        ]
        assert len(alone) == len(core.received)
        assert sorted(alone) == sorted(calls[columns].itertuples(index=False, name=None))


@pytest.mark.parametrize("routing", list(ROUTERS))
@pytest.mark.parametrize("gate", ["global", "per_engine"])
def test_no_call_is_lost_or_made_twice_however_agents_move(routing: str, gate: str) -> None:
    check_conserved(fleet_of({"num_engines": 4, "routing": routing, "gate": gate}, workload=SMALL))


@pytest.mark.parametrize("fleet", GATES, ids=str)
@pytest.mark.parametrize("kind", list(CATALOG))
def test_every_law_works_in_front_of_a_fleet(fleet: dict[str, Any], kind: str) -> None:
    routing = {} if fleet["gate"] == "placement" else {"routing": "least_loaded"}
    record = check_conserved(fleet_of(fleet | routing | {"num_engines": 3}, kind, workload=SMALL))
    deciding = record.ticks["engine_index"].dropna().unique()
    assert sorted(deciding) == ([] if fleet["gate"] == "global" else [0, 1, 2])


def check_conserved(scenario: Scenario) -> RunRecord:
    workload = build_workload(scenario)
    record = simulate(scenario, workload)
    calls = record.requests
    wanted = {(agent.index, call) for agent in workload.agents for call in range(len(agent.steps))}
    assert sorted(zip(calls["agent_index"], calls["call_index"], strict=True)) == sorted(wanted)
    assert len(record.agents) == len(workload.agents)
    parts = record.metrics["engines"]
    for name in ("num_requests", "prompt_tokens", "generated_tokens", "cached_tokens"):
        assert sum(part[name] for part in parts) == record.metrics[name], name
    last = record.engines[record.engines["t_s"] == record.engines["t_s"].max()]
    assert (last["num_in_flight"] == 0).all()
    assert record.timeline["agents_active"].iloc[-1] == 0
    ordered = calls.sort_values(["agent_index", "call_index"])
    changed = ordered["engine_index"].diff().ne(0) & ordered["agent_index"].diff().eq(0)
    assert record.metrics["num_moves"] == changed.sum()
    return record


@pytest.mark.parametrize("kind", ["agent_cap", "request_cap"])
def test_a_window_for_each_engine_is_kept_by_each_engine(kind: str) -> None:
    record = simulate(fleet_of({"num_engines": 3, "gate": "per_engine", "routing": "round_robin"}, kind))
    cap = PARAMETERS[kind]["cap"]
    for _, calls in record.requests.groupby("engine_index"):
        changes = [(time_s, 1) for time_s in calls["submitted_s"]] + [
            (time_s, -1) for time_s in calls["finished_s"]
        ]
        inside = np.cumsum([change for _, change in sorted(changes)])
        assert inside.max() == cap


def test_a_session_stays_where_it_is_and_round_robin_does_not() -> None:
    stays = simulate(fleet_of({"num_engines": 4, "routing": "session", "gate": "per_engine"}))
    moves = simulate(fleet_of({"num_engines": 4, "routing": "round_robin", "gate": "per_engine"}))
    assert stays.metrics["num_moves"] == 0
    assert moves.metrics["num_moves"] > 50
    assert stays.metrics["hit_rate"] > moves.metrics["hit_rate"] + 0.1


def test_origin_only_never_moves_who_has_called_and_a_limit_moves_some() -> None:
    crowd = {"workload": {"generator": "react", "num_agents": 32}}
    never = simulate(
        fleet_of({"num_engines": 3, "gate": "placement", "move_after_s": 1e9}, "ledger", **crowd)
    )
    soon = simulate(fleet_of({"num_engines": 3, "gate": "placement", "move_after_s": 0.5}, "ledger", **crowd))
    assert never.metrics["gate_pauses"] > 10
    assert never.metrics["num_moves"] == 0
    assert soon.metrics["num_moves"] > 0


def test_a_law_for_all_sees_the_sum_of_the_fleet() -> None:
    record = simulate(fleet_of({"num_engines": 3, "routing": "round_robin"}, "concur"))
    for _, tick in record.ticks.iloc[[3, -1]].iterrows():
        before = record.requests[record.requests["first_token_s"] <= tick["t_s"]]
        assert tick["prompt_tokens"] == before["prompt_tokens"].sum()
    merged = record.engines.groupby("t_s")[["num_requests_running", "generation_tokens"]].sum()
    assert (merged["num_requests_running"].to_numpy() == record.timeline["num_requests_running"]).all()
    assert (merged["generation_tokens"].to_numpy() == record.timeline["generation_tokens"]).all()


def test_engines_may_differ_in_pool_block_size_and_speed() -> None:
    engines = [
        {"count": 2},
        {"engine": {"block_size": 32, "num_gpu_blocks": 1001}, "step_time": {"base_s": 0.1}},
    ]
    scenario = fleet_of({"engines": engines, "routing": "round_robin"})
    record = check_conserved(scenario)
    assert [each.engine.unit_tokens for each in scenario.engines] == [16, 16, 32]
    by_engine = record.requests.assign(
        tpot_s=(record.requests["finished_s"] - record.requests["first_token_s"])
        / (record.requests["output_tokens"] - 1)
    ).groupby("engine_index")["tpot_s"]
    assert by_engine.min()[2] > 0.1 > by_engine.max()[0]
    cached = record.requests[record.requests["engine_index"] == 2]["cached_tokens"]
    assert (cached % 32 == 0).all()
    assert cached.sum() > 0


def test_what_is_written_is_named_for_each_size_of_block() -> None:
    histories = FleetHistories([16, 32, 16])
    written = histories.call(histories.begin([]), kept_tokens=0, context_tokens=100)
    lengths = [sum(length for _, length in histories.on(written, index).parts) for index in range(3)]
    assert lengths == [6, 3, 6]
    assert histories.on(written, 0) is histories.on(written, 2)
    assert [tokens for _, tokens in histories.parts(written, 70)] == [64]


def test_a_fleet_survives_the_disk(tmp_path: Any) -> None:
    record = simulate(fleet_of({"num_engines": 2, "routing": "kv_aware", "ttl_s": 60.0}))
    write_record(record, tmp_path / "run")
    back = load_record(tmp_path / "run")
    assert back.run == record.run
    assert all(back.tables[name].equals(record.tables[name]) for name in record.tables)
    again = simulate(parse_scenario(back.run["scenario"]))
    assert all(again.tables[name].equals(record.tables[name]) for name in record.tables)


def test_a_run_that_meets_what_the_fast_engine_cannot_do_starts_again_with_every_engine_a_reference() -> None:
    forks = [make_agent(n, [(64, 16), (16, 16)], group="g", shared=64) for n in range(8)]
    scenario = make_scenario(
        engine={"long_prefill_token_threshold": 16}, fleet={"num_engines": 2, "routing": "round_robin"}
    )
    record = simulate(scenario, make_workload(*forks))
    assert any("block by block" in text for text in record.run["warnings"])
    assert len(record.requests) == 16


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        ({}, "num_engines and engines: give one of them"),
        ({"num_engines": 2, "engines": [{"count": 2}]}, "give one of them"),
        ({"num_engines": 0}, "greater than or equal to 1"),
        ({"num_engines": 2, "routing": "nearest"}, "routing = 'nearest' but must be one of round_robin"),
        ({"num_engines": 2, "routing": "session", "ttl_s": 1.0}, "ttl_s is not a parameter of 'session'"),
        ({"num_engines": 2, "gate": "placement", "routing": "session"}, "asks no router"),
        ({"num_engines": 2, "move_after_s": 3.0}, 'move_after_s is for gate = "placement"'),
        ({"engines": [{"engine": {"block": 1}}]}, "block"),
        ({"num_engines": 2, "routing": "cache_aware", "cache_threshold": 2.0}, "0 to 1"),
    ],
)
def test_what_is_no_fleet_is_refused_in_one_line(fleet: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        make_scenario(fleet=fleet)


def test_cores_are_as_many_as_engines() -> None:
    scenario = fleet_of({"num_engines": 2})
    with pytest.raises(ScenarioError, match="1 cores are given but the scenario has 2 engines"):
        simulate(scenario, core=core_of(scenario))
