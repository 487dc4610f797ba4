import json
from pathlib import Path
from typing import Any

import pytest

from concur.sim.importers.files import read_head
from concur.sim.importers.importer import Notes
from concur.sim.importers.mini_swe_agent import MINI_SWE_AGENT
from tests.importers.helpers import numbers, waits
from tests.importers.server_log import RECORDINGS, assert_agrees, scripted_rows


def usage(prompt: int, output: int, cached: int | None = None) -> dict[str, Any]:
    details = None if cached is None else {"cached_tokens": cached}
    return {"prompt_tokens": prompt, "completion_tokens": output, "prompt_tokens_details": details}


def answer(at_s: float, used: dict[str, Any] | None, role: str = "assistant") -> dict[str, Any]:
    extra = {"timestamp": at_s} | ({} if used is None else {"response": {"usage": used}})
    return {"role": role, "content": "one two three", "extra": extra}


def result(at_s: float, text: str = "four five") -> dict[str, Any]:
    return {"role": "tool", "content": text, "extra": {"timestamp": at_s}}


def trajectory(path: Path, *messages: Any) -> Path:
    value = {"info": {}, "messages": messages, "trajectory_format": "mini-swe-agent-1.1"}
    path.write_text(json.dumps(value, indent=2))
    return path


def words(text: str) -> int:
    return len(text.split())


def test_calls_and_waits_are_those_that_the_server_saw() -> None:
    notes = Notes()
    path = RECORDINGS / "mini-swe-agent" / "task.traj.json"
    assert MINI_SWE_AGENT.recognises(read_head(path))
    agents = list(MINI_SWE_AGENT.read(path, notes))
    assert_agrees(agents, {"task": scripted_rows("mini-swe-agent")})
    assert [*notes.lines()] == []


def test_usage_is_preferred_to_the_text(tmp_path: Path) -> None:
    path = trajectory(
        tmp_path / "t.traj.json", answer(1, usage(100, 10)), result(3), answer(5, usage(130, 7))
    )
    (agent,) = MINI_SWE_AGENT.read(path, Notes(), words)
    assert (agent.agent_id, numbers(agent)) == ("t", [(None, 100, 10), (None, 20, 7)])
    assert waits(agent) == [2.0, None]


def test_responses_have_their_own_words(tmp_path: Path) -> None:
    used = {"input_tokens": 100, "output_tokens": 10, "input_tokens_details": {"cached_tokens": 64}}
    message = {"object": "response", "output": [], "usage": used, "extra": {"timestamp": 1.0}}
    (agent,) = MINI_SWE_AGENT.read(trajectory(tmp_path / "t.traj.json", message), Notes())
    assert numbers(agent) == [(None, 100, 10)]


def test_an_answer_that_could_not_be_parsed_is_not_in_the_next_prompt(tmp_path: Path) -> None:
    messages = [answer(1, usage(100, 10), "user"), answer(2, usage(130, 7))]
    (agent,) = MINI_SWE_AGENT.read(trajectory(tmp_path / "t.traj.json", *messages), Notes())
    assert numbers(agent) == [(None, 100, 10), (100, 30, 7)]


def test_texts_without_usage_are_counted_and_noted(tmp_path: Path) -> None:
    notes = Notes()
    messages = [{"role": "user", "content": "a b c d"}, answer(1, None), result(2), answer(3, None)]
    (agent,) = MINI_SWE_AGENT.read(trajectory(tmp_path / "t.traj.json", *messages), notes, words)
    assert numbers(agent) == [(None, 4, 3), (None, 2, 3)]
    assert list(notes.guessed.values()) == [2]


def test_texts_without_usage_need_a_tokenizer(tmp_path: Path) -> None:
    notes = Notes()
    path = trajectory(tmp_path / "t.traj.json", answer(1, None))
    assert list(MINI_SWE_AGENT.read(path, notes)) == []
    assert notes.left_out["a call without usage; a --tokenizer counts its text"] == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"messages": 3}', '{"messages": [3, null, {"extra": 4}]}'])
def test_what_is_no_trajectory_is_noted(tmp_path: Path, text: str) -> None:
    notes = Notes()
    path = tmp_path / "t.traj.json"
    path.write_text(text)
    assert list(MINI_SWE_AGENT.read(path, notes)) == []
    assert notes.left_out or text == "[]"
