"""The verb: what it prints, and a whole trace or none."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from concur.sim.cli.trace_import import write_trace
from concur.sim.errors import TraceError
from concur.sim.importers.importer import Notes
from concur.sim.traces.format import TraceAgent, TraceStep
from concur.sim.traces.trace import read_trace
from tests.helpers import concur
from tests.importers.helpers import (
    claude_asks,
    claude_result,
    claude_says,
    codex_count,
    codex_item,
    codex_meta,
    usage,
    write_lines,
)

AGENT = TraceAgent("a", (TraceStep(10, 1),), arrival_s=5.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    child: dict[str, Any] = {"agentId": "x", "isSidechain": True}
    session = [
        claude_asks(0),
        claude_says(2, "m1", usage(100, 50), "t1"),
        claude_asks(3, **child),
        claude_says(6, "c1", usage(70, 7), **child),
        claude_result(6.5, "t1"),
        claude_says(9, "m2", usage(200, 0)),
    ]
    write_lines(tmp_path / "s.jsonl", session)
    rollout = [codex_meta("c", 100), codex_item(101, "user_message"), codex_count(105, (500, 0, 5))]
    write_lines(tmp_path / "r.jsonl", rollout)
    return tmp_path


def test_files_of_several_formats_become_one_trace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "trace", "import", "s.jsonl", "r.jsonl", "--out", "t.jsonl") == 0
    assert capsys.readouterr().out.splitlines() == [
        "t.jsonl: 3 agents, 4 calls, 870 prompt and 63 output tokens",
        "a guess: an output of no token counts as one: 1 (first: s.jsonl, line 6)",
    ]
    agents = read_trace(folder / "t.jsonl")
    assert [(agent.agent_id, agent.arrival_s) for agent in agents] == [
        ("s", 0.0),
        ("s/x", None),
        ("c", 101.0),
    ]
    assert sorted(file.name for file in folder.iterdir()) == ["r.jsonl", "s.jsonl", "t.jsonl"]
    assert concur(monkeypatch, "trace", "check", "t.jsonl") == 0


def test_an_import_of_an_import_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert concur(monkeypatch, "trace", "import", "s.jsonl", "r.jsonl", "--out", "t.jsonl.gz") == 0
    for out in ("u.jsonl", "v.jsonl.gz"):
        assert concur(monkeypatch, "trace", "import", "t.jsonl.gz", "--out", out) == 0
    assert gzip.decompress((folder / "t.jsonl.gz").read_bytes()) == (folder / "u.jsonl").read_bytes()
    assert (folder / "t.jsonl.gz").read_bytes() == (folder / "v.jsonl.gz").read_bytes()


def test_strict_refuses_any_note(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "trace", "import", "s.jsonl", "--out", "t.jsonl", "--strict") == 2
    assert "counts as one: 1 (first: s.jsonl, line 6) (notes: 1); import without --strict" in _error(capsys)
    assert not (folder / "t.jsonl").exists()
    assert concur(monkeypatch, "trace", "import", "r.jsonl", "--out", "t.jsonl", "--strict") == 0


def test_an_agent_that_comes_twice_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "trace", "import", "r.jsonl", "r.jsonl", "--out", "t.jsonl") == 2
    assert "agent_id 'c' comes twice; leave out the file" in _error(capsys)


def test_formats_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "trace", "import", "r.jsonl", "--out", "t.jsonl", "--from", "codex") == 0
    assert concur(monkeypatch, "trace", "import", "r.jsonl", "--out", "t.jsonl", "--from", "coda") == 2
    assert "format = 'coda' but must be one of claude-code, codex" in _error(capsys)
    assert concur(monkeypatch, "trace", "import", "s.jsonl", "--out", "u.jsonl", "--from", "codex") == 2
    assert "no agent with a call in these files" in _error(capsys)


@pytest.mark.parametrize("verb", [("trace", "check"), ("trace", "describe")])
def test_a_recording_in_place_of_a_trace_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]
) -> None:
    assert concur(monkeypatch, *verb, "s.jsonl") == 2
    hint = "looks like a Claude Code session; concur trace import s.jsonl --out TRACE --from claude-code"
    assert hint in _error(capsys)


def test_a_recording_in_a_scenario_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = ('trace = "r.jsonl"\n[engine]', "num_gpu_blocks = 601\n[controller]", 'kind = "none"')
    (folder / "x.toml").write_text("\n".join(("seed = 1\n[workload]", *sections)))
    assert concur(monkeypatch, "simulate", "x.toml") == 2
    assert "looks like a Codex rollout; concur trace import" in _error(capsys)


def test_a_broken_trace_is_no_recording(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(folder / "b.jsonl", [{"agent_id": "a", "steps": []}])
    assert concur(monkeypatch, "trace", "check", "b.jsonl") == 2
    assert "looks like" not in _error(capsys)


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def agents() -> Iterator[TraceAgent]:
        yield AGENT
        raise KeyboardInterrupt

    (tmp_path / "t.jsonl").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        write_trace(agents(), tmp_path / "t.jsonl", Notes())
    assert [file.name for file in tmp_path.iterdir()] == ["t.jsonl"]
    assert (tmp_path / "t.jsonl").read_text() == "before"


def test_a_trace_that_breaks_the_format_is_not_written(tmp_path: Path) -> None:
    broken = replace(AGENT, parent="nobody", parent_step=0, arrival_s=None)
    with pytest.raises(TraceError, match=r"/t.jsonl, line 1, parent: 'nobody' is no agent of this file"):
        write_trace([broken], tmp_path / "t.jsonl", Notes())
    assert list(tmp_path.iterdir()) == []


def test_arrivals_count_from_the_first(tmp_path: Path) -> None:
    late = replace(AGENT, agent_id="b", arrival_s=1_700_000_007.25)
    early = replace(AGENT, arrival_s=1_700_000_000.0)
    write_trace([late, early, replace(AGENT, agent_id="c", arrival_s=None)], tmp_path / "t.jsonl", Notes())
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [line.get("arrival_s") for line in lines] == [7.25, 0.0, None]


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())
