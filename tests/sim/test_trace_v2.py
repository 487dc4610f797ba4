"""Version 2 of the trace format: families, nested prefixes, arrivals; and what a run makes of them."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concur.signals import Prefix
from concur.sim.errors import ScenarioError, TraceError
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario
from concur.sim.traces.format import Prefix as TracePrefix
from concur.sim.traces.format import TraceAgent, TraceStep, schema, to_line
from concur.sim.traces.trace import read_trace
from concur.sim.workload.from_trace import TraceSelection, select_agents
from concur.sim.world.simulate import simulate
from tests.helpers import TRACES, make_scenario

STEP: dict[str, Any] = {"new_prompt_tokens": 10, "output_tokens": 5, "tool_latency_s": 2.0}
NESTED = [{"group": "system", "tokens": 60}, {"group": "task-7", "tokens": 20}]


def line(agent_id: str, **fields: Any) -> dict[str, Any]:
    return {"agent_id": agent_id, "steps": [STEP, STEP]} | fields


def child(agent_id: str, parent: str, **fields: Any) -> dict[str, Any]:
    return line(agent_id, parent=parent, parent_step=0, **fields)


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    return path


def on_trace(path: Path, *, seed: int = 0, **keys: Any) -> Scenario:
    scenario = make_scenario(seed=seed)
    section = type(scenario.workload).model_validate({"trace": str(path)} | keys)
    return scenario.model_copy(update={"workload": section})


def ids(path: Path, **keys: Any) -> list[str]:
    return [agent.agent_id for agent in build_workload(on_trace(path, **keys)).agents]


def test_nested_prefixes_and_their_short_form(tmp_path: Path) -> None:
    short = line("b", prefix_group="system", shared_prefix_tokens=60)
    path = write(tmp_path / "t.jsonl", line("a", prefixes=NESTED), short)
    (nested, plain), _ = select_agents(read_trace(path), TraceSelection())
    assert (nested.prefix_group, nested.shared_prefix_tokens) == ("task-7", 80)
    assert nested.levels == (Prefix("system", 60), Prefix("task-7", 20))
    assert nested.steps[0].prompt_tokens == 90
    assert plain.levels == (Prefix("system", 60),)


def test_children_come_with_their_parents_in_any_order_of_lines(tmp_path: Path) -> None:
    grandchild = child("a/0/0", "a/0", joins=False, fork_tokens=15, spawn_delay_s=0.5)
    path = write(tmp_path / "t.jsonl", grandchild, line("b"), child("a/0", "a"), line("a"), child("a/1", "a"))
    agents, losses = select_agents(read_trace(path), TraceSelection())
    assert [agent.agent_id for agent in agents] == ["b", "a", "a/0", "a/0/0", "a/1"]
    assert [agent.index for agent in agents] == list(range(5))
    assert losses.num_agents_skipped == losses.num_parents == 0
    fork = agents[3]
    assert (fork.parent, fork.parent_step, fork.joins, fork.fork_tokens) == ("a/0", 0, False, 15)
    assert fork.steps[0].prompt_tokens == 25
    assert ids(path, num_agents=1) == ["b"]
    assert ids(path, num_agents=2) == ["b", "a", "a/0", "a/0/0", "a/1"]


def test_who_is_left_out_takes_its_children_along(tmp_path: Path) -> None:
    stale = [line("old", fresh_start=False), child("old/0", "old"), child("old/0/0", "old/0")]
    path = write(tmp_path / "t.jsonl", *stale, line("a"), child("a/0", "a"))
    workload = build_workload(on_trace(path))
    assert [agent.agent_id for agent in workload.agents] == ["a", "a/0"]
    assert workload.num_agents_skipped == 3
    assert "2 sub-agents left out: whoever starts them is left out" in workload.warnings
    assert workload.lost == {"num_not_fresh": 1, "num_orphans": 2}
    alone = build_workload(on_trace(path, sub_agents="left_out"))
    assert [agent.agent_id for agent in alone.agents] == ["a"]
    assert any("1 sub-agent left out: workload.sub_agents = 'left_out'" in each for each in alone.warnings)


def test_recorded_arrivals_are_kept_if_asked_for_and_else_said(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line("a", arrival_s=3.5), child("a/0", "a"), line("b", arrival_s=0.0))
    kept = build_workload(on_trace(path, arrival="trace"))
    assert [agent.arrival_s for agent in kept.agents] == [3.5, 0.0, 0.0]
    assert kept.warnings == ()
    batch = build_workload(on_trace(path))
    assert [agent.arrival_s for agent in batch.agents] == [0.0, 0.0, 0.0]
    assert any("`arrival_s` of 1 agent left out" in each for each in batch.warnings)
    poisson = build_workload(on_trace(path, arrival={"process": "poisson", "rate_per_s": 1.0}))
    assert [agent.arrival_s > 0 for agent in poisson.agents] == [True, False, True]
    silent = write(tmp_path / "s.jsonl", line("a", arrival_s=3.5), line("b"))
    with pytest.raises(ScenarioError, match="has no arrival_s for 'b'"):
        build_workload(on_trace(silent, arrival="trace"))


def test_an_order_by_the_seed_keeps_trees_together_and_the_same_agents(tmp_path: Path) -> None:
    lines = [
        each for number in range(12) for each in (line(f"a{number}"), child(f"a{number}/0", f"a{number}"))
    ]
    path = write(tmp_path / "t.jsonl", *lines)
    first, again, other = (ids(path, order="shuffled", num_agents=8, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other) == sorted(ids(path, num_agents=8))
    assert all(below == f"{above}/0" for above, below in zip(first[::2], first[1::2], strict=True))
    workload = build_workload(on_trace(path, order="shuffled"))
    assert [agent.index for agent in workload.agents] == list(range(24))


def test_user_waits_are_kept_if_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line("a", steps=[STEP | {"user_wait_s": 75.0}, STEP]))
    assert build_workload(on_trace(path)).agents[0].steps[0].tool_latency_s == 2.0
    kept = build_workload(on_trace(path, user_waits="kept"))
    assert kept.agents[0].steps[0].tool_latency_s == 77.0
    assert kept.warnings == ()


def test_limits_of_an_answer_are_carried(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line("a", steps=[STEP | {"max_new_tokens": 400}, STEP]))
    limits = [
        [step.max_new_tokens for step in build_workload(on_trace(path, **keys)).agents[0].steps]
        for keys in ({}, {"max_new_tokens": 64}, {"max_new_tokens": 2})
    ]
    assert limits == [[400, None], [400, 64], [400, 5]], "never less than the answer has"


def test_an_answer_that_ends_early_under_async_scheduling_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line("a", steps=[STEP | {"max_new_tokens": 400}, STEP]))
    scenario = on_trace(path)
    ahead = scenario.model_copy(
        update={"engine": scenario.engine.model_copy(update={"async_scheduling": True})}
    )
    assert build_workload(scenario).warnings == ()
    (said,) = build_workload(ahead).warnings
    assert said.startswith("1 answers end before their max_new_tokens")


def test_strict_makes_every_loss_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line("a", arrival_s=3.0))
    with pytest.raises(ScenarioError, match=r"workload.strict = true, and `arrival_s` of 1 agent left out"):
        build_workload(on_trace(path, strict=True))
    assert build_workload(on_trace(path, strict=True, arrival="trace")).agents[0].arrival_s == 3.0


def test_counts_of_what_is_lost_are_in_the_record(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl", line("a", arrival_s=3.0, steps=[STEP | {"tool_latency_s": 90.0}, STEP])
    )
    record = simulate(on_trace(path))
    assert record.run["workload"]["lost"] == {"num_arrivals": 1, "num_cut_waits": 1, "cut_s": 30.0}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"arrival": "trace"}, "a generator has none"),
        ({"order": "shuffled"}, "a seed draws other agents"),
        ({"user_waits": "kept"}, "is about a trace"),
        ({"sub_agents": "left_out"}, "is about a trace"),
    ],
)
def test_keys_of_a_trace_are_refused_without_one(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        make_scenario(workload=keys)


@pytest.mark.parametrize(
    ("lines", "field", "said"),
    [
        ([child("b", "nobody")], "parent", "'nobody' is no agent of this file"),
        ([line("a"), child("b", "a") | {"parent_step": 2}], "parent_step", "2 but 'a' has 2 steps"),
        ([line("a"), child("b", "a", fork_tokens=16)], "fork_tokens", "16 but 'a' has 15 tokens of history"),
        ([child("a", "b"), child("b", "a")], "parent", "'a' is among its own ancestors"),
        ([child("a", "a")], "parent", "among its own ancestors"),
        ([line("a", parent_step=0)], "parent", "absent, with a parent_step"),
        ([line("a", fork_tokens=3)], "fork_tokens", "3 without parent_step"),
        ([line("a", spawn_delay_s=3.0)], "spawn_delay_s", "3.0 without parent_step"),
        ([line("a"), child("b", "a", arrival_s=1.0)], "arrival_s", "a step of its parent starts it"),
        ([line("a"), child("b", "a", fork_tokens=3, prefixes=NESTED)], "fork_tokens", "beside a prefix"),
        ([line("a", prefixes=NESTED, prefix_group="g")], "prefix_group", "write only one of them"),
        ([line("a", prefixes=[{"group": "g"}])], "prefixes.0.tokens", "missing"),
        ([line("a", prefixes=[{"group": "g", "tokens": 0}])], "prefixes.0.tokens", "0 but must be"),
        ([line("a", arrival_s=-1)], "arrival_s", "-1 but must be greater than or equal to 0"),
        ([line("a", steps=[STEP | {"max_new_tokens": 4}])], "step 0, max_new_tokens", "the output has 5"),
    ],
)
def test_a_breach_names_line_field_and_remedy(
    tmp_path: Path, lines: list[dict[str, Any]], field: str, said: str
) -> None:
    path = write(tmp_path / "t.jsonl", *lines)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    message = str(caught.value)
    assert f", {field}: " in message
    assert said in message
    assert "; " in message


def test_the_schema_names_every_field_and_bound() -> None:
    of_steps = schema()["$defs"]["TraceStep"]["properties"]
    assert list(schema()["properties"]) == [field.name for field in fields(TraceAgent)]
    assert list(of_steps) == [field.name for field in fields(TraceStep)]
    assert schema()["additionalProperties"] is False
    assert of_steps["output_tokens"]["minimum"] == 1


_seconds = st.floats(0, 1e6, allow_nan=False)
_steps = st.builds(
    TraceStep,
    new_prompt_tokens=st.integers(1, 9999),
    output_tokens=st.integers(1, 999),
    tool_latency_s=st.none() | _seconds,
    user_wait_s=st.none() | _seconds,
    max_new_tokens=st.none() | st.integers(999, 9999),
)
_prefixes = st.lists(
    st.builds(TracePrefix, group=st.text(min_size=1), tokens=st.integers(1, 999)), max_size=3
)


@given(
    agent=st.builds(
        TraceAgent,
        agent_id=st.text(min_size=1),
        steps=st.lists(_steps, min_size=1, max_size=4).map(tuple),
        source=st.text(),
        arrival_s=st.none() | _seconds,
        prefixes=_prefixes.map(tuple),
        fresh_start=st.booleans(),
    )
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, agent: TraceAgent) -> None:
    path = tmp_path_factory.mktemp("trace") / "t.jsonl"
    joined = replace(
        agent, agent_id="child", arrival_s=None, parent=agent.agent_id, parent_step=0, joins=False
    )
    lines = [agent] if agent.agent_id == "child" else [agent, joined]
    path.write_text("".join(map(to_line, lines)), encoding="utf-8")
    assert read_trace(path) == lines


def test_the_committed_schema_is_the_formats() -> None:
    assert json.loads((TRACES / "trace.schema.json").read_text()) == schema()
