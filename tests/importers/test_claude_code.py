import json
from pathlib import Path
from typing import Any

from tests.importers.helpers import (
    at,
    claude_asks,
    claude_line,
    claude_result,
    claude_says,
    imported,
    numbers,
    usage,
    waits,
    write_lines,
)


def test_a_message_counts_once_and_its_last_usage_counts(tmp_path: Path) -> None:
    session = write_lines(
        tmp_path / "s.jsonl",
        [
            claude_asks(0),
            claude_says(2, "m1", usage(10, 1, written=990)),
            claude_says(3, "m1", usage(10, 1, written=990)),
            claude_says(4, "m1", usage(10, 250, written=990), "t1"),
            claude_result(9, "t1"),
            claude_says(12, "m2", usage(5, 30, written=395, read=1000)),
        ],
    )
    (agent,), notes = imported(session)
    assert numbers(agent) == [(None, 1000, 250), (None, 150, 30)]
    assert waits(agent) == [5.0, None]
    assert list(notes.lines()) == []


def test_a_person_pauses_and_a_tool_does_not(tmp_path: Path) -> None:
    lines = [
        claude_asks(0),
        claude_says(2, "m1", usage(100, 50), "t1"),
        claude_result(5, "t1"),
        claude_asks(65, "no, wait"),
        claude_says(70, "m2", usage(200, 50)),
        claude_asks(100),
        claude_says(103, "m3", usage(300, 50)),
    ]
    (agent,), _ = imported(write_lines(tmp_path / "s.jsonl", lines))
    assert waits(agent) == [3.0, 0.0, None]
    assert [step.user_wait_s for step in agent.steps] == [60.0, 30.0, None]


def test_a_compacted_prompt_keeps_what_the_cache_had(tmp_path: Path) -> None:
    lines = [
        claude_asks(0),
        claude_says(2, "m1", usage(9000, 500)),
        claude_line("user", 10, {"content": "summary"}, isCompactSummary=True),
        claude_says(20, "m2", usage(100, 10, written=1900, read=3000)),
    ]
    (agent,), _ = imported(write_lines(tmp_path / "s.jsonl", lines))
    assert numbers(agent) == [(None, 9000, 500), (3000, 2000, 10)]
    assert agent.steps[0].user_wait_s is None


def test_an_output_of_zero_counts_as_one_and_is_noted(tmp_path: Path) -> None:
    lines = [claude_asks(0), claude_says(2, "m1", usage(100, 0))]
    (agent,), notes = imported(write_lines(tmp_path / "s.jsonl", lines))
    assert numbers(agent) == [(None, 100, 1)]
    assert list(notes.lines()) == [
        f"a guess: an output of no token counts as one: 1 (first: {tmp_path}/s.jsonl, line 2)"
    ]


def test_errors_of_the_service_are_no_calls(tmp_path: Path) -> None:
    lines = [
        claude_asks(0),
        claude_says(2, "m1", usage(100, 5)),
        claude_line("assistant", 3, {"id": "e", "model": "<synthetic>", "usage": usage(0, 0)}),
    ]
    (agent,), notes = imported(write_lines(tmp_path / "s.jsonl", lines))
    assert len(agent.steps) == 1
    assert notes.left_out == {"a message that no model wrote": 1}


def with_subagent(tmp_path: Path, *, child_ends: float, parent_resumes: float) -> Path:
    """A session whose second message starts a sub-agent in a file of its own."""
    child: dict[str, Any] = {"agentId": "x", "isSidechain": True}
    write_lines(
        tmp_path / "s" / "subagents" / "agent-x.jsonl",
        [
            claude_asks(11, **child),
            claude_says(child_ends, "c1", usage(700, 70), **child),
        ],
    )
    (tmp_path / "s" / "subagents" / "agent-x.meta.json").write_text(json.dumps({"toolUseId": "t2"}))
    return write_lines(
        tmp_path / "s.jsonl",
        [
            claude_asks(0),
            claude_says(2, "m1", usage(100, 50), "t1"),
            claude_result(4, "t1"),
            claude_says(10, "m2", usage(200, 50), "t2"),
            claude_result(parent_resumes, "t2"),
            claude_says(parent_resumes + 5, "m3", usage(300, 50)),
        ],
    )


def test_a_wait_for_a_child_leaves_only_what_is_not_the_childs(tmp_path: Path) -> None:
    (parent, child), notes = imported(with_subagent(tmp_path, child_ends=60, parent_resumes=61.5))
    assert (child.agent_id, child.parent, child.parent_step) == ("s/x", "s", 1)
    assert (child.spawn_delay_s, child.joins, child.arrival_s) == (1.0, True, None)
    assert numbers(child) == [(None, 700, 70)]
    assert waits(parent) == [2.0, 1.5, None]
    assert list(notes.lines()) == []


