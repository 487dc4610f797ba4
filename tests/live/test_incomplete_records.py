"""A run that did not come to its end is reported as what it is: what is there is shown, and marked.

The danger: every consumer of a record was written for one that has all metrics, and a live run that was
stopped, whose server died or whose agent failed has few.
"""

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from concur.cli import main
from concur.sim.record.metrics import no_metrics
from concur.sim.record.record import RunRecord, load_record, write_record
from concur.sim.show.decisions import decisions_figure
from concur.sim.show.perfetto import write_perfetto
from concur.sim.show.report import write_report
from concur.sim.show.tables import comparison_table, metrics_table, phase_table
from concur.sim.world.simulate import simulate
from concur.validate.live.fake_server import Faults
from tests.helpers import with_tables
from tests.live.helpers import live_scenario, run_on_fake, small_workload

NONE = live_scenario()
CAPPED = live_scenario(controller={"kind": "agent_cap", "cap": 2, "interval_s": 0.02})


def failed(kind: str) -> RunRecord:
    scenario = CAPPED if kind == "agent_cap" else NONE
    record, _, _ = run_on_fake(scenario, small_workload(), faults=Faults(calls={2: 400}))
    assert record.run["complete"] is False
    return record


def died() -> RunRecord:
    record, _, _ = run_on_fake(NONE, small_workload(), faults=Faults(die_at_call=1))
    return record


def barely_begun(record: RunRecord) -> RunRecord:
    """Stop a run before anything but its first sample was there."""
    num_rows = {"requests": 0, "agents": 0, "ticks": 0, "timeline": 1}
    return with_tables(record, **{name: record.tables[name][:number] for name, number in num_rows.items()})


@pytest.fixture(scope="module")
def complete() -> RunRecord:
    return simulate(CAPPED, small_workload())


def test_metrics_that_are_not_known_have_the_names_of_those_that_are(complete: RunRecord) -> None:
    known, unknown = complete.metrics, no_metrics()
    assert [*unknown, "wall_clock_s"] == list(known)
    for name, value in unknown.items():
        if isinstance(value, dict):
            assert list(value) == list(known[name])
    assert unknown["phases"]["middle"].keys() == known["phases"]["middle"].keys()


def test_an_incomplete_run_holds_every_metric_and_null_where_it_has_none() -> None:
    record = failed("none")
    assert record.metrics.keys() == simulate(NONE, small_workload()).metrics.keys()
    assert record.metrics["makespan_s"] is None, "a makespan of part of the work is no makespan"
    assert record.metrics["num_agents"] == 4
    assert record.metrics["prompt_tokens"] > 0


def test_a_record_written_without_some_metrics_is_read_as_not_having_them(tmp_path: Path) -> None:
    record = failed("none")
    old = {"num_agents": 4, "num_agents_skipped": 0, "num_requests": 14, "wall_clock_s": 1.0}
    write_record(replace(record, run=record.run | {"metrics": old}), tmp_path / "run")
    metrics = load_record(tmp_path / "run").metrics
    assert metrics == no_metrics() | old


@pytest.mark.parametrize(
    ("what", "beside"), [("failed", True), ("died", False), ("barely begun", False), ("barely begun", True)]
)
def test_a_report_shows_what_is_there_and_marks_it(
    what: str, beside: bool, complete: RunRecord, tmp_path: Path
) -> None:
    record = died() if what == "died" else failed("none")
    if what == "barely begun":
        record = barely_begun(record)
    page = write_report([record, *([complete] if beside else ())], tmp_path / "report").read_text()
    assert "none (incomplete)" in page
    assert "agents came to their end" in page
    assert "failed at call" in page
    assert (tmp_path / "report" / "timeline_none__incomplete_.png").exists()
    for table in (metrics_table(record), phase_table([record]), comparison_table([record, complete])):
        assert table.row_count > 0
    write_perfetto(record, tmp_path / "t.json.gz")
    assert json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes()))["traceEvents"]


def test_an_incomplete_run_is_neither_baseline_nor_best_cap(complete: RunRecord) -> None:
    rows = comparison_table([failed("none"), failed("agent_cap"), complete])
    labels, _, speed_ups = (list(column.cells) for column in rows.columns[:3])
    assert labels == ["none", "agent_cap=2", "agent_cap=2 *"]
    assert speed_ups == ["-", "-", "-"]


def test_a_record_without_a_single_sample_is_one_clear_line(tmp_path: Path) -> None:
    record = failed("none")
    empty = with_tables(barely_begun(record), timeline=record.tables["timeline"][:0])
    with pytest.raises(ValueError, match="none holds no sample of its timeline"):
        write_report([empty], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_report_verb_takes_an_incomplete_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(failed("none"), tmp_path / "run")
    monkeypatch.setattr(
        sys, "argv", ["concur", "report", str(tmp_path / "run"), "--out", str(tmp_path / "r")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "report: " in capsys.readouterr().out


def test_decisions_of_a_run_that_ended_before_its_first_tick_are_drawn_empty() -> None:
    figure = decisions_figure(barely_begun(failed("none")), values=["usage"])
    assert len(figure.axes) == 2
