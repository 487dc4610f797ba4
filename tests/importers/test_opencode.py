import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from concur.sim.errors import TraceError
from concur.sim.importers.files import read_head
from concur.sim.importers.importer import Notes
from concur.sim.importers.opencode import OPENCODE
from tests.importers.helpers import numbers, waits
from tests.importers.server_log import RECORDINGS, assert_agrees, by_agent, scripted_rows


def tokens(fresh: int, output: int, read: int = 0, **more: int) -> dict[str, Any]:
    return {"input": fresh, "output": output, "reasoning": 0, "cache": {"read": read, "write": 0}} | more


def asked(created: int) -> dict[str, Any]:
    return {"info": {"role": "user", "time": {"created": created}}, "parts": []}


def said(created: int, completed: int, used: Any, *parts: dict[str, Any]) -> dict[str, Any]:
    times = {"created": created, "completed": completed}
    return {"info": {"role": "assistant", "time": times, "tokens": used}, "parts": list(parts)}


def tool(start: int, end: int, child: str | None = None) -> dict[str, Any]:
    state = {"time": {"start": start, "end": end}, "metadata": {"sessionId": child}}
    return {"type": "tool", "state": state}


def export(path: Path, name: str, *messages: dict[str, Any], parent: str | None = None) -> Path:
    info = {"id": name, "parentID": parent}
    path.write_text(json.dumps({"info": info, "messages": messages}, indent=1))
    return path


def test_calls_waits_and_sub_agents_are_those_that_the_server_saw() -> None:
    notes = Notes()
    paths = sorted((RECORDINGS / "opencode").glob("ses_*.json"))
    agents = list(OPENCODE.read_all(paths, notes))
    assert_agrees(agents, by_agent(scripted_rows("opencode"), lambda row: str(row["session"])))
    children = sorted((agent.parent_step, agent.joins) for agent in agents if agent.parent_step is not None)
    assert children == [(1, True), (3, True), (3, True)]
    assert [*notes.lines()] == []


def test_an_export_is_known(tmp_path: Path) -> None:
    assert OPENCODE.recognises(read_head(export(tmp_path / "s.json", "ses_1", asked(0))))
    assert not OPENCODE.recognises(read_head(export(tmp_path / "t.json", "other", asked(0))))


def test_a_call_ends_when_its_first_tool_starts(tmp_path: Path) -> None:
    messages = [
        asked(0),
        said(0, 9_000, tokens(100, 10), tool(2_000, 8_000), tool(2_100, 9_000)),
        said(9_500, 10_000, tokens(20, 5, 110)),
        asked(70_000),
        said(70_100, 71_000, tokens(9, 5, 135)),
    ]
    (agent,) = OPENCODE.read(export(tmp_path / "s.json", "ses_1", *messages), Notes())
    assert numbers(agent) == [(None, 100, 10), (None, 20, 5), (None, 9, 5)]
    assert waits(agent) == [7.5, 0.1, None]
    assert [step.user_wait_s for step in agent.steps] == [None, 60.0, None]


def test_a_message_may_hold_the_steps_of_a_turn(tmp_path: Path) -> None:
    parts = [
        {"type": "step-finish", "tokens": tokens(100, 10)},
        tool(2_000, 3_000),
        {"type": "step-finish", "tokens": tokens(130, 5)},
    ]
    parts = [parts[1], parts[0], parts[2]]
    (agent,) = OPENCODE.read(
        export(tmp_path / "s.json", "ses_1", said(0, 4_000, tokens(130, 5), *parts)), Notes()
    )
    assert numbers(agent) == [(None, 100, 10), (None, 20, 5)]
    assert waits(agent) == [1.0, None]


@pytest.mark.parametrize(
    ("more", "output", "noted"),
    [({"total": 130}, 30, False), ({"total": 120}, 20, False), ({}, 20, True)],
)
def test_reasoning_is_counted_once(tmp_path: Path, more: dict[str, int], output: int, noted: bool) -> None:
    notes = Notes()
    used = tokens(100, 20) | {"reasoning": 10} | more
    (agent,) = OPENCODE.read(export(tmp_path / "s.json", "ses_1", said(0, 1, used)), notes)
    assert agent.steps[0].output_tokens == output
    assert bool(notes.guessed) is noted


def test_the_tool_call_names_the_step_that_started_a_child(tmp_path: Path) -> None:
    parent = export(
        tmp_path / "p.json",
        "ses_p",
        said(0, 1_000, tokens(100, 10)),
        said(1_000, 9_000, tokens(120, 10), tool(2_000, 9_000, "ses_c")),
        said(9_000, 9_500, tokens(140, 10)),
    )
    child = export(tmp_path / "c.json", "ses_c", said(2_500, 8_900, tokens(50, 5)), parent="ses_p")
    agents = {agent.agent_id: agent for agent in OPENCODE.read_all([parent, child], Notes())}
    found = agents["ses_c"]
    assert (found.parent, found.parent_step, found.spawn_delay_s, found.joins) == ("ses_p", 1, 0.5, True)


def storage(folder: Path, messages: list[dict[str, Any]]) -> Path:
    for number, message in enumerate(messages):
        name = f"msg_{number}"
        for kind, place, value in (
            ("message", f"ses_1/{name}.json", message["info"]),
            *(("part", f"{name}/prt_{place}.json", part) for place, part in enumerate(message["parts"])),
        ):
            file = folder / kind / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(value))
    info = folder / "session" / "project" / "ses_1.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"id": "ses_1", "projectID": "project", "time": {}}, indent=1))
    return info


def rows(messages: list[dict[str, Any]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield "INSERT INTO session VALUES (?, ?, ?)", ("ses_1", None, 0)
    for number, message in enumerate(messages):
        text = json.dumps(message["info"])
        yield "INSERT INTO message VALUES (?, ?, ?, ?)", (f"m{number}", "ses_1", number, text)
        for place, part in enumerate(message["parts"]):
            yield "INSERT INTO part VALUES (?, ?, ?)", (f"p{number}{place}", f"m{number}", json.dumps(part))


def database(path: Path, messages: list[dict[str, Any]]) -> Path:
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE session (id, parent_id, time_created)")
        made.execute("CREATE TABLE message (id, session_id, time_created, data)")
        made.execute("CREATE TABLE part (id, message_id, data)")
        for statement, values in rows(messages):
            made.execute(statement, values)
        made.commit()
    return path


def test_database_and_older_storage_say_what_the_export_says(tmp_path: Path) -> None:
    messages = [
        asked(0),
        said(0, 9_000, tokens(100, 10), tool(2_000, 8_000)),
        said(9_500, 10_000, tokens(20, 5, 110)),
    ]
    paths = [
        export(tmp_path / "s.json", "ses_1", *messages),
        storage(tmp_path / "storage", messages),
        database(tmp_path / "opencode.db", messages),
    ]
    assert all(OPENCODE.recognises(read_head(path)) for path in paths)
    exported, stored, in_database = (list(OPENCODE.read(path, Notes())) for path in paths)
    assert exported == stored == in_database


def test_a_database_of_another_tool_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "opencode.db"
    path.write_text("no database")
    with pytest.raises(TraceError, match="opencode export"):
        list(OPENCODE.read(path, Notes()))


def test_a_message_without_tokens_is_noted(tmp_path: Path) -> None:
    notes = Notes()
    path = export(tmp_path / "s.json", "ses_1", said(0, 1, None), {"info": None, "parts": 3})
    assert list(OPENCODE.read(path, notes)) == []
    assert set(notes.left_out) == {
        "a call without counts of its tokens",
        "an agent without a call that has counts",
    }
