import json
from pathlib import Path
from typing import Any

import pytest

from concur.sim.importers.files import read_head
from concur.sim.importers.importer import Notes
from concur.sim.importers.swe_agent import SWE_AGENT
from concur.sim.importers.values import duration_of
from tests.importers.helpers import numbers, waits


def words(text: str) -> int:
    return len(text.split())


def message(role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, "agent": "primary"} | more


def step(prompt: list[Any] | None, response: str, action: str = "", runs_s: float = 1.0) -> dict[str, Any]:
    found = {"response": response, "action": action, "observation": "", "execution_time": runs_s}
    return found if prompt is None else found | {"query": prompt}


def trajectory(path: Path, steps: Any, history: Any = (), stats: Any = None) -> Path:
    info = {"model_stats": stats or {}}
    path.write_text(json.dumps({"trajectory": steps, "history": list(history), "info": info}, indent=2))
    return path


def read(path: Path, *args: Any, **more: Any) -> tuple[list[Any], Notes]:
    notes = Notes()
    return list(SWE_AGENT.read(trajectory(path / "task.traj", *args, **more), notes, words)), notes


SYSTEM = message("system", "you are an agent")
TASK = message("user", "fix this")


def test_prompts_are_the_messages_that_were_sent(tmp_path: Path) -> None:
    said, seen = message("assistant", "I look ls"), message("user", "a b c d e")
    steps = [
        step([SYSTEM, TASK], "I look ls", "ls", 2.5),
        step([SYSTEM, TASK, said, seen], "done", "submit", 0.5),
        step([{}], "", "", 0.0),
    ]
    (agent,), notes = read(tmp_path, steps)
    assert agent.agent_id == "task"
    assert numbers(agent) == [(None, 6, 3), (None, 5, 2)]
    assert waits(agent) == [2.5, None]
    assert agent.arrival_s is None
    assert list(notes.guessed.values()) == [2]


def test_a_shortened_result_ends_what_a_prompt_keeps(tmp_path: Path) -> None:
    said, seen = message("assistant", "ls"), message("user", "a b c d e")
    after, short = message("assistant", "pwd"), message("user", "left out")
    steps = [
        step([SYSTEM, TASK], "ls"),
        step([SYSTEM, TASK, said, seen], "pwd"),
        step([SYSTEM, TASK, said, short, after, message("user", "x y z q")], "done"),
    ]
    (agent,), _ = read(tmp_path, steps)
    assert numbers(agent) == [(None, 6, 1), (None, 5, 1), (7, 7, 1)]


def test_calls_of_tools_are_counted_from_the_prompt_that_repeats_them(tmp_path: Path) -> None:
    call = {"function": {"name": "bash", "arguments": '{"command": "ls -la"}'}}
    said = message("assistant", "I look", tool_calls=[call])
    steps = [step([SYSTEM, TASK], "I look", "ls -la"), step([SYSTEM, TASK, said, TASK], "done")]
    (agent,), _ = read(tmp_path, steps)
    assert numbers(agent) == [(None, 6, 6), (None, 2, 1)]


def test_without_prompts_the_history_tells_them(tmp_path: Path) -> None:
    history = [
        SYSTEM,
        message("assistant", "an example of an answer", is_demo=True),
        TASK,
        message("assistant", "ls"),
        message("user", "a b c"),
        message("assistant", "done now"),
    ]
    (agent,), notes = read(tmp_path, [step(None, "ls", runs_s=3.0), step(None, "done now")], history)
    assert notes.guessed["prompts told by the history, as if nothing in it had been shortened"] == 2
    assert numbers(agent) == [(None, 11, 1), (None, 3, 2)]
    assert waits(agent) == [3.0, None]


def test_totals_far_from_those_of_the_recording_are_noted(tmp_path: Path) -> None:
    stats = {"tokens_sent": 600, "tokens_received": 1}
    _, notes = read(tmp_path, [step([SYSTEM, TASK], "ls")], stats=stats)
    noted = [what for what in notes.guessed if "20 %" in what]
    assert noted == ["prompts of a task more than 20 % from the tokens_sent of the recording"]


def test_each_attempt_at_a_task_is_an_agent(tmp_path: Path) -> None:
    path = trajectory(tmp_path / "task.traj", [step([TASK], "best")])
    value = json.loads(path.read_text())
    attempts = [value | {"trajectory": [step([TASK], text)]} for text in ("worse one", "best")]
    path.write_text(json.dumps(value | {"attempts": attempts}, indent=2))
    agents = list(SWE_AGENT.read(path, Notes(), words))
    assert [(agent.agent_id, numbers(agent)) for agent in agents] == [
        ("task/1", [(None, 2, 2)]),
        ("task/2", [(None, 2, 1)]),
    ]


def test_it_is_known_and_needs_a_tokenizer(tmp_path: Path) -> None:
    notes = Notes()
    path = trajectory(tmp_path / "task.traj", [step([SYSTEM], "ls")])
    assert SWE_AGENT.recognises(read_head(path))
    assert SWE_AGENT.needs_tokenizer
    assert list(SWE_AGENT.read(path, notes)) == []
    assert notes.left_out["a call without counts; a --tokenizer counts its text"] == 1


@pytest.mark.parametrize(
    "text", ["", "{", "3", '{"trajectory": 3}', '{"trajectory": [3, {"response": "a"}], "history": [4]}']
)
def test_what_is_no_trajectory_is_noted(tmp_path: Path, text: str) -> None:
    notes = Notes()
    path = tmp_path / "t.traj"
    path.write_text(text)
    assert list(SWE_AGENT.read(path, notes, words)) == []
    assert notes.left_out


def test_a_negative_duration_is_no_duration() -> None:
    assert [duration_of(value) for value in (-1, "nan", 1e300, 2.5, None)] == [None, None, None, 2.5, None]
