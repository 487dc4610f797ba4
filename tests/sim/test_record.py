"""Run records: whole or not at all, the same bytes again, and nothing of others overwritten."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from concur.controllers import make_controller
from concur.signals import Snapshot
from concur.sim.errors import RecordError
from concur.sim.record.record import RunRecord, load_record, write_record
from concur.sim.record.rows import TABLES
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return simulate(make_scenario(controller={"kind": "concur"}))


def test_a_record_survives_the_disk(record: RunRecord, tmp_path: Path) -> None:
    write_record(record, tmp_path / "run")
    back = load_record(tmp_path / "run")
    assert back.run == record.run
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(back, name), getattr(record, name))


def test_same_scenario_and_seed_give_the_same_bytes(record: RunRecord, tmp_path: Path) -> None:
    write_record(record, tmp_path / "one")
    write_record(simulate(make_scenario(controller={"kind": "concur"})), tmp_path / "two")
    assert len(record.requests) > 50
    for name in TABLES:
        first, second = ((tmp_path / run / f"{name}.parquet").read_bytes() for run in ("one", "two"))
        assert first == second


def test_another_seed_gives_another_run(record: RunRecord) -> None:
    other = simulate(make_scenario(seed=1, controller={"kind": "concur"}))
    assert other.metrics["makespan_s"] != record.metrics["makespan_s"]


def test_a_record_says_what_it_needs_to_be_repeated(record: RunRecord) -> None:
    run = record.run
    assert run["schema_version"] == 1
    assert run["world"] == "sim"
    assert run["scenario"]["controller"]["parameters"]["alpha"] == 2
    assert {"seed", "versions", "git_commit", "profile_hash", "metrics", "warnings"} <= set(run)
    assert any("not calibrated" in warning for warning in run["warnings"])


def test_an_earlier_record_is_replaced_and_nothing_is_left_over(record: RunRecord, tmp_path: Path) -> None:
    write_record(record, tmp_path / "run")
    write_record(record, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"run.json", *(f"{name}.parquet" for name in TABLES)}


def test_a_folder_of_someone_elses_is_not_touched(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(RecordError, match="holds more than a run record"):
        write_record(record, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_record_with_a_file_of_someone_else_is_not_replaced(record: RunRecord, tmp_path: Path) -> None:
    write_record(record, tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("do not lose me")
    with pytest.raises(RecordError, match="holds more than a run record"):
        write_record(record, tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").exists()


def test_a_run_json_with_something_missing_is_refused(record: RunRecord, tmp_path: Path) -> None:
    write_record(record, tmp_path / "run")
    run = {key: value for key, value in record.run.items() if key != "metrics"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    with pytest.raises(RecordError, match=r"run\.json has no 'metrics'"):
        load_record(tmp_path / "run")


def test_a_failure_while_writing_leaves_nothing(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full_disk)
    with pytest.raises(RecordError, match="no space left"):
        write_record(record, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_record_is_refused(record: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not a run record"):
        load_record(tmp_path)
    write_record(record, tmp_path / "newer")
    run = json.loads((tmp_path / "newer" / "run.json").read_text())
    (tmp_path / "newer" / "run.json").write_text(json.dumps(run | {"schema_version": 99}))
    with pytest.raises(RecordError, match="schema version 99"):
        load_record(tmp_path / "newer")
    write_record(record, tmp_path / "torn")
    (tmp_path / "torn" / "ticks.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(RecordError, match="not a run record"):
        load_record(tmp_path / "torn")


def test_recorded_ticks_replay_to_the_same_windows(record: RunRecord) -> None:
    controller = make_controller("concur")
    columns = set(record.ticks.columns) & set(Snapshot.__dataclass_fields__)
    ticks = record.ticks.to_dict("records")
    assert len(ticks) > 5
    for tick in ticks:
        fields: dict[str, Any] = {name: tick[name] for name in columns}
        snapshot = Snapshot(time_s=tick["t_s"], **fields)
        assert controller.window == tick["window_before"]
        assert controller.update(snapshot, active=tick["agents_active"]) == tick["window"]
