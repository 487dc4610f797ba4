"""Recordings into samples: what is read, and that broken input leaves nothing behind but a clear word."""

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from concur.calib.cli import app as calibrate
from concur.calib.errors import SamplesError
from concur.calib.fit.import_steps import import_steps
from concur.calib.fit.samples import read_samples
from concur.validate.steps.step_log import ScheduledRequest, StepLog, StepRow
from tests.calib.fake_engine import make_facts

PREFILL = ScheduledRequest(64, 32, False)
DECODE = ScheduledRequest(1, 100, True)
META = {
    "geometry": "tiny",
    "device": "cpu",
    "vllm": "0.32.0",
    "torch": "2.13.0",
    "num_gpu_blocks": 400,
    "block_size": 32,
    "max_num_batched_tokens": 512,
    "max_model_len": 4096,
}


def make_row(begin_s: float, *requests: ScheduledRequest, phase: str = "", busy: bool = True) -> StepRow:
    return StepRow(phase, begin_s, begin_s + 0.5, 0.0, busy, requests, 0, 0, 1, 0, 0.1)


def record(path: Path, *rows: StepRow, **facts: Any) -> Path:
    log = StepLog(make_facts(**facts), path)
    for row in rows:
        log.append(row)
    log.close()
    return path


def script_row(begin_s: float, requests: list[list[int]], **changes: Any) -> str:
    row = {"phase": "grid-decode", "cap": None, "t_schedule": begin_s, "t_update": begin_s + 0.5}
    return json.dumps(row | {"requests": requests} | changes)


def script(folder: Path, *lines: str, meta: dict[str, Any] | None = None) -> Path:
    (folder / "meta.json").write_text(json.dumps(META | (meta or {})))
    path = folder / "steps.jsonl.gz"
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    return path


def test_a_recording_becomes_samples(tmp_path: Path) -> None:
    rows = [
        make_row(5.0, PREFILL),
        make_row(5.75, PREFILL, DECODE),
        make_row(6.5, DECODE, phase="run:x", busy=False),
    ]
    samples = import_steps(record(tmp_path / "steps.jsonl.gz", *rows))
    steps = samples.steps
    assert list(steps["phase"]) == ["prefill", "mixed", "run:x"]
    assert list(steps["t_s"]) == [0.0, 0.5, 1.25]
    assert list(steps["step_s"]) == [0.5, 0.75, 0.75]
    assert list(steps["prefill_tokens"]) == [[64], [64], []]
    assert list(steps["prefill_context_tokens"]) == [[32], [32], []]
    assert list(steps["decode_context_tokens"]) == [[], [100], [100]]
    assert samples.provenance.num_gpu_blocks == 200


def test_sittings_of_one_engine_are_put_one_after_the_other(tmp_path: Path) -> None:
    path = record(tmp_path / "steps.jsonl", make_row(900.0, DECODE))
    record(path, make_row(3.0, DECODE), date="2026-01-02")  # another process, another clock
    steps = import_steps(path).steps
    assert list(steps["t_s"]) == [0.0, 0.5]
    assert list(steps["step_s"]) == [0.5, 0.5]


def test_another_engine_in_the_same_file_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "steps.jsonl", make_row(0.0, DECODE))
    record(path, make_row(0.0, DECODE), num_gpu_blocks=300)
    with pytest.raises(SamplesError, match=r"steps\.jsonl:3: another engine .* file of its own"):
        import_steps(path)


def test_warm_up_is_left_out(tmp_path: Path) -> None:
    rows = [make_row(0.0, PREFILL, phase="warmup"), make_row(1.0, DECODE)]
    assert list(import_steps(record(tmp_path / "s.jsonl", *rows)).steps["phase"]) == ["decode"]


def test_the_older_form_is_read_with_what_it_lacks_noted(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        script_row(0.0, [[8, 0]], phase="warmup"),
        script_row(1.0, [[512, 0]], phase="grid-prefill"),
        script_row(2.0, [[1, 40], [1, 41], [30, 0]]),
        script_row(9.0, [[1, 7]], phase="thrash", cap=8),
    )
    samples = import_steps(path)
    assert list(samples.steps["phase"]) == ["prefill", "mixed", "run:thrash-cap8"]
    assert list(samples.steps["step_s"]) == [0.5, 0.5, 0.5]
    assert list(samples.steps["decode_context_tokens"]) == [[], [40, 41], [7]]
    assert samples.provenance.model["hidden_size"] == 256
    assert any("taken for a decode" in note for note in samples.provenance.notes)


