"""Advice: demand by hand, the band of good caps, when to leave control off, and the command itself."""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from concur.signals import Prefix
from concur.sim.lab.advise import Advice, Demand, Outcome, advise, demand_of
from concur.sim.lab.advise import _band as band
from concur.sim.lab.advise_page import sentences, write_advice
from concur.sim.runs.intervals import Interval
from concur.sim.workload.spec import AgentSpec, StepSpec
from concur.validate.live.fake_server import FakeEngine, FakeServer
from tests.helpers import ROOT, concur, make_agent, make_scenario, make_workload

TRACE = str(ROOT / "examples" / "traces" / "sweagent_demos.jsonl.gz")
ON_H100 = [TRACE, "--model", "Qwen/Qwen3-32B", "--gpu", "h100", "--tp", "2"]


def outcome(policy: str, makespan_s: float) -> Outcome:
    return Outcome(policy, Interval(makespan_s, None), 0.5, 0.1, 1.0, 2.0, 3.0, 4.0, None)


def advice(none_s: float, caps_s: dict[int, float], twin_s: float, hybrid_s: float = 999.0) -> Advice:
    caps = {cap: outcome(f"agent_cap={cap}", each) for cap, each in caps_s.items()}
    best = min(caps_s, key=lambda cap: caps_s[cap])
    laws = (outcome("twin", twin_s), outcome("hybrid", hybrid_s))
    demand = Demand(10, 4000, 400.0, 1000)
    return Advice(demand, outcome("none", none_s), caps, best, band(caps, best), laws, (1.0, 9.0), ())


def test_what_a_group_shares_is_needed_once() -> None:
    agents = [make_agent(n, [(100, 20), (30, 50)], group="g", shared=1000) for n in range(3)]
    demand = demand_of(make_workload(*agents), pool_tokens=500)
    assert demand.peak_tokens == 1000 + 3 * 200
    assert demand.ratio == pytest.approx(3.2)


def test_what_groups_within_groups_and_forks_share_is_needed_once() -> None:
    outer = (Prefix("all", 400),)
    members = [make_agent(n, [(100, 20)], group=f"g{n // 2}", shared=1000) for n in range(4)]
    agents = [replace(member, outer_prefixes=outer) for member in members]
    demand = demand_of(make_workload(*agents), pool_tokens=500)
    assert demand.peak_tokens == 400 + 2 * 600 + 4 * 120
    parent = make_agent(0, [(100, 20), (50, 10)])
    steps = (StepSpec(120, 30, 5, 0.0),)
    fork = AgentSpec("fork", 1, None, 0, 0.0, steps, parent=parent.agent_id, parent_step=0, fork_tokens=120)
    assert demand_of(make_workload(parent, fork), pool_tokens=500).peak_tokens == 180 + 35


def test_the_fastest_law_is_advised_and_the_best_cap_where_laws_are_behind_it() -> None:
    assert advice(200.0, {8: 101.0, 16: 100.0}, twin_s=100.9).recommended.policy == "twin"
    assert advice(200.0, {8: 101.0, 16: 100.0}, twin_s=101.1).recommended.policy == "agent_cap=16"
    assert advice(200.0, {8: 101.0, 16: 100.0}, twin_s=101.1, hybrid_s=90.0).recommended.policy == "hybrid"
    assert advice(200.0, {16: 100.0}, twin_s=100.0).speed_up == 2.0


def test_where_hardly_anything_is_gained_control_is_left_off() -> None:
    one = advice(102.0, {16: 100.0}, twin_s=101.0)
    assert one.recommended is one.none
    assert "Leave admission control off" in " ".join(sentences(one))
    assert advice(102.1, {16: 100.0}, twin_s=101.0).recommended.policy == "twin"


def test_the_window_is_all_caps_next_to_the_best_that_are_as_good() -> None:
    caps = {4: 100.5, 6: 102.0, 8: 100.9, 12: 100.0, 16: 100.99, 20: 101.5, 24: 100.1}
    assert advice(200.0, caps, twin_s=100.0).window == (8, 16)


