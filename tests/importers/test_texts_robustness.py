"""Whatever stands in a recording of texts: a trace that keeps to the format, or one clear error."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concur.sim.cli.trace_import import write_trace
from concur.sim.errors import TraceError
from concur.sim.importers.catalog import IMPORTERS, detect, recognising
from concur.sim.importers.files import read_head
from concur.sim.importers.importer import JointImporter, Notes
from concur.sim.traces.trace import read_trace
from tests.importers import (
    test_inspect_ai,
    test_mini_swe_agent,
    test_opencode,
    test_openhands,
    test_swe_agent,
)
from tests.importers.server_log import RECORDINGS
from tests.importers.test_robustness import GARBAGE, places, put

SAMPLES: Final[dict[str, Any]] = {
    "opencode": {
        "info": {"id": "ses_1", "parentID": "ses_0"},
        "messages": [
            test_opencode.asked(0),
            test_opencode.said(0, 9, test_opencode.tokens(100, 10), test_opencode.tool(2, 8, "ses_2")),
            test_opencode.asked(20),
            test_opencode.said(21, 30, test_opencode.tokens(20, 5, 110)),
        ],
    },
    "openhands": test_openhands.row(
        [test_openhands.asked(0), test_openhands.action(2, "a"), test_openhands.old_action(4, "b")],
        [test_openhands.used("a", 100, 10), test_openhands.used("b", 130, 7, 100)],
        latencies=[test_openhands.took("a", 1.5)],
    ),
    "swe-agent": {
        "trajectory": [
            test_swe_agent.step([test_swe_agent.TASK], "ls", "ls"),
            test_swe_agent.step([test_swe_agent.TASK, test_swe_agent.SYSTEM], "done"),
        ],
        "history": [test_swe_agent.TASK, test_swe_agent.message("assistant", "ls")],
        "info": {"model_stats": {"tokens_sent": 9, "tokens_received": 2}},
    },
    "mini-swe-agent": {
        "trajectory_format": "mini-swe-agent-1.1",
        "messages": [
            {"role": "user", "content": [{"text": "a b"}]},
            test_mini_swe_agent.answer(1, test_mini_swe_agent.usage(100, 10, 5)),
            test_mini_swe_agent.result(2),
            test_mini_swe_agent.answer(3, None),
        ],
    },
    "inspect-ai": {
        "version": 2,
        "status": "success",
        "eval": {"task": "t"},
        "samples": [test_inspect_ai.sample("s", *test_inspect_ai.SPANS)],
    },
}
FILES: Final = {
    "opencode": "ses_*.json",
    "openhands": "output.jsonl",
    "mini-swe-agent": "*.traj.json",
    "inspect-ai": "log.json",
}


def written(name: str, paths: list[Path], out: Path) -> Notes:
    importer, notes = IMPORTERS[name], Notes()
    assert isinstance(importer, JointImporter)
    write_trace(importer.read_all(paths, notes, lambda text: len(text.split())), out, notes)
    return notes


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_garbage_makes_a_note_or_an_error_but_no_crash(name: str, data: st.DataObject) -> None:
    value = [json.loads(json.dumps(SAMPLES[name]))]
    for place in data.draw(st.lists(st.sampled_from(places(value)), min_size=1, max_size=6)):
        put(value, place, data.draw(GARBAGE))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("r.jsonl" if name == "openhands" else "r.json")
        path.write_text(json.dumps(value[0], indent=None if name == "openhands" else 1) + "\n")
        recognising(read_head(path))
        with suppress(_Clear):
            _tried(name, path, Path(folder) / "t.jsonl")


class _Clear(Exception):  # noqa: N818
    """An error that says what is wrong with the recording."""


def _tried(name: str, path: Path, out: Path) -> None:
    try:
        written(name, [path], out)
    except TraceError as error:
        if any(part in str(error) for part in ("no agent with a call", "arrival_s")):
            raise _Clear from error
        raise


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_is_told_by_itself(tmp_path: Path, name: str) -> None:
    path = tmp_path / ("r.jsonl" if name == "openhands" else "r.json")
    path.write_text(json.dumps(SAMPLES[name], indent=None if name == "openhands" else 1) + "\n")
    assert detect(path).name == name
    written(name, [path], tmp_path / "t.jsonl")


@pytest.mark.parametrize("name", FILES)
def test_a_recording_of_a_real_client_becomes_a_trace(tmp_path: Path, name: str) -> None:
    paths = sorted((RECORDINGS / name).glob(FILES[name]))
    assert {detect(path).name for path in paths} == {name}
    written(name, paths, tmp_path / "t.jsonl")
    assert read_trace(tmp_path / "t.jsonl")
