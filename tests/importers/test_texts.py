import gzip
from pathlib import Path
from typing import Any

import pytest

from concur.sim.errors import TraceError
from concur.sim.importers.importer import Notes
from concur.sim.importers.texts import message_counter, message_texts, value_with_texts


@pytest.mark.parametrize(
    ("message", "texts"),
    [
        ({"content": "a"}, ["a"]),
        (
            {"content": [{"text": "a"}, {"type": "image"}, 3, {"type": "thinking", "thinking": "b"}]},
            ["a", "b"],
        ),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, ["f", "{}"]),
        ({"output": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, ["f", "{}"]),
        ({"output": [{"type": "message", "content": [{"text": "a"}]}]}, ["a"]),
        ({"type": "function_call_output", "output": "a"}, ["a"]),
        ({"content": "a", "reasoning_content": "b"}, ["a", "b"]),
        ({"content": {"text": "a"}, "tool_calls": 3}, []),
    ],
)
def test_the_texts_of_a_message(message: dict[str, Any], texts: list[str]) -> None:
    assert list(message_texts(message)) == texts


def test_the_same_text_is_counted_once() -> None:
    seen: list[str] = []
    count = message_counter(lambda text: seen.append(text) or len(text))  # type: ignore[func-returns-value]
    assert [count({"content": "abc"}), count({"content": "abc"})] == [3, 3]
    assert seen == ["abc"]


def test_texts_stay_whole_and_may_be_compressed(tmp_path: Path) -> None:
    text = f'{{"a": "{"x" * 5000}"}}'
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert value_with_texts(path, Notes()) == {"a": "x" * 5000}


BROKEN = {
    "cut JSON": b"{",
    "no gzip": b"\x1f\x8bnone",
    "cut gzip": gzip.compress(b"{}")[:-4],
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_noted(tmp_path: Path, content: bytes) -> None:
    notes = Notes()
    path = tmp_path / "t.json"
    path.write_bytes(content)
    assert value_with_texts(path, notes) is None
    assert notes.left_out


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="name a recording"):
        value_with_texts(tmp_path / "none", Notes())
