"""The memory of an import does not grow with the text of a recording."""

import json
import tracemalloc
from pathlib import Path

import pytest

from tests.importers.helpers import claude_asks, claude_result, claude_says, imported, usage
from tests.importers.test_atif import step

TEXT = "the quick brown fox " * 1000


def test_a_session_of_50_mb_takes_less_than_20(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with path.open("w") as file:
        file.write(json.dumps(claude_asks(0)) + "\n")
        for number in range(1250):
            lines = (
                claude_says(2 * number, f"m{number}", usage(100 + 60 * number, 50), f"t{number}", text=TEXT),
                claude_result(2 * number + 1, f"t{number}", text=TEXT),
            )
            file.writelines(json.dumps(line) + "\n" for line in lines)
    assert path.stat().st_size > 50e6
    assert _peak_bytes(path, num_calls=1250) < 20e6


def test_one_object_of_50_mb_takes_less_than_20(tmp_path: Path) -> None:
    pytest.importorskip("ijson")
    steps = [step(number, 100 + 60 * number, 50, message=TEXT) for number in range(2500)]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"schema_version": "ATIF-v1.4", "session_id": "t", "steps": steps}, indent=1))
    assert path.stat().st_size > 50e6
    del steps
    assert _peak_bytes(path, num_calls=2500) < 20e6


def _peak_bytes(path: Path, num_calls: int) -> int:
    tracemalloc.start()
    try:
        (agent,), _ = imported(path)
        assert len(agent.steps) == num_calls
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