def test_a_batch_that_thrashes_gets_a_window_and_its_gain() -> None:
    scenario = make_scenario(
        workload={"num_agents": 24},
        engine={"num_gpu_blocks": 1201},
        step_time={"per_prefill_token_s": 1e-4},
    )
    found = advise(scenario, [0, 1])
    assert found.demand.ratio > 2
    assert found.middle_s is not None
    assert found.speed_up > 1.05
    assert found.window[0] <= found.best_cap <= found.window[1] < 24
    assert all(found.best.makespan_s.mean <= each.makespan_s.mean for each in found.caps.values())
    assert len(found.changes) == 3
    assert all(each.none_s > 0 for each in found.changes)
    assert math.isfinite(found.none.ttft_p95_s)


def test_the_command_advises_on_a_trace_and_leaves_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "advise", *ON_H100, "--out", str(tmp_path / "page"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recommended"] == "none", "22 agents of 7 thousand tokens fit"
    assert json.loads((tmp_path / "page" / "advice.json").read_text()) == found
    page = (tmp_path / "page" / "index.html").read_text()
    assert '<p class="verdict">Leave admission control off.</p>' in page
    assert "<dd>22 of sweagent_demos.jsonl.gz</dd>" in page
    assert "<dd>Qwen/Qwen3-32B</dd>" in page
    assert "<dd>0, 1</dd>" in page
    assert found["warnings"]
    assert html.escape(found["warnings"][0]) in page[page.index("What to know of these runs") :]
    (curve,) = json.loads(re.findall(r'id="points">(.*?)</script>', page)[0])
    assert {name for name, *_ in curve["others"]} == {"none", "twin", "hybrid"}


def test_the_curve_of_caps_leaves_out_those_that_would_flatten_the_rest(tmp_path: Path) -> None:
    found = advice(100.0, {1: 900.0, 8: 200.0, 16: 80.0}, 79.0, 120.0)
    page = write_advice(found, tmp_path, title="t", facts={}).read_text()
    (curve,) = json.loads(re.findall(r'id="points">(.*?)</script>', page)[0])
    assert curve["caps"] == [[8, 200.0], [16, 80.0]]
    assert '<p class="verdict">Use twin: 1.27 times as fast as no control.</p>' in page


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([TRACE], "name --model and --gpu"),
        ([TRACE, "--model", "gpt-9", "--gpu", "h100"], "no profile of gpt-9 on h100 with tp = 1 is shipped"),
        (["examples/react.toml", "--gpu", "h100"], "a scenario says what its engine is"),
        ([*ON_H100, "--num-gpus", "3"], "num_gpus = 3 but must be a multiple of tp = 2"),
        ([*ON_H100, "--num-gpus", "64"], "22 agents cannot be shared among 32 engines"),
        ([*ON_H100, "--url", "http://127.0.0.1:9"], "no vLLM server answers there"),
    ],
)
def test_an_engine_that_is_not_known_is_refused(
    words: list[str], problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "advise", *words) == 2
    assert problem in capsys.readouterr().err


def test_several_engines_share_the_agents(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "advise", *ON_H100, "--num-gpus", "8", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_engines"] == 4
    assert found["demand"]["num_agents"] == 6, "22 among 4, rounded up"


def test_a_running_server_says_its_pool_and_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(FakeEngine(num_gpu_blocks=4001, max_model_len=30_000)).in_thread() as server:
        assert concur(monkeypatch, "advise", *ON_H100, "--url", server.url, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["demand"]["pool_tokens"] == 64_000
    assert found["recommended"] != "none", "22 agents of 7 thousand tokens do not fit"


def test_calls_within_the_slo_are_said_where_control_is_worth_it() -> None:
    found = advice(200.0, {16: 100.0}, twin_s=100.0)
    limits = {"none": 0.25, "twin": 0.75, "hybrid": 0.5}
    laws = tuple(replace(law, slo_attainment=limits[law.policy]) for law in found.laws)
    found = replace(found, none=replace(found.none, slo_attainment=0.25), laws=laws)
    assert "within the limits of [slo]: 75.0 %, without control 25.0 %" in " ".join(sentences(found))
