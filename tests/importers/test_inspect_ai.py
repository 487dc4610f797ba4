import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from concur.sim.errors import TraceError
from concur.sim.importers.files import read_head
from concur.sim.importers.importer import Notes
from concur.sim.importers.inspect_ai import INSPECT_AI
from tests.importers.helpers import at, numbers, waits
from tests.importers.server_log import RECORDINGS, assert_agrees, by_agent, scripted_rows


def begun(name: str, parent: str | None, kind: str) -> dict[str, Any]:
    return {"event": "span_begin", "id": name, "parent_id": parent, "type": kind, "name": kind}


def model(
    began: float, ended: float, span: str | None, fresh: int, tokens: int, **more: Any
) -> dict[str, Any]:
    usage = {"input_tokens": fresh, "output_tokens": tokens} | more.pop("usage", {})
    return {
        "event": "model",
        "timestamp": at(began),
        "completed": at(ended),
        "span_id": span,
        "output": {"usage": usage},
    } | more


def sample(name: str | int, *events: Any, epoch: int = 1) -> dict[str, Any]:
    return {"id": name, "epoch": epoch, "events": events}


def json_log(path: Path, *samples: Any) -> Path:
    log = {"version": 2, "status": "success", "eval": {"task": "t"}, "results": {"value": float("nan")}}
    path.write_text(json.dumps(log | {"samples": samples}, indent=2))
    return path


def eval_log(path: Path, *samples: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in samples:
            archive.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", json.dumps(one, indent=2))
        archive.writestr("header.json", "{}")
    return path


SPANS = (
    begun("solvers", None, "solvers"),
    begun("main", "solvers", "agent"),
    model(0, 1, "main", 100, 10),
    begun("tool", "main", "tool"),
    begun("child", "tool", "agent"),
    model(1.5, 2, "child", 50, 5),
    model(4, 5, "main", 20, 10, usage={"input_tokens_cache_read": 100, "input_tokens_cache_write": 8}),
    begun("scorers", None, "scorers"),
    begun("scorer", "scorers", "scorer"),
    model(6, 7, "scorer", 300, 3),
)


def test_calls_waits_and_sub_agents_are_those_that_the_server_saw() -> None:
    notes = Notes()
    path = RECORDINGS / "inspect-ai" / "log.json"
    assert INSPECT_AI.recognises(read_head(path))
    agents = list(INSPECT_AI.read(path, notes))
    main, first, second, third = (agent.agent_id for agent in agents)
    # It sends no names: the agents took turns as the script has it.
    turns = [main] * 2 + [first] * 3 + [main] * 2 + [second] * 3 + [third] * 3 + [main]
    rows = scripted_rows("inspect-ai")
    names = {row["received_s"]: name for row, name in zip(rows, turns, strict=True)}
    assert_agrees(agents, by_agent(rows, lambda row: names[row["received_s"]]))
    assert [agent.parent_step for agent in agents] == [None, 1, 3, 3]
    assert notes.left_out == {"a call of a scorer": 1}
    assert not notes.guessed


@pytest.mark.parametrize("write", [json_log, eval_log])
def test_agent_spans_within_another_are_sub_agents(tmp_path: Path, write: Any) -> None:
    notes = Notes()
    path = write(tmp_path / f"log.{'eval' if write is eval_log else 'json'}", sample("s", *SPANS))
    assert INSPECT_AI.recognises(read_head(path))
    main, child = INSPECT_AI.read(path, notes)
    assert numbers(main) == [(None, 100, 10), (None, 18, 10)]
    assert (child.parent, child.parent_step, child.spawn_delay_s, child.joins) == ("s/1", 0, 0.5, True)
    assert notes.left_out["a call of a scorer"] == 1


def test_a_log_packed_with_zstd_reads_as_one_that_is_not(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    plain = eval_log(tmp_path / "plain.eval", sample("s", *SPANS))
    text = zipfile.ZipFile(plain).read("samples/s_epoch_1.json")
    name, packed = b"samples/s_epoch_1.json", zstandard.ZstdCompressor().compress(text)
    sizes = (zlib.crc32(text), len(packed), len(text), len(name), 0)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 63, 0, 93, 0, 33, *sizes) + name
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 63, 63, 0, 93, 0, 33, *sizes, 0, 0, 0, 0, 0) + name
    begin = len(local) + len(packed)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), begin, 0)
    path = tmp_path / "packed.eval"
    path.write_bytes(local + packed + central + end)
    assert list(INSPECT_AI.read(path, Notes())) == list(INSPECT_AI.read(plain, Notes()))


def test_older_logs_have_the_events_of_a_tool_within_its_event(tmp_path: Path) -> None:
    tool = {
        "event": "tool",
        "id": "call",
        "timestamp": at(1.2),
        "completed": at(3),
        "events": [model(1.5, 2.5, None, 50, 5)],
    }
    events = [model(0, 1, None, 100, 10), tool, model(4, 5, None, 130, 10)]
    main, child = INSPECT_AI.read(json_log(tmp_path / "l.json", sample("s", *events)), Notes())
    assert numbers(main) == [(None, 100, 10), (None, 20, 10)]
    assert (child.parent, child.parent_step, numbers(child)) == ("s/1", 0, [(None, 50, 5)])


def test_what_took_no_model_is_left_out(tmp_path: Path) -> None:
    notes = Notes()
    events = [
        model(0, 1, "m", 100, 10, cache="read"),
        model(1, 2, "m", 100, 10, role="grader"),
        model(2, 3, "m", 100, 10, error="no", output={}),
        model(3, 4, "m", 100, 10, config={"max_tokens": 512}),
    ]
    (agent,) = INSPECT_AI.read(json_log(tmp_path / "l.json", sample(1, *events, epoch=2)), notes)
    assert (agent.agent_id, numbers(agent)) == ("1/2", [(None, 100, 10)])
    assert agent.steps[0].max_new_tokens == 512
    assert sum(notes.left_out.values()) == 3


def test_samples_of_two_logs_have_names_of_their_own(tmp_path: Path) -> None:
    paths = [json_log(tmp_path / f"{name}.json", sample("s", model(0, 1, None, 9, 1))) for name in "ab"]
    assert [agent.agent_id for agent in INSPECT_AI.read_all(paths, Notes())] == ["s/1", "b/s/1"]


def test_waits_are_from_completed_to_timestamp(tmp_path: Path) -> None:
    events = [model(0, 1, None, 100, 10), model(3.25, 4, None, 130, 10)]
    (agent,) = INSPECT_AI.read(json_log(tmp_path / "l.json", sample("s", *events)), Notes())
    assert waits(agent) == [2.25, None]


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut short", b"no zip"])
def test_a_broken_eval_file_is_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "l.eval"
    path.write_bytes(content)
    with pytest.raises(TraceError, match="name a whole"):
        list(INSPECT_AI.read(path, Notes()))


def test_a_broken_sample_is_noted(tmp_path: Path) -> None:
    notes = Notes()
    path = tmp_path / "l.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("samples/a.json", '{"id": ')
        archive.writestr("samples/b.json", json.dumps(sample("b", model(0, 1, None, 9, 1), 3, None)))
    assert [agent.agent_id for agent in INSPECT_AI.read(path, notes)] == ["b/1"]
    assert sum(notes.left_out.values()) == 1
