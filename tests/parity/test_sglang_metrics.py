"""What SGLang's own collectors publish, as our reader reads it, and when its own reporter refreshes it."""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from concur.live.metric_names import SGLANG
from concur.live.reader import MetricsReader, detect_names
from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.engine.sglang.core import SglangCore
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.step_time.make import make_step_time
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate
from concur.validate.parity.sglang_engine import Idle, SglangEngine, sglang_version
from concur.validate.parity.sglang_scheduler import SglangScheduler
from concur.validate.parity.worlds import World
from tests.parity.sglang_scenarios import growing_world, mixed_world, retracting_world

pytestmark = pytest.mark.sglang

SERVER = {"model_name": "m", "engine_type": "unified"}
RANK = SERVER | {"tp_rank": 0, "pp_rank": 0, "moe_ep_rank": 0}
GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_frac")
CONSTANTS = ("num_gpu_blocks", "block_size", "max_total_num_tokens", "kv_available_tokens")


class Collectors:
    """The collectors of one server, on a registry of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if sglang_version() != "0.5.23":
            pytest.skip(f"SGLang {sglang_version()} is in front, not 0.5.23")
        from sglang.srt.observability import metrics_collector as theirs

        SglangEngine(SglangConfig(kind="sglang", max_total_num_tokens=1600), 100)  # publishes the arguments
        self.registry = CollectorRegistry()
        for kind in (
            Counter,
            Gauge,
            Histogram,
            Summary,
        ):  # all of its modules import them when they need them
            monkeypatch.setattr(prometheus_client, kind.__name__, self._of(kind))
        self.scheduler = theirs.SchedulerMetricsCollector(labels=dict(RANK), server_args=Idle())
        self.tokenizer = theirs.TokenizerMetricsCollector(server_args=Idle(), labels=dict(SERVER))

    def _of(self, kind: Any) -> Any:
        return lambda *values, **options: kind(*values, registry=self.registry, **options)

    def text(self) -> str:
        return generate_latest(self.registry).decode()

    def emit_constants(self, pool_tokens: int, page_size: int) -> None:
        self.scheduler.emit_constants(
            max_total_num_tokens=pool_tokens,
            max_total_num_tokens_swa=None,
            weight_memory_usage_gb=1.0,
            kv_cache_memory_usage_gb=1.0,
            graph_memory_usage_gb={},
            max_running_requests_under_SLO=None,
            page_size=page_size,
            num_pages=pool_tokens // page_size,
            context_len=4096,
            startup_available_gpu_memory_gb=1.0,
        )

    def finish(self, prompt_tokens: int, cached: dict[str, int], generated_tokens: int) -> None:
        self.tokenizer.observe_one_finished_request(
            SERVER,
            prompt_tokens=prompt_tokens,
            generation_tokens=generated_tokens,
            cached_tokens=sum(cached.values()),
            e2e_latency=1.0,
            has_grammar=False,
            cached_tokens_details=cached,
        )


@pytest.fixture
def collectors(monkeypatch: pytest.MonkeyPatch) -> Collectors:
    return Collectors(monkeypatch)


def filled(collectors: Collectors) -> str:
    """A page on which every value is another."""
    from sglang.srt.observability.metrics_collector import QueueCount, SchedulerStats

    collectors.emit_constants(1600, 16)
    stats = SchedulerStats(num_running_reqs=QueueCount(3), num_queue_reqs=QueueCount(7))
    stats.token_usage, stats.kv_available_tokens = 0.62, 480
    collectors.scheduler.log_stats(stats)
    collectors.scheduler.increment_retracted_reqs(5, 100, 20)
    collectors.finish(900, {"device": 500, "host": 60}, 40)
    collectors.finish(100, {}, 11)
    return collectors.text()


def test_every_name_is_published_as_a_gauge_or_a_counter(collectors: Collectors) -> None:
    families = {
        sample.name: (family.type, sample.labels)
        for family in text_string_to_metric_families(filled(collectors))
        for sample in family.samples
    }
    known = {SGLANG.engine_label, *SGLANG.rank_labels, *SERVER, *(name for name, _ in SGLANG.totals)}
    for field, series in SGLANG.series.items():
        kind, labels = families[series.name]
        assert kind == ("gauge" if field in (*GAUGES, *CONSTANTS) else "counter"), field
        assert set(labels) <= known | set(series.parts), field
        assert set(series.parts) <= set(labels), field
        assert series.is_server_wide == (not set(labels) & set(SGLANG.rank_labels)), field


def test_the_page_is_read_as_it_was_meant(collectors: Collectors) -> None:
    text = filled(collectors)
    assert detect_names(text) is SGLANG
    reader = MetricsReader(SGLANG)
    (engine,) = (reader.read(text, time_s=0.0), reader.engines)[1].values()
    assert {field: engine[field] for field in (*GAUGES, *CONSTANTS)} == {
        "num_requests_running": 3,
        "num_requests_waiting": 7,
        "kv_cache_usage_frac": 0.62,
        "num_gpu_blocks": 100,
        "block_size": 16,
        "max_total_num_tokens": 1600,
        "kv_available_tokens": 480,
    }
    assert engine["num_preemptions"] == 5
    assert engine["prompt_tokens"] == engine["prefix_cache_queries_tokens"] == 1000
    assert engine["prefix_cache_hits_tokens"] == 560
    assert engine["generation_tokens"] == 51


def test_what_comes_late_comes_late(collectors: Collectors) -> None:
    collectors.emit_constants(1600, 16)
    early = collectors.text()
    late = {field for field, series in SGLANG.series.items() if f"\n{series.name}{{" not in early}
    groups = {field for group in SGLANG.late_groups for field in group.fields}
    singles = {field for field, series in SGLANG.series.items() if series.is_late}
    assert late <= groups | singles | {"kv_available_tokens"}
    assert groups | singles <= late


class Watched(SglangScheduler):
    """SGLang's scheduler with its own reporter, and after each step what that published and what we say."""

    def __init__(self, config: SglangConfig, workload: Workload, collectors: Collectors) -> None:
        self.collectors = collectors
        self.steps: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
        super().__init__(config, workload)

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Pass on, and note what was published."""
        finished = super().update_from_output(output, time_s=time_s)
        self._note()
        return finished

    def rest(self) -> None:
        """Pass on, and do what an idle scheduler does about its gauges."""
        super().rest()
        self.sglang.running_batch.filter_batch()
        self.collectors.scheduler.last_log_time = inf  # it is not 30 s since the last report
        self.sglang.metrics_reporter._maybe_log_idle_metrics()
        self._note()

    def _listen(self) -> None:
        """Put its own reporter in the place of the stand-in, which hears of the same reports."""
        super()._listen()
        scheduler, stand_in = self.sglang, self.sglang.metrics_reporter
        scheduler.kv_events_publisher = Idle()
        scheduler.grammar_manager = Grammars()
        scheduler.pool_stats_observer = pool_observer(self)
        reporter = scheduler.metrics_reporter = bare_reporter(scheduler, self.collectors)
        self.engine.results = replace(self.engine.results, metrics_reporter=reporter)
        for name in ("report_prefill_stats", "report_decode_stats"):
            setattr(reporter, name, both(getattr(reporter, name), getattr(stand_in, name)))

    def _note(self) -> None:
        registry, ours = self.collectors.registry, self.make_stats()
        theirs = [registry.get_sample_value(SGLANG.series[name].name, LABELS) or 0.0 for name in GAUGES]
        self.steps.append((tuple(theirs), tuple(float(getattr(ours, name)) for name in GAUGES)))


LABELS = {name: str(value) for name, value in RANK.items()}


def both(one: Callable[..., None], other: Callable[..., None]) -> Callable[..., None]:
    def call(*values: Any, **options: Any) -> None:
        one(*values, **options)
        other(*values, **options)

    return call


class Grammars:
    """Waits for no grammar."""

    def __len__(self) -> int:
        return 0

    def has_waiting_grammars(self) -> bool:
        """Return that none is."""
        return False


def pool_observer(scheduler: SglangScheduler) -> Any:
    from sglang.srt.managers.scheduler_components.pool_stats_observer import SchedulerPoolStatsObserver

    return SchedulerPoolStatsObserver(
        tree_cache=scheduler.engine.tree,
        token_to_kv_pool_allocator=scheduler.engine.tokens,
        req_to_token_pool=scheduler.sglang.req_to_token_pool,
        session_controller=SimpleNamespace(sessions={}),
        hisparse_coordinator=None,
        is_hybrid_swa=False,
        is_hybrid_ssm=False,
        enable_hisparse=False,
        full_tokens_per_layer=None,
        swa_tokens_per_layer=None,
        max_total_num_tokens=scheduler.sglang.max_total_num_tokens,
    )


def bare_reporter(scheduler: Any, collectors: Collectors) -> Any:
    from sglang.srt.managers.scheduler_components import metrics_reporter as theirs
    from sglang.srt.observability.metrics_collector import SchedulerStats

    reporter = theirs.SchedulerMetricsReporter.__new__(theirs.SchedulerMetricsReporter)
    vars(reporter).update(
        dict.fromkeys(("num_retracted_reqs", "num_paused_reqs", "num_generated_tokens"), 0),
        **dict.fromkeys(("last_decode_stats_tic", "last_prefill_stats_tic", "last_gen_throughput"), 0.0),
        scheduler=scheduler,
        metrics_collector=collectors.scheduler,
        enable_metrics=True,
        is_stats_logging_rank=False,
        current_scheduler_metrics_enabled=True,
        stats=SchedulerStats(),
        forward_ct_decode=0,
        decode_log_interval=40,
        enable_mfu_metrics=False,
        scheduler_status_logger=None,
        fwd_occupancy=float("nan"),
        cache_hit_rate_window=theirs._CacheHitRateWindow(),
        _graph_backend_label="",
    )
    return reporter


@pytest.mark.parametrize("is_overlapped", [False, True], ids=["normal", "overlap"])
@pytest.mark.parametrize("make", [growing_world, mixed_world, retracting_world])
def test_gauges_and_retractions_are_published_when_we_say(
    make: Callable[..., World], is_overlapped: bool, collectors: Collectors
) -> None:
    scenario, workload = make(is_overlapped=is_overlapped)
    config = scenario.engine
    assert isinstance(config, SglangConfig)
    watched = Watched(config, workload, collectors)
    record = simulate(
        scenario, workload, core=SglangCore(config, make_step_time(scenario.step_time), watched)
    )
    differing = [number for number, (theirs, ours) in enumerate(watched.steps) if theirs != ours]
    assert not differing, (differing[0], watched.steps[differing[0]])
    assert len({theirs for theirs, _ in watched.steps}) > 10
    counted = collectors.registry.get_sample_value("sglang:num_retracted_requests_total", LABELS) or 0.0
    assert counted == record.metrics["num_preemptions"]
    assert counted > 0 or make is mixed_world
