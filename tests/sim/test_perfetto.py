"""The trace for the Perfetto UI, read back by a strict reader of the trace-event format written here.

The danger: Perfetto drops or misplaces slices that overlap without nesting, and says nothing. So the reader
keeps the format's rules, and the sums are compared with the record's own times.
"""

import gzip
import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from concur.sim.errors import RecordError
from concur.sim.record.record import RunRecord, write_record
from concur.sim.record.rows import RequestRow, TickRow
from concur.sim.record.tables import table_of
from concur.sim.show.perfetto import write_perfetto
from concur.sim.world.simulate import simulate
from tests.helpers import concur, make_scenario, with_frames
from tests.live.helpers import live_scenario, run_on_fake, small_workload

Parts = dict[str, int]
"""Microseconds by slice name."""


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    pid: Annotated[int, Field(gt=0)]
    tid: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(min_length=1)]


class Metadata(_Event):
    ph: Literal["M"]
    name: Literal["process_name", "process_sort_index", "thread_name", "thread_sort_index"]
    args: dict[str, str | int]


class Slice(_Event):
    ph: Literal["X"]
    ts: Annotated[int, Field(ge=0)]
    dur: Annotated[int, Field(gt=0)]
    args: dict[str, int | str] = {}


class Counter(_Event):
    ph: Literal["C"]
    ts: Annotated[int, Field(ge=0)]
    args: Annotated[dict[str, int | float], Field(min_length=1)]


class Instant(_Event):
    ph: Literal["i"]
    s: Literal["t"]
    ts: Annotated[int, Field(ge=0)]
    args: dict[str, Any]


class Trace(BaseModel):
    model_config = ConfigDict(extra="forbid")
    displayTimeUnit: Literal["ms"]  # noqa: N815 - the format's name
    otherData: dict[str, Any]  # noqa: N815
    traceEvents: list[Annotated[Metadata | Slice | Counter | Instant, Field(discriminator="ph")]]  # noqa: N815

    def all_of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.traceEvents if isinstance(event, kind)]

    def lanes(self) -> dict[int, list[Slice]]:
        lanes: dict[int, list[Slice]] = defaultdict(list)
        for event in self.all_of(Slice):
            lanes[event.tid].append(event)
        return lanes


def written(record: RunRecord, folder: Path) -> Trace:
    path = folder / "t.json.gz"
    write_perfetto(record, path)
    return TypeAdapter(Trace).validate_json(gzip.decompress(path.read_bytes()))


def assert_slices_nest(lane: list[Slice]) -> None:
    """Begin in order; lie wholly in the slice that is open, or begin when it has ended."""
    open_ends: list[int] = []
    last_us = 0
    for slice_ in lane:
        assert slice_.ts >= last_us
        last_us = slice_.ts
        while open_ends and open_ends[-1] <= slice_.ts:
            open_ends.pop()
        assert not open_ends or slice_.ts + slice_.dur <= open_ends[-1]
        open_ends.append(slice_.ts + slice_.dur)
    assert len(lane) > 1


def totals(lane: list[Slice]) -> Parts:
    sums: Parts = defaultdict(int)
    for slice_ in lane:
        sums[slice_.name] += slice_.dur
    return sums


@pytest.fixture(scope="module")
def record() -> RunRecord:
    """Small enough a pool to recompute and to preempt, and a window that moves."""
    small = {"num_gpu_blocks": 601, "max_model_len": 8192}
    workload = {"num_agents": 24, "mean_steps": 3}
    run = simulate(make_scenario(engine=small, workload=workload, controller={"kind": "hybrid"}))
    assert run.metrics["recomputed_tokens"] > 0
    assert run.metrics["gate_pauses"] + run.metrics["step_wait_s"]["max"] > 0
    return run


