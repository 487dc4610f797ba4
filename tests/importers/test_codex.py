from pathlib import Path

from tests.importers.helpers import codex_count, codex_item, codex_meta, imported, numbers, waits, write_lines


def test_repeats_of_a_total_count_once(tmp_path: Path) -> None:
    lines = [
        codex_meta("a"),
        codex_count(5, (1000, 600, 20)),
        codex_count(6, None),
        codex_count(7, (1000, 600, 20)),
        codex_item(8),
        codex_count(9, (1800, 1000, 30), (2800, 1600, 50)),
        codex_count(9, (1800, 1000, 30), (2800, 1600, 50)),
        codex_count(5, (1000, 600, 20)),
    ]
    (agent,), notes = imported(write_lines(tmp_path / "r.jsonl", lines))
    assert numbers(agent) == [(None, 1000, 20), (None, 780, 30)]
    assert waits(agent) == [3.0, None]
    assert list(notes.lines()) == []


def test_older_events_have_totals_alone(tmp_path: Path) -> None:
    lines = [codex_meta("a"), codex_count(5, None, (100, 0, 10)), codex_count(9, None, (250, 90, 15))]
    (agent,), _ = imported(write_lines(tmp_path / "r.jsonl", lines))
    assert numbers(agent) == [(None, 100, 10), (None, 40, 5)]


def test_a_person_pauses(tmp_path: Path) -> None:
    lines = [
        codex_meta("a"),
        codex_item(1, "user_message"),
        codex_count(5, (100, 0, 10)),
        codex_item(65, "user_message"),
        codex_count(69, (150, 100, 10), (250, 100, 20)),
    ]
    (agent,), _ = imported(write_lines(tmp_path / "r.jsonl", lines))
    assert waits(agent) == [0.0, None]
    assert [step.user_wait_s for step in agent.steps] == [60.0, None]


def test_a_result_before_the_count_is_for_the_next_call(tmp_path: Path) -> None:
    lines = [
        codex_meta("a"),
        codex_item(1, "user_message"),
        codex_item(4, "function_call"),
        codex_item(6),
        codex_count(6.5, (100, 0, 10)),
        codex_item(8, "reasoning"),
        codex_count(9, (150, 100, 10), (250, 100, 20)),
    ]
    (agent,), notes = imported(write_lines(tmp_path / "r.jsonl", lines))
    assert waits(agent) == [2.0, None]
    assert list(notes.lines()) == []


def test_a_limit_written_while_a_tool_runs_changes_nothing(tmp_path: Path) -> None:
    lines = [
        codex_meta("a"),
        codex_item(1, "user_message"),
        codex_item(4, "function_call"),
        codex_count(4.1, (100, 0, 10)),
        codex_item(6),
        codex_count(6.5, (100, 0, 10)),
        codex_item(8, "function_call"),
        codex_count(8.1, (150, 100, 10), (250, 100, 20)),
    ]
    (agent,), _ = imported(write_lines(tmp_path / "r.jsonl", lines))
    assert waits(agent) == [1.9, None]
    assert numbers(agent) == [(None, 100, 10), (None, 40, 10)]


PARENT = [
    codex_meta("a"),
    codex_count(5, (1000, 0, 20)),
    codex_item(8),
    codex_count(9, (1800, 1000, 30), (2800, 1000, 50)),
    codex_item(700),
    codex_count(705, (2400, 1800, 30), (5200, 2800, 80)),
]


def fork(*, stamps: float = 600.0) -> list[dict[str, object]]:
    """A fork after the second call, whose copies have new times."""
    return [
        codex_meta("b", 600, forked_from_id="a"),
        codex_meta("a", 600),
        codex_count(stamps, (1000, 0, 20)),
        codex_count(stamps + 0.002, (1800, 1000, 30), (2800, 1000, 50)),
        codex_item(610, "user_message"),
        codex_count(615, (1900, 1800, 40), (4700, 2800, 90)),
    ]


def test_a_fork_does_not_count_the_events_of_its_parent(tmp_path: Path) -> None:
    paths = write_lines(tmp_path / "a.jsonl", PARENT), write_lines(tmp_path / "b.jsonl", fork())
    (parent, child), notes = imported(*paths)
    assert numbers(parent) == [(None, 1000, 20), (None, 780, 30), (None, 570, 30)]
    assert (child.parent, child.parent_step, child.fork_tokens, child.joins) == ("a", 1, 1830, False)
    assert numbers(child) == [(None, 70, 40)]
    assert child.spawn_delay_s == 601.0
    assert notes.left_out == {"an event that a forked thread has from its parent": 2}
    assert not notes.guessed


def test_a_fork_without_its_parent_is_told_by_the_times(tmp_path: Path) -> None:
    for number, stamps in enumerate((5.0, 600.5)):
        path = write_lines(tmp_path / f"{number}.jsonl", fork(stamps=stamps))
        (child,), notes = imported(path)
        assert numbers(child) == [(None, 1900, 40)]
        assert (child.parent, child.parent_step, child.fresh_start) == ("a", None, False)
        assert sum(notes.guessed.values()) >= 2


def test_a_subagent_keeps_its_own_calls(tmp_path: Path) -> None:
    spawn = {"subagent": {"thread_spawn": {"parent_thread_id": "a"}}}
    lines = [
        codex_meta("c", 12, source=spawn),
        codex_count(15, (500, 0, 10)),
        codex_item(16),
        codex_count(699.5, (600, 500, 10), (1100, 500, 20)),
    ]
    paths = write_lines(tmp_path / "a.jsonl", PARENT), write_lines(tmp_path / "c.jsonl", lines)
    (parent, child), _ = imported(*paths)
    assert (child.parent, child.parent_step, child.joins, child.fork_tokens) == ("a", 1, True, 0)
    assert child.spawn_delay_s == 3.0
    assert waits(parent) == [3.0, 0.5, None]
