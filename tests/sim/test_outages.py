"""Engines of a fleet that die and come back: every call is answered once, and nothing stays in the books."""

from typing import Any

import pytest

from concur.controllers import CATALOG
from concur.routing import ROUTERS
from concur.sim.errors import ScenarioError
from concur.sim.record.fleet import downtimes
from concur.sim.record.record import RunRecord
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario
from concur.sim.show.figures import timeline_figure
from concur.sim.world import simulate as world
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario
from tests.sim.test_fleets import GATES, PARAMETERS, tables_of

ONE_DIES = [{"engine": 1, "at_s": 3.0}]
ALL_IN_TURN = [
    {"engine": number, "at_s": 2.0 + 2 * number, "until_s": 5.0 + 2 * number} for number in range(3)
]
NONE_LEFT = [{"engine": number, "at_s": 3.0, "until_s": 9.0 + number} for number in range(3)]
SGLANG = {"kind": "sglang", "max_total_num_tokens": 11_200, "context_length": 11_000}
ENGINES: dict[str, list[dict[str, Any]]] = {
    "vllm": [{"count": 3}],
    "sglang": [{"count": 3, "engine": SGLANG}],
}


def outage_scenario(
    outages: list[dict[str, Any]], fleet: dict[str, Any], kind: str = "agent_cap", engine: str = "vllm"
) -> Scenario:
    routing = {} if fleet["gate"] == "placement" else {"routing": "least_loaded"}
    return make_scenario(
        workload={"generator": "react", "num_agents": 16, "mean_steps": 5},
        engine={"num_gpu_blocks": 701, "max_model_len": 11_000},
        controller={"kind": kind, "interval_s": 1.0} | PARAMETERS.get(kind, {}),
        fleet=routing | fleet | {"engines": ENGINES[engine], "outages": outages},
    )