def test_the_slices_of_a_lane_nest_and_add_up_to_the_agents_latency(
    record: RunRecord, tmp_path: Path
) -> None:
    trace = written(record, tmp_path)
    lanes = trace.lanes()
    names = {event.tid: event.args["name"] for event in trace.all_of(Metadata) if event.name == "thread_name"}
    assert len(lanes) == len(record.agents) == 24
    agents: list[dict[Any, Any]] = record.agents.to_dict("records")
    for agent in agents:
        tid = next(tid for tid, name in names.items() if str(name).endswith(f" {agent['agent_id']}"))
        assert_slices_nest(lanes[tid])
        sums = totals(lanes[tid])
        latency_us = sums["call"] + sums["tool wait"]
        assert latency_us == pytest.approx((agent["finished_s"] - agent["arrived_s"]) * 1e6, abs=1)
        assert sum(sums.values()) - sums["call"] == latency_us, "the parts of the calls fill them"
        assert sums["gate wait"] == pytest.approx(agent["gate_wait_s"] * 1e6, abs=agent["num_calls"])


def test_parts_and_shares_are_those_of_the_record(record: RunRecord, tmp_path: Path) -> None:
    trace = written(record, tmp_path)
    sums = totals(trace.all_of(Slice))
    calls, slack_us = record.requests, len(record.requests)
    prefill_s = calls["first_token_s"] - calls["scheduled_s"]
    computed = (calls["prompt_tokens"] - calls["cached_tokens"]).to_numpy(float)
    share = (calls["recomputed_tokens"].to_numpy(float) / computed).clip(max=1)
    for name, seconds in {
        "queue": calls["scheduled_s"] - calls["submitted_s"],
        "decode": calls["finished_s"] - calls["first_token_s"],
        "recompute": prefill_s * share,
        "useful prefill": prefill_s * (1 - share),
    }.items():
        assert sums[name] == pytest.approx(seconds.sum() * 1e6, abs=slack_us)
        assert sums[name] > 0
    shown = [event.args for event in trace.all_of(Slice) if event.name == "call"]
    assert sum(args["output_tokens"] for args in shown) == record.metrics["generated_tokens"]
    assert sum(args["recomputed_tokens"] for args in shown) == record.metrics["recomputed_tokens"]


def test_counters_and_decisions_are_those_of_the_record(record: RunRecord, tmp_path: Path) -> None:
    trace = written(record, tmp_path)
    usage = [event for event in trace.all_of(Counter) if event.name == "KV usage"]
    assert [event.args["referenced"] for event in usage] == record.timeline["kv_cache_usage_frac"].tolist()
    hits = [event.args["windowed"] for event in trace.all_of(Counter) if event.name == "hit rate"]
    assert 0 <= min(hits) < max(hits) <= 1
    ticks = record.ticks[record.ticks["window"] != record.ticks["window_before"]]
    decisions = trace.all_of(Instant)
    assert len(ticks) > 1
    assert [event.args["window"] for event in decisions] == ticks["window"].tolist()
    assert [event.args["state"] for event in decisions] == [json.loads(state) for state in ticks["state"]]
    assert {event.name for event in decisions} <= {"window up", "window down"}
    assert trace.otherData["label"] == "hybrid"
    assert trace.otherData["world"] == "sim"


def test_lanes_are_named_and_their_names_sort_as_the_agents(record: RunRecord, tmp_path: Path) -> None:
    metadata = written(record, tmp_path).all_of(Metadata)
    lanes = [event.args["name"] for event in metadata if event.name == "thread_name" and event.pid == 2]
    assert lanes == sorted(lanes)
    assert lanes[:2] == ["00 react-0", "01 react-1"]
    order = [event.args["sort_index"] for event in metadata if event.name == "thread_sort_index"]
    assert order == list(range(24))


