"""What the duration of a step is, on scripted clocks; and that a recording survives what kills its writer."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from concur.validate.steps.step_log import ScheduledRequest, StepFile, StepLog, StepRow, step_spans

DECODE = (ScheduledRequest(1, 100, True),)


def make_row(begin_s: float, end_s: float, *, busy: bool = True, outside_s: float = 0.0) -> StepRow:
    return StepRow("", begin_s, end_s, outside_s, busy, DECODE, 0, 0, 1, 0, 0.1)


def durations(rows: list[StepRow], *, is_async: bool = False) -> list[float]:
    return [round(span.step_s, 9) for span in step_spans(rows, is_async=is_async)]


def test_back_to_back_steps_sum_to_the_wall_clock() -> None:
    rows = [make_row(10.0, 11.0), make_row(11.25, 12.0), make_row(12.5, 14.0, busy=False)]
    assert durations(rows) == [1.0, 1.0, 2.0]
    assert sum(durations(rows)) == rows[-1].end_s - rows[0].begin_s


def test_an_idle_gap_belongs_to_no_step() -> None:
    rows = [make_row(10.0, 11.0, busy=False), make_row(20.0, 21.0), make_row(21.5, 22.0)]
    assert durations(rows) == [1.0, 1.0, 1.0]
    assert [span.begin_s for span in step_spans(rows, is_async=False)] == [10.0, 20.0, 21.0]


def test_overlapping_steps_are_not_counted_twice() -> None:
    rows = [make_row(0.0, 1.0), make_row(0.1, 2.0), make_row(1.1, 3.5), make_row(2.1, 4.0, busy=False)]
    assert durations(rows, is_async=True) == [1.0, 1.0, 1.5, 0.5]


def test_work_outside_is_subtracted_where_the_device_waits_for_it() -> None:
    rows = [make_row(0.0, 1.0), make_row(1.5, 2.5, outside_s=0.4)]
    assert durations(rows) == [1.0, 1.1]
    assert durations(rows, is_async=True) == [1.0, 1.5]


def test_outside_time_is_counted_once() -> None:
    log = StepLog({})
    with log.outside():
        pass
    assert log.take_outside_s() > 0
    assert log.take_outside_s() == 0


def test_outside_time_counts_when_the_work_fails() -> None:
    log = StepLog({})
    with pytest.raises(ValueError, match="x"), log.outside():
        raise ValueError("x")
    assert log.take_outside_s() > 0


@pytest.mark.parametrize("name", ["steps.jsonl", "steps.jsonl.gz"])
def test_a_file_never_closed_holds_whole_lines_and_can_be_appended_to(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    logs = [StepLog({"sitting": sitting}, path, phase="p") for sitting in range(2)]
    for log in logs:
        for number in range(70):
            log.append(replace(make_row(number, number + 0.5), phase=log.phase))
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["engine"]["sitting"] for line in lines if "engine" in line] == [0, 1]
    rows = [line for line in lines if "begin_s" in line]
    assert len(rows) == 2 * 64  # a group; what was gathered after it was lost with the writer
    assert rows[0]["requests"] == [[1, 100, True]]
    for log in logs:
        log.close()


def test_nothing_is_held_back_once_the_engine_is_idle(tmp_path: Path) -> None:
    log = StepLog({}, tmp_path / "steps.jsonl")
    log.append(make_row(0.0, 1.0, busy=False))
    assert len((tmp_path / "steps.jsonl").read_text().splitlines()) == 2
    log.close()


def test_a_closed_file_keeps_everything_and_closes_twice(tmp_path: Path) -> None:
    file = StepFile(tmp_path / "deep" / "lines.jsonl.gz")
    file.write({"a": 1})
    file.close()
    file.close()
    assert gzip.decompress((tmp_path / "deep" / "lines.jsonl.gz").read_bytes()) == b'{"a": 1}\n'
