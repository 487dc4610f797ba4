from pathlib import Path

import pytest

from concur.sim.importers.calls import Call, steps_of
from concur.sim.importers.importer import Notes
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.traces.format import TraceAgent


def call(begin_s: float, end_s: float, prompt: int = 100) -> Call:
    return Call(prompt, 10, f"at {begin_s}", began_s=begin_s, ended_s=end_s)


def agents(*recorded: Recorded) -> tuple[dict[str, TraceAgent], Notes]:
    notes = Notes()
    return {agent.agent_id: agent for agent in agents_of(recorded, notes)}, notes


PARENT = Recorded("p", "test", [call(0, 10), call(110, 120, 200), call(121, 130, 300)])


@pytest.mark.parametrize(
    ("ends_s", "wait_s", "joins"),
    [(109.5, 0.5, True), (100.0, 10.0, True), (99.0, 100.0, True), (110.0, 0.0, True), (110.5, 100.0, False)],
)
def test_a_child_explains_a_wait_that_ends_soon_after_it(ends_s: float, wait_s: float, joins: bool) -> None:
    """Within 10 % of a wait of 100 s, only the rest stays; else the recorded wait does."""
    child = Recorded("c", "test", [call(12, ends_s)], parent="p")
    found, _ = agents(PARENT, child)
    assert found["p"].steps[0].tool_latency_s == wait_s
    assert (found["c"].parent_step, found["c"].spawn_delay_s, found["c"].joins) == (0, 2.0, joins)


def test_of_several_children_the_last_one_explains_a_wait() -> None:
    children = [Recorded(f"c{end}", "test", [call(12, end)], parent="p") for end in (109.0, 50.0, 104.0)]
    found, _ = agents(PARENT, *children)
    assert found["p"].steps[0].tool_latency_s == 1.0


def test_a_child_after_the_last_step_joins_it() -> None:
    found, _ = agents(PARENT, Recorded("c", "test", [call(140, 150)], parent="p"))
    assert (found["c"].parent_step, found["c"].joins, found["c"].arrival_s) == (2, True, None)


def test_a_child_before_any_step_has_ended_starts_after_the_first() -> None:
    found, notes = agents(PARENT, Recorded("c", "test", [call(5, 20)], parent="p"))
    assert (found["c"].parent_step, found["c"].spawn_delay_s) == (0, 0.0)
    assert "a child that no step of its parent came before starts after the first" in notes.guessed


def test_parents_that_are_not_there_and_circles_are_names_alone() -> None:
    circle = [Recorded(one, "test", [call(0, 1)], parent=other) for one, other in (("a", "b"), ("b", "a"))]
    found, notes = agents(*circle, Recorded("c", "test", [call(7, 9)], parent="gone"))
    assert [(agent.parent, agent.parent_step) for agent in found.values()] == [
        ("b", None),
        ("a", None),
        ("gone", None),
    ]
    assert found["c"].arrival_s == 7
    assert notes.guessed == {"a child whose parent is not in the recording arrives by itself": 3}


def test_an_agent_without_calls_is_left_out_and_its_children_are_not() -> None:
    found, notes = agents(Recorded("p", "test", []), Recorded("c", "test", [call(0, 1)], parent="p"))
    assert list(found) == ["c"]
    assert notes.left_out == {"an agent without a call that has counts": 1}


def test_calls_that_overlap_are_noted() -> None:
    notes = Notes()
    first, second = steps_of([call(0, 10), call(2, 12, 300)], notes)
    assert (first.tool_latency_s, second.new_prompt_tokens) == (0.0, 190)
    assert notes.guessed == {"calls that overlap stand one after the other": 1}


def test_a_shorter_prompt_without_a_cache_keeps_nothing() -> None:
    notes = Notes()
    _, second = steps_of([call(0, 10), call(12, 13, 50)], notes)
    assert (second.kept_tokens, second.new_prompt_tokens) == (0, 50)
    assert notes.guessed == {"a prompt shorter than the history keeps nothing of it": 1}


def test_notes_count_and_keep_the_first_place() -> None:
    notes = Notes()
    for place in ("here", "there"):
        notes.guess("a thing", place)
    notes.leave_out("a line", str(Path("x")), 1200)
    assert list(notes.lines()) == ["a guess: a thing: 2 (first: here)", "left out: a line: 1,200 (first: x)"]