def test_the_same_record_gives_the_same_bytes(record: RunRecord, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_perfetto(record, tmp_path / f"{name}.json.gz")
    first, second = ((tmp_path / f"{name}.json.gz").read_bytes() for name in ("one", "two"))
    assert first == second
    assert first[4:8] == bytes(4), "gzip's time of writing is left out"


def test_a_live_run_has_one_prefill_slice_and_no_tracks_of_what_is_not_published(tmp_path: Path) -> None:
    live, _, _ = run_on_fake(live_scenario(), small_workload())
    assert live.requests["scheduled_s"].isna().all(), "the fake server does not tell it, vLLM can"
    told = live.requests.assign(scheduled_s=live.requests["submitted_s"])
    for run, parts in (
        (live, {"queue + prefill", "decode"}),
        (with_frames(live, requests=told), {"prefill", "decode"}),
    ):
        trace = written(run, tmp_path)
        for lane in trace.lanes().values():
            assert_slices_nest(lane)
        slices = trace.all_of(Slice)
        assert {event.name for event in slices} - {"call", "gate wait", "tool wait"} == parts
        assert all("recomputed_tokens" not in event.args for event in slices)
        assert "recomputed tokens/s" not in {event.name for event in trace.all_of(Counter)}
        assert trace.otherData["world"] == "live"


def test_a_boundary_that_the_engine_did_not_tell_joins_its_sides(record: RunRecord, tmp_path: Path) -> None:
    rows = [
        RequestRow(99, 0, 0.0, 1.0, math.nan, first_token_s, 3.0, 1, 1, None, None, None, 1, None)
        for first_token_s in (2.0, math.nan)
    ]
    for row, parts in zip(
        rows, ({"queue + prefill": 1, "decode": 1}, {"queue + prefill + decode": 2}), strict=True
    ):
        trace = written(
            replace(record, tables=record.tables | {"requests": table_of("requests", [row])}), tmp_path
        )
        (lane,) = trace.lanes().values()
        assert totals(lane) == {
            name: 1e6 * seconds for name, seconds in {"call": 3, "gate wait": 1, **parts}.items()
        }
        assert "99 (not finished)" in {event.args.get("name") for event in trace.all_of(Metadata)}


def test_what_json_does_not_have_is_told_in_words(record: RunRecord, tmp_path: Path) -> None:
    first: dict[str, Any] = record.ticks.iloc[0].to_dict()  # type: ignore[assignment]
    ticks = [TickRow(**first | {"window_before": 2**31 - 1, "window": 8, "state": '{"limit": Infinity}'})]
    (decision,) = written(
        replace(record, tables=record.tables | {"ticks": table_of("ticks", ticks)}), tmp_path
    ).all_of(Instant)
    assert decision.args["window_before"] == "unlimited"
    assert decision.args["state"] == {"limit": "Infinity"}


def test_the_command_writes_a_trace_with_or_without_a_report(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(record, tmp_path / "run")
    trace, page = tmp_path / "new" / "t.json.gz", tmp_path / "report"
    assert concur(monkeypatch, "report", str(tmp_path / "run"), "--perfetto", str(trace)) == 0
    assert f"trace: {trace}" in capsys.readouterr().out
    both = ("--perfetto", str(trace), "--out", str(page))
    assert concur(monkeypatch, "report", str(tmp_path / "run"), *both) == 0
    assert (page / "index.html").exists()
    assert gzip.decompress(trace.read_bytes()).startswith(b"{")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "run", "--perfetto", "t.json.gz"], "shows one run but 2 were given; name one RUN"),
        (["run", "--perfetto", "t.json"], "name that ends in .json.gz"),
        (["run", "--perfetto", "run/run.json/t.json.gz"], "choose another place"),
        (["run", "--perfetto", "t.json.gz", "--out", "run/run.json"], "is a file"),
        (["run"], "nothing to write"),
    ],
)
def test_a_trace_that_cannot_be_written_is_one_clear_line(
    record: RunRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(record, Path("run"))
    before = sorted(tmp_path.rglob("*"))
    assert concur(monkeypatch, "report", *arguments) == 2
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_while_writing_leaves_nothing(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("gzip.GzipFile.write", full_disk)
    with pytest.raises(RecordError, match="no space left"):
        write_perfetto(record, tmp_path / "t.json.gz")
    assert list(tmp_path.iterdir()) == []
