from pathlib import Path
from typing import Any

from concur.sim.traces.format import Prefix
from tests.importers.helpers import imported, numbers, waits, write_lines


def row(length: int, output: int, *blocks: int, **more: Any) -> dict[str, Any]:
    return {"input_length": length, "output_length": output, "hash_ids": list(blocks)} | more


def test_rows_of_mooncake_are_agents_that_share_prefixes_at_several_levels(tmp_path: Path) -> None:
    rows = [
        row(2000, 10, 0, 1, 2, 3, timestamp=3000),
        row(2000, 10, 0, 1, 2, 4, timestamp=5500),
        row(1000, 10, 0, 9, timestamp=9000),
        row(600, 10, 7, 8, timestamp=9000),
    ]
    agents, notes = imported(write_lines(tmp_path / "m.jsonl", rows))
    outer, inner = Prefix("blocks-1", 512), Prefix("blocks-2", 1024)
    assert [agent.prefixes for agent in agents] == [(outer, inner), (outer, inner), (outer,), ()]
    assert [agent.steps[0].new_prompt_tokens for agent in agents] == [464, 464, 488, 600]
    assert [agent.arrival_s for agent in agents] == [3.0, 5.5, 9.0, 9.0]
    assert notes.guessed == {"a request without a session is an agent of its own": 4}


def test_a_shared_last_block_ends_where_the_prompt_ends(tmp_path: Path) -> None:
    rows = [row(700, 10, 0, 1, timestamp=0), row(700, 10, 0, 1, timestamp=1)]
    agents, _ = imported(write_lines(tmp_path / "m.jsonl", rows))
    assert [agent.prefixes for agent in agents] == [(Prefix("blocks-1", 700),)] * 2


def test_rows_after_the_first_hold_new_input_alone(tmp_path: Path) -> None:
    rows = [
        row(1024, 50, 0, 1, session_id="s", timestamp=0),
        row(300, 20, 8, session_id="s", delay=2500),
        row(100, 20, 9, session_id="s", delay_ms=1000),
    ]
    (agent,), notes = imported(write_lines(tmp_path / "m.jsonl", rows))
    assert numbers(agent) == [(None, 1024, 50), (None, 300, 20), (None, 100, 20)]
    assert waits(agent) == [2.5, 1.0, None]
    assert list(notes.lines()) == []


def test_rows_that_begin_with_the_same_block_hold_the_whole_prompt(tmp_path: Path) -> None:
    rows = [
        row(1024, 50, 0, 1, session_id="s", timestamp=0),
        row(1300, 20, 0, 1, 2, session_id="s", timestamp=4000),
        row(1400, 20, 0, 5, 6, session_id="s", timestamp=9000),
    ]
    (agent,), notes = imported(write_lines(tmp_path / "m.jsonl", rows))
    assert numbers(agent) == [(None, 1024, 50), (None, 226, 20), (512, 888, 20)]
    assert waits(agent) == [4.0, 5.0, None]
    assert notes.guessed == {"a wait includes the call before it, whose end was not recorded": 2}


def turn(chat: int, parent: int, time_s: float, length: int, *blocks: int) -> dict[str, Any]:
    return row(
        length, 10, *blocks, chat_id=chat, parent_chat_id=parent, timestamp=time_s, turn=1, type="text"
    )


def test_bailian_has_seconds_small_blocks_and_chains_of_turns(tmp_path: Path) -> None:
    rows = [
        turn(1, -1, 1.0, 32, 1, 2),
        turn(2, 1, 61.0, 64, 1, 2, 3, 4),
        turn(3, 1, 70.0, 48, 1, 2, 8),
        turn(4, -1, 80.0, 32, 1, 9),
        turn(5, 77, 90.0, 32, 50, 51),
    ]
    (first, fork, other, late), notes = imported(write_lines(tmp_path / "b.jsonl", rows))
    assert (first.agent_id, first.source, first.arrival_s) == ("1", "bailian", 1.0)
    assert first.prefixes == other.prefixes == (Prefix("blocks-1", 16),)
    assert numbers(first) == [(None, 16, 10), (None, 22, 10)]
    assert waits(first) == [60.0, None]
    assert (fork.parent, fork.parent_step, fork.joins, fork.spawn_delay_s) == ("1", 0, False, 69.0)
    assert (fork.fork_tokens, numbers(fork)) == (42, [(None, 6, 10)])
    assert not late.fresh_start
    assert "a turn whose turn before is not in the file begins an agent" in notes.guessed


def test_the_name_of_a_file_may_say_the_size_of_blocks(tmp_path: Path) -> None:
    rows = [turn(1, -1, 0, 64, 1, 2), turn(2, -1, 0, 64, 1, 3)]
    agents, _ = imported(write_lines(tmp_path / "qwen_traceX_blksz_32.jsonl", rows))
    assert agents[0].prefixes == (Prefix("blocks-1", 32),)