def test_a_wait_that_its_child_does_not_explain_stays(tmp_path: Path) -> None:
    (parent, child), _ = imported(with_subagent(tmp_path, child_ends=20, parent_resumes=61))
    assert child.joins
    assert waits(parent) == [2.0, 51.0, None]


def test_a_child_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    (parent, child), _ = imported(with_subagent(tmp_path, child_ends=90, parent_resumes=11.5))
    assert not child.joins
    assert waits(parent) == [2.0, 1.5, None]


def test_side_chains_without_agent_id_are_told_by_their_first_line(tmp_path: Path) -> None:
    side: dict[str, Any] = {"isSidechain": True}
    lines = [
        claude_asks(0),
        claude_says(2, "m1", usage(100, 50), "t1", "t2"),
        claude_asks(3, uuid="a", parentUuid=None, **side),
        claude_asks(3, uuid="b", parentUuid=None, **side),
        claude_says(6, "c1", usage(70, 7), uuid="a2", parentUuid="a", **side),
        claude_says(7, "c2", usage(80, 8), uuid="b2", parentUuid="b", **side),
        claude_result(8, "t1"),
    ]
    agents, _ = imported(write_lines(tmp_path / "s.jsonl", lines))
    assert [agent.agent_id for agent in agents] == ["s", "s/a", "s/b"]
    assert [numbers(agent) for agent in agents[1:]] == [[(None, 70, 7)], [(None, 80, 8)]]


def test_agents_beside_the_session_are_read_with_it(tmp_path: Path) -> None:
    child: dict[str, Any] = {"agentId": "x", "isSidechain": True}
    lines = [claude_asks(3, **child), claude_says(6, "c1", usage(70, 7), **child)]
    beside = write_lines(tmp_path / "agent-x.jsonl", lines)
    write_lines(tmp_path / "agent-y.jsonl", [claude_asks(3, agentId="y") | {"sessionId": "other"}])
    session = write_lines(tmp_path / "s.jsonl", [claude_asks(0), claude_says(2, "m", usage(100, 50), "t")])
    agents, _ = imported(session, beside)
    assert [agent.agent_id for agent in agents] == ["s", "s/x"]


def test_a_session_that_goes_on_from_a_copy_is_a_fork(tmp_path: Path) -> None:
    first = [
        claude_asks(0),
        claude_says(2, "m1", usage(100, 50), "t1"),
        claude_result(4, "t1"),
        claude_says(6, "m2", usage(200, 50)),
    ]
    own = [claude_asks(500), claude_says(503, "m9", usage(30, 5, read=200))]
    copies = [line | {"sessionId": "f"} for line in [*first[:2], *own]]
    write_lines(tmp_path / "s.jsonl", first)
    write_lines(tmp_path / "f.jsonl", copies)
    (session, fork), _ = imported(tmp_path / "s.jsonl", tmp_path / "f.jsonl")
    assert numbers(session) == [(None, 100, 50), (None, 50, 50)]
    assert (fork.agent_id, fork.parent, fork.parent_step, fork.joins) == ("f", "s", 0, False)
    assert (fork.fork_tokens, fork.spawn_delay_s) == (150, 498.0)
    assert numbers(fork) == [(None, 80, 5)]


def test_lines_that_are_broken_or_foreign_are_noted_with_their_place(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", [claude_asks(0), claude_says(2, "m1", usage(100, 50))])
    text = path.read_text() + '{"a": 1}\n[1]\nnonsense\n' + json.dumps(claude_asks(9))[:40]
    path.write_text(text)
    (agent,), notes = imported(path)
    assert len(agent.steps) == 1
    assert list(notes.lines()) == [
        f"left out: a line that no session has: 1 (first: {path}, line 3)",
        f"left out: a JSON value that is no object: 1 (first: {path}, line 4)",
        f"left out: a line that is not JSON: 1 (first: {path}, line 5)",
        f"left out: a last line that breaks off: 1 (first: {path}, line 6)",
    ]


def test_arrival_is_the_first_line(tmp_path: Path) -> None:
    (agent,), _ = imported(
        write_lines(tmp_path / "s.jsonl", [claude_asks(7), claude_says(9, "m", usage(9, 9))])
    )
    assert at(0).startswith("2026-05-24T10:00:00")
    assert agent.arrival_s is not None
    assert agent.arrival_s % 60 == 7
