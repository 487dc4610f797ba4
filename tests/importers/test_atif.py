import json
from pathlib import Path
from typing import Any

from tests.importers.helpers import at, imported, numbers


def step(number: int, prompt: int, output: int, cached: int = 0, **more: Any) -> dict[str, Any]:
    metrics = {"prompt_tokens": prompt, "completion_tokens": output, "cached_tokens": cached}
    return {"step_id": number, "source": "agent", "timestamp": at(number), "metrics": metrics} | more


def trajectory(path: Path, name: str, steps: list[dict[str, Any]], **more: Any) -> Path:
    text = json.dumps({"schema_version": "ATIF-v1.7", "session_id": name, "steps": steps} | more, indent=1)
    path.write_text(text)
    return path


def refers(**ref: str) -> dict[str, Any]:
    return {"results": [{"subagent_trajectory_ref": [ref]}]}


def test_prompts_include_what_was_cached(tmp_path: Path) -> None:
    steps = [step(1, 500, 10), step(2, 600, 10, 500), step(3, 200, 10, 128)]
    (agent,), _ = imported(trajectory(tmp_path / "t.json", "t", steps))
    assert numbers(agent) == [(None, 500, 10), (None, 90, 10), (128, 72, 10)]


def test_children_in_the_file_and_beside_it(tmp_path: Path) -> None:
    inner = {"trajectory_id": "in", "session_id": "t", "steps": [step(1, 70, 7)]}
    trajectory(tmp_path / "t.sub.json", "out", [step(1, 80, 8)])
    steps = [
        step(1, 500, 10, observation=refers(trajectory_id="in")),
        step(2, 600, 10, observation=refers(session_id="out", trajectory_path="t.sub.json")),
        step(3, 700, 10, observation=refers(session_id="gone")),
    ]
    path = trajectory(tmp_path / "t.json", "t", steps, subagent_trajectories=[inner])
    agents, notes = imported(path, tmp_path / "t.sub.json")
    assert [(agent.agent_id, agent.parent, agent.parent_step) for agent in agents] == [
        ("t", None, None),
        ("t/in", "t", 0),
        ("out", "t", 1),
    ]
    assert [numbers(agent) for agent in agents[1:]] == [[(None, 70, 7)], [(None, 80, 8)]]
    assert notes.left_out == {"a sub-agent whose trajectory is not there": 1}


def test_a_trajectory_goes_on_in_the_next_file_without_its_copies(tmp_path: Path) -> None:
    rest = [step(1, 500, 10, is_copied_context=True), step(2, 300, 10, 100)]
    trajectory(tmp_path / "t.cont-1.json", "t", rest)
    first = [step(1, 500, 10)]
    path = trajectory(tmp_path / "t.json", "t", first, continued_trajectory_ref="t.cont-1.json")
    (agent,), notes = imported(path, tmp_path / "t.cont-1.json")
    assert numbers(agent) == [(None, 500, 10), (100, 200, 10)]
    assert notes.left_out == {"a step that is a copy of another trajectory's": 1}


def test_a_step_without_a_model_is_no_call(tmp_path: Path) -> None:
    steps = [step(1, 500, 10), step(2, 1, 1, llm_call_count=0), {"step_id": 3, "source": "agent"}]
    (agent,), notes = imported(trajectory(tmp_path / "t.json", "t", steps))
    assert len(agent.steps) == 1
    assert notes.left_out == {"a call without counts of its tokens": 1}
