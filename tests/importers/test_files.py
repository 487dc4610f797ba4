import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from concur.sim.errors import ExtraMissingError, TraceError
from concur.sim.importers import files
from concur.sim.importers.catalog import IMPORTERS, detect
from concur.sim.importers.files import json_objects, read_head, whole_value
from concur.sim.importers.importer import Importer, JointImporter, Notes

OBJECTS: list[dict[str, Any]] = [{"a": number, "text": "x" * 2000} for number in range(3)]
WAYS = {
    "lines.jsonl": "".join(json.dumps(value) + "\n" for value in OBJECTS),
    "lines.txt": "".join(json.dumps(value) + "\n" for value in OBJECTS),
    "list.json": json.dumps(OBJECTS),
    "pretty.json": json.dumps(OBJECTS, indent=2),
    "lists.jsonl": json.dumps(OBJECTS[:2]) + "\n" + json.dumps(OBJECTS[2]) + "\n",
}


@pytest.fixture(params=["with ijson", "without ijson"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without ijson":
        monkeypatch.setitem(sys.modules, "ijson", None)
    else:
        pytest.importorskip("ijson")


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_every_way_to_write_objects_is_read(tmp_path: Path, name: str, is_compressed: bool) -> None:
    path = tmp_path / (name + ".gz" * is_compressed)
    text = WAYS[name].encode()
    path.write_bytes(gzip.compress(text) if is_compressed else text)
    notes = Notes()
    assert [value for _, value in json_objects(path, notes)] == OBJECTS
    assert list(notes.lines()) == []


@pytest.mark.parametrize("name", ["one.json", "pretty.json"])
def test_one_object_is_read_without_its_texts(tmp_path: Path, name: str) -> None:
    value = {"id": "s", "steps": OBJECTS, "nested": {"deep": [[1, 2.5], {}], "none": None}}
    path = tmp_path / name
    path.write_text(json.dumps(value, indent=1 if name == "pretty.json" else None))
    (found,) = [found for _, found in json_objects(path, Notes())]
    assert found["nested"] == value["nested"]
    assert [step["a"] for step in found["steps"]] == [0, 1, 2]


def test_the_head_of_one_object_has_its_first_elements(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"rows": [{"n": [number, {}]} for number in range(50)], "id": "s"}))
    (value,) = read_head(path).values
    assert value["id"] == "s"
    assert value["rows"][:8] == [{"n": [number, {}]} for number in range(8)]
    assert len(value["rows"]) in (8, 50)


def test_a_file_that_breaks_off_gives_what_it_has(tmp_path: Path) -> None:
    packed = tmp_path / "lines.jsonl.gz"
    packed.write_bytes(gzip.compress(WAYS["lines.jsonl"].encode())[:-12])
    notes = Notes()
    assert list(json_objects(packed, notes))
    assert "the rest of a compressed file that breaks off" in notes.left_out
    broken = tmp_path / "list.json"
    broken.write_text(WAYS["list.json"][:-20])
    notes = Notes()
    list(json_objects(broken, notes))
    assert list(notes.left_out) == ["the rest of a JSON list that breaks off"]
    broken.write_text('{"a": 1,\n"b": ')
    notes = Notes()
    assert whole_value(broken, notes) is None
    assert len(notes.left_out) == 1


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file; name a recording"):
        read_head(tmp_path / "no.jsonl")
    with pytest.raises(TraceError, match="cannot be read"):
        read_head(tmp_path)


def test_large_json_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ijson", None)
    monkeypatch.setattr(files, "MAX_WHOLE_BYTES", 100)
    path = tmp_path / "list.json"
    path.write_text(WAYS["list.json"])
    with pytest.raises(ExtraMissingError, match=r"concur-admission\[import\]"):
        list(json_objects(path, Notes()))


def test_a_file_of_no_known_format_is_named_with_what_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"hello": 1, "world": 2}\n')
    with pytest.raises(
        TraceError, match=r"x.jsonl: no known format \(it begins with an object with 'hello', "
    ):
        detect(path)
    path.write_text("hello\n")
    with pytest.raises(TraceError, match=r"it begins with no line of JSON\); known: claude-code, codex, "):
        detect(path)


def test_a_file_of_two_formats_is_named_with_both(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"resourceSpans": []}\n{"agent_id": "a", "steps": []}\n')
    with pytest.raises(TraceError, match="could be otel and concur; say which one with --from NAME"):
        detect(path)


def test_every_importer_fits_its_protocol() -> None:
    for name, importer in IMPORTERS.items():
        assert isinstance(importer, Importer)
        assert importer.name == name
        assert importer.title
        assert importer.needs_tokenizer or isinstance(importer, JointImporter)