def test_the_older_form_with_async_scheduling_counts_no_overlap(tmp_path: Path) -> None:
    lines = [script_row(begin_s, [[1, 40]]) for begin_s in (0.0, 0.2, 0.5)]
    path = script(tmp_path, *lines, meta={"async_scheduling": True})
    assert list(import_steps(path).steps["step_s"].round(9)) == [0.5, 0.2, 0.3]


BROKEN = {
    "a line cut off": ('{"phase": ""', r"steps\.jsonl:3: no JSON .* delete the line"),
    "no object": ("[1]", r"steps\.jsonl:3: \[1\] but must be a JSON object"),
    "a field missing": ('{"phase": ""}', r"steps\.jsonl:3: .*begin_s.*; delete the line"),
    "an end before the begin": (
        json.dumps(asdict(make_row(5.0, DECODE)) | {"end_s": 4.0}),
        r"steps\.jsonl:3: the step ends at 4\.0 s, not after its begin at 5\.0 s; delete",
    ),
    "no request": (json.dumps(asdict(make_row(5.0))), r"steps\.jsonl:3: requests = \[\] but"),
    "a negative count": (
        json.dumps(asdict(make_row(5.0, ScheduledRequest(-1, 3, False)))),
        r"steps\.jsonl:3: requests = \[\(-1, 3\)\] but",
    ),
    "a count that is no number": (
        json.dumps(asdict(make_row(5.0)) | {"requests": [["many", 3, False]]}),
        r"steps\.jsonl:3: requests\.0\.",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_line_is_named(tmp_path: Path, what: str) -> None:
    line, message = BROKEN[what]
    path = record(tmp_path / "steps.jsonl", make_row(0.0, DECODE))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(SamplesError, match=message):
        import_steps(path)


def test_files_without_steps_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(SamplesError, match=r"empty\.jsonl: is empty; .* record again"):
        import_steps(tmp_path / "empty.jsonl")
    with pytest.raises(SamplesError, match="not readable"):
        import_steps(tmp_path / "absent.jsonl")
    with pytest.raises(SamplesError, match="there are no steps"):
        import_steps(record(tmp_path / "header.jsonl"))


def test_a_file_cut_off_in_compression_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "steps.jsonl.gz", *(make_row(float(n), DECODE) for n in range(40)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SamplesError, match=r"steps\.jsonl\.gz: not readable after line \d+ .*record again"):
        import_steps(path)


def test_the_older_form_needs_its_meta(tmp_path: Path) -> None:
    path = script(tmp_path, script_row(0.0, [[1, 4]]), meta={"geometry": "huge"})
    with pytest.raises(SamplesError, match=r"geometry = 'huge' is not among .*tiny"):
        import_steps(path)
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(SamplesError, match=r"meta\.json:1: geometry"):
        import_steps(path)
    (tmp_path / "meta.json").unlink()
    with pytest.raises(SamplesError, match=r"meta\.json: not readable .* keep it beside"):
        import_steps(path)


def command() -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.add_typer(calibrate, name="calibrate")
    app.callback()(lambda: None)
    return app


def test_the_verb_writes_samples_and_says_what_is_in_them(tmp_path: Path) -> None:
    steps = record(tmp_path / "steps.jsonl", make_row(0.0, DECODE), make_row(1.0, DECODE, busy=False))
    out = tmp_path / "new" / "samples.parquet"
    result = CliRunner().invoke(command(), ["calibrate", "import", str(steps), "--out", str(out)])
    assert result.exit_code == 0
    assert "2 steps (decode 2)" in result.stdout
    assert len(read_samples(out)) == 2


@pytest.mark.parametrize("name", ["samples.csv", "folder.parquet"])
def test_the_verb_refuses_an_output_it_cannot_write(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.parquet").mkdir()
    steps = record(tmp_path / "steps.jsonl", make_row(0.0, DECODE))
    arguments = ["calibrate", "import", str(steps), "--out", str(tmp_path / name)]
    result = CliRunner().invoke(command(), arguments)
    assert isinstance(result.exception, SamplesError)


def test_a_refused_recording_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text("nonsense\n")
    out = tmp_path / "out" / "samples.parquet"
    arguments = ["calibrate", "import", str(tmp_path / "steps.jsonl"), "--out", str(out)]
    assert isinstance(CliRunner().invoke(command(), arguments).exception, SamplesError)
    assert not out.exists()