def check_conserved(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> RunRecord:
    """Simulate; every call must be answered once, and the gates' books must be empty at the end."""
    worlds: list[Any] = []

    class Kept(world._World):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            worlds.append(self)

    monkeypatch.setattr(world, "_World", Kept)
    workload = build_workload(scenario)
    record = simulate(scenario, workload)
    calls = record.requests.sort_values(["agent_index", "call_index"])
    steps = [
        (agent.index, number, step) for agent in workload.agents for number, step in enumerate(agent.steps)
    ]
    assert list(zip(calls["agent_index"], calls["call_index"], strict=True)) == [each[:2] for each in steps]
    for column, name in (("prompt_tokens", "prompt_tokens"), ("output_tokens", "output_tokens")):
        assert list(calls[column]) == [getattr(step, name) for _, _, step in steps]
    assert len(record.agents) == len(workload.agents)
    fleet = worlds[-1].fleet
    gate = fleet.gate
    assert [load.num_in_flight for load in gate.loads] == [0] * 3
    assert (gate.active, gate.paused, gate.waiting, gate.lent, gate.num_nowhere) == (0, 0, 0, 0, 0)
    assert not list(gate.views())
    books = (
        "_gate_of",
        "_families",
        "_granted",
        "_in_flight",
        "_last_engine",
        "_asked",
        "_routed",
        "_wishes",
    )
    assert not any(getattr(gate, name, None) for name in books)
    assert not any(engine._finished or engine._kept for engine in fleet.engines)
    assert not fleet.shell._turns
    return record


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("fleet", GATES, ids=str)
@pytest.mark.parametrize("outages", [ONE_DIES, ALL_IN_TURN, NONE_LEFT], ids=["one", "in turn", "none left"])
def test_every_call_is_answered_once_and_the_books_are_empty_at_the_end(
    outages: list[dict[str, Any]], fleet: dict[str, Any], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = check_conserved(outage_scenario(outages, fleet, engine=engine), monkeypatch)
    assert record.metrics["num_calls_aborted"] > 0
    for outage in outages:
        calls = record.requests[record.requests["engine_index"] == outage["engine"]]
        until_s = outage.get("until_s", float("inf"))
        served = calls["finished_s"].between(outage["at_s"], until_s, inclusive="neither")
        assert not served.any()


@pytest.mark.parametrize("routing", list(ROUTERS))
@pytest.mark.parametrize("gate", ["global", "per_engine"])
def test_every_router_sends_nobody_to_an_engine_that_is_down(
    routing: str, gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = check_conserved(outage_scenario(ALL_IN_TURN, {"gate": gate, "routing": routing}), monkeypatch)
    assert record.requests["engine_index"].nunique() == 3


@pytest.mark.parametrize("kind", list(CATALOG))
@pytest.mark.parametrize("gate", ["global", "per_engine"])
def test_every_law_survives_the_death_of_an_engine(
    kind: str, gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = check_conserved(outage_scenario(ONE_DIES, {"gate": gate}, kind), monkeypatch)
    late = record.ticks[record.ticks["t_s"] > 3.0]
    assert len(late) > 0
    if gate == "per_engine":  # where its engine is down a law decides nothing
        assert sorted(late["engine_index"].unique()) == [0, 2]


def test_its_cache_is_gone_and_its_agents_are_computed_again_elsewhere() -> None:
    whole = simulate(outage_scenario([], {"gate": "per_engine", "routing": "session"}, "none"))
    died = simulate(outage_scenario(ONE_DIES, {"gate": "per_engine", "routing": "session"}, "none"))
    assert died.metrics["num_moves"] > whole.metrics["num_moves"] == 0
    moved = died.requests.sort_values(["agent_index", "call_index"])
    first = moved[(moved["engine_index"].diff() != 0) & (moved["agent_index"].diff() == 0)]
    private = first["kept_tokens"] - first["cached_tokens"]
    assert len(first) > 2
    assert (private > 0).all()


def test_an_engine_comes_back_with_an_empty_cache_and_its_counters_never_fall() -> None:
    record = simulate(outage_scenario(ALL_IN_TURN, {"gate": "per_engine", "routing": "round_robin"}))
    for index, outage in enumerate(ALL_IN_TURN):
        samples = record.engines[record.engines["engine_index"] == index].set_index("t_s")
        down = samples.loc[outage["at_s"] + 0.5 : outage["until_s"] - 0.5]
        assert len(down) > 1
        assert (down["is_up"] == 0).all()
        assert (down[["num_requests_running", "num_requests_waiting", "kv_cache_usage_frac"]] == 0).all(
            axis=None
        )
        for name in ("prompt_tokens", "generation_tokens", "prefix_cache_queries_tokens", "prefill_s"):
            assert (samples[name].diff().dropna() >= 0).all(), name
            assert samples[name].iloc[-1] > samples[name].loc[outage["at_s"] - 0.5 :].iloc[0], name
    assert any("engine 1 was down from 4.0 s to 7.0 s" in text for text in record.run["warnings"])


def test_the_figure_of_a_run_shows_when_an_engine_was_down() -> None:
    scenario = outage_scenario(ALL_IN_TURN[:2], {"gate": "per_engine"})
    record = simulate(scenario)
    assert downtimes(record.engines) == [(0, 2.0, 5.0), (1, 4.0, 7.0)]
    texts = [text.get_text() for ax in timeline_figure(record).axes for text in ax.texts]
    assert texts.count("engine 1 down") == 4
    assert downtimes(simulate(outage_scenario([], {"gate": "per_engine"})).engines) == []


def test_an_outage_after_the_last_call_changes_nothing() -> None:
    late = simulate(outage_scenario([{"engine": 1, "at_s": 9000.0}], {"gate": "per_engine"}))
    none = simulate(outage_scenario([], {"gate": "per_engine"}))
    for name, table in tables_of(late).items():
        assert table.equals(tables_of(none)[name]), name
    assert late.metrics["num_calls_aborted"] == 0
    assert not any("was down" in text for text in late.run["warnings"])


@pytest.mark.parametrize(
    ("outages", "message"),
    [
        ([{"engine": 3, "at_s": 1.0}], "engine = 3 but must be below 3"),
        ([{"engine": 0, "at_s": 2.0, "until_s": 2.0}], "until_s = 2.0 but must be later than at_s"),
        ([{"engine": 0, "at_s": 2.0}, {"engine": 0, "at_s": 5.0}], "has not been back"),
        ([{"engine": 0, "at_s": 2.0, "until_s": 6.0}, {"engine": 0, "at_s": 5.0}], "has not been back"),
        ([{"engine": number, "at_s": 1.0} for number in range(3)], "all 3 engines die and none comes back"),
    ],
)
def test_outages_that_cannot_be_are_refused_in_one_line(outages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        outage_scenario(outages, {"gate": "per_engine"})
