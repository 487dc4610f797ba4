import json
from pathlib import Path
from typing import Any

from tests.importers.helpers import at, imported, numbers, waits, write_lines


def logged(
    number: int, prompt: int, output: int, cached: tuple[int, int] = (0, 0), **more: Any
) -> dict[str, Any]:
    usage = {"cache_creation_input_tokens": cached[0], "cache_read_input_tokens": cached[1]}
    return {
        "request_id": f"r{number}",
        "session_id": "s",
        "model": "m",
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "startTime": at(10 * number),
        "endTime": at(10 * number + 4),
        "metadata": {"usage_object": usage},
    } | more


def test_prompts_of_a_model_that_leaves_cached_tokens_out(tmp_path: Path) -> None:
    rows = [logged(0, 31, 467, (1253, 0)), logged(1, 2000, 10, (0, 1253))]
    (tmp_path / "spend.json").write_text(json.dumps(rows))
    (agent,), notes = imported(tmp_path / "spend.json")
    assert numbers(agent) == [(None, 1284, 467), (None, 1502, 10)]
    assert waits(agent) == [6.0, None]
    assert list(notes.lines()) == []


def test_prompts_that_include_them_and_those_that_may(tmp_path: Path) -> None:
    told = {"prompt_tokens_details": {"cached_tokens": 60, "text_tokens": 40}}
    rows = [
        logged(0, 100, 10, metadata=json.dumps({"usage_object": told})),
        logged(1, 200, 10, (0, 110)),
    ]
    (agent,), notes = imported(write_lines(tmp_path / "spend.jsonl", rows))
    assert numbers(agent) == [(None, 100, 10), (None, 90, 10)]
    assert notes.guessed == {"a prompt includes the tokens that were cached": 1}


def test_payloads_of_standard_logging_and_what_is_no_call(tmp_path: Path) -> None:
    payload = {"id": "x", "trace_id": "tr", "prompt_tokens": 50, "completion_tokens": 5, "status": "success"}
    rows = [
        payload | {"startTime": 1000.0, "endTime": 1002.0},
        payload | {"startTime": 1003.0, "endTime": 1004.0, "status": "failure"},
        payload | {"startTime": 1003.0, "endTime": 1004.0, "cache_hit": True},
        payload | {"startTime": 1003.0, "endTime": 1004.0, "call_type": "aembedding"},
        {"other": 1},
    ]
    (agent,), notes = imported(write_lines(tmp_path / "p.jsonl", rows))
    assert (agent.agent_id, len(agent.steps), agent.arrival_s) == ("tr", 1, 1000.0)
    assert len(notes.left_out) == 4
