"""From `/metrics` to snapshots. The danger is a wrong name or number that is no error: an empty column."""

import pytest

from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.metric_names import CAPACITY, ENGINES, SGLANG, VLLM, MetricNames
from concur.live.scrape import MetricsReader, detect_names
from concur.signals import COUNTERS, GAUGES, Snapshot
from tests.live.pages import METRICS, SGLANG_TEXT, VLLM_TEXT, vllm_text

GOLDENS = sorted(METRICS.glob("*.txt"))


def reader() -> MetricsReader:
    return MetricsReader(VLLM)


def test_there_is_a_golden_for_every_engine() -> None:
    assert [detect_names(path.read_text()).engine for path in GOLDENS] == ["sglang", "vllm"]


def test_a_real_servers_metrics_become_the_snapshot_that_they_are() -> None:
    assert reader().read(VLLM_TEXT, time_s=7.0) == Snapshot(
        time_s=7.0,
        prefix_cache_queries_tokens=200,
        prefix_cache_hits_tokens=96,
        prompt_tokens=200,
        generation_tokens=6,
        num_gpu_blocks=64,
        block_size=32,
    )


def test_sglangs_ranks_and_priorities_are_counted_once() -> None:
    read = MetricsReader(SGLANG)
    assert read.read(SGLANG_TEXT, time_s=7.0) == Snapshot(
        time_s=7.0,
        num_requests_running=7,
        num_requests_waiting=1,
        kv_cache_usage_frac=0.4,
        kv_cache_resident_frac=0.75,
        prefix_cache_queries_tokens=9000,
        prefix_cache_hits_tokens=6000,
        prompt_tokens=9000,
        generation_tokens=500,
        num_gpu_blocks=2000,
        block_size=16,
    )
    assert [read.engines[rank]["kv_cache_usage_frac"] for rank in "01"] == [0.2, 0.6]


@pytest.mark.parametrize("names", ENGINES, ids=lambda names: names.engine)
def test_every_table_names_every_field(names: MetricNames) -> None:
    assert {*GAUGES, *COUNTERS, *CAPACITY} <= names.series.keys()


@pytest.mark.parametrize(("names", "text"), [(VLLM, VLLM_TEXT), (SGLANG, SGLANG_TEXT)])
def test_every_name_that_vanishes_is_an_error_at_the_start_and_later(names: MetricNames, text: str) -> None:
    needed = {
        series.name
        for field, series in names.series.items()
        if not series.is_late and field in (*GAUGES, *COUNTERS, *CAPACITY)
    }
    assert len(needed) >= 7
    for name in needed:
        renamed = text.replace(f"{name}{{", f"{name}_new{{")
        with pytest.raises(MetricNamesError, match=name):
            detect_names(renamed)
        with pytest.raises(MetricNamesError, match=name):
            MetricsReader(names).read(renamed, time_s=0.0)


def test_a_server_of_another_kind_is_refused() -> None:
    with pytest.raises(MetricNamesError, match="none that begins with vllm:, sglang:"):
        detect_names("# TYPE up gauge\nup 1.0\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('engine="0",model_name="tiny"} 200.0', 'engine="0",model_name="tiny" 200.0', "malformed"),
        ("} 96.0", "} ninety", "malformed"),
        ("} 96.0", "} NaN", "must be a number"),
        ("} 96.0", "} -1.0", "at least 0"),
        ('num_gpu_blocks="64"', 'num_gpu_blocks="None"', r"num_gpu_blocks\} = None"),
        ('kv_cache_usage_perc{engine="0",model_name="tiny"} 0.0', "kv_cache_usage_perc 72.0", "fraction"),
        ("\n", "", "cut off"),
    ],
)
def test_malformed_metrics_are_an_error_and_change_nothing(old: str, new: str, message: str) -> None:
    assert old in VLLM_TEXT
    read = reader()
    before = read.read(VLLM_TEXT, time_s=1.0)
    with pytest.raises(ScrapeError, match=message):
        read.read(VLLM_TEXT.replace(old, new), time_s=2.0)
    assert read.read(VLLM_TEXT, time_s=1.0) == before


@pytest.mark.parametrize("length", range(200, len(VLLM_TEXT) - 1, 97))
def test_a_text_that_is_cut_off_anywhere_is_an_error(length: int) -> None:
    with pytest.raises(ScrapeError):
        reader().read(VLLM_TEXT[:length], time_s=1.0)


def test_engines_are_summed_and_their_usage_is_weighted_by_blocks() -> None:
    text = vllm_text(
        {
            "0": {"vllm:kv_cache_usage_perc": 0.9, "vllm:num_requests_running": 5},
            "1": {"vllm:kv_cache_usage_perc": 0.1, "vllm:num_requests_running": 2},
        }
    )
    read = reader()
    snapshot = read.read(text, time_s=0.0)
    assert (snapshot.num_requests_running, snapshot.num_gpu_blocks, snapshot.block_size) == (7, 128, 32)
    assert snapshot.prefix_cache_queries_tokens == 400
    assert snapshot.kv_cache_usage_frac == pytest.approx(0.5)
    assert read.engines["0"]["kv_cache_usage_frac"] == 0.9, "the collapsing one is still to be seen"


def test_the_steps_of_the_engine_and_the_hits_outside_the_gpu_are_read_where_they_are_published() -> None:
    silent = vllm_text({"0": {}, "1": {}})
    more = {
        "vllm:iteration_tokens_total_count": 40.0,
        "vllm:external_prefix_cache_queries_total": 900.0,
        "vllm:external_prefix_cache_hits_total": 300.0,
    }
    lines = [
        f'{name}{{engine="{engine}",model_name="tiny"}} {value}'
        for name, value in more.items()
        for engine in "01"
    ]
    text = silent + "\n".join(lines) + "\n"
    snapshot = MetricsReader(detect_names(text)).read(text, time_s=1.0)
    assert snapshot.num_engine_steps == 80
    assert snapshot.external_prefix_cache_queries_tokens == 1800
    assert snapshot.external_prefix_cache_hits_tokens == 600
    assert MetricsReader(detect_names(silent)).read(silent, time_s=1.0).num_engine_steps is None
