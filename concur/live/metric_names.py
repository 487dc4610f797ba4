"""The one table of metric names: what a `Snapshot` needs, under each engine's own names.

Names are those of the *samples* on `/metrics`, the very strings that are looked up: a counter ends in
`_total`, also where the engine's source names it without.

Sources: vLLM 0.32.0, v1/metrics/loggers.py (`PrometheusStatLogger`), seen on a running server; the names in
use here are those of 0.26.0 too. SGLang 0.5.17, srt/observability/metrics_collector.py, read and *not* seen
on a running server; before 0.5.11 it published `page_size` and `num_pages` as labels of one info metric and
had no cumulative count of retractions, so those releases are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

GAUGES: Final = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_frac")
COUNTERS: Final = (
    "prefix_cache_queries_tokens",
    "prefix_cache_hits_tokens",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
)
CAPACITY: Final = ("num_gpu_blocks", "block_size")
RESIDENT: Final = ("kv_available_tokens", "max_total_num_tokens")  # for `Snapshot.kv_cache_resident_frac`


@dataclass(frozen=True, slots=True)
class Series:
    """Where a value is: the sample's own, or, for an info metric, that of one of its labels.

    `is_late`: the engine publishes the series only after its first event; until then the value is 0.
    """

    name: str
    label: str = ""
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class MetricNames:
    """What one engine calls the fields of a `Snapshot`.

    `engine_label` tells the engines (data-parallel ranks) behind one server apart. Of series with a label in
    `only`, the sample with that value counts: SGLang also breaks its gauges down by priority and repeats
    them per rank of a tensor-parallel group.
    """

    engine: str
    releases: str
    series: Mapping[str, Series]
    engine_label: str
    only: Mapping[str, str] = field(default_factory=dict)
    remedy: str = ""


VLLM: Final = MetricNames(
    engine="vllm",
    releases="0.26 to 0.32",
    engine_label="engine",
    series={
        "num_requests_running": Series("vllm:num_requests_running"),
        "num_requests_waiting": Series("vllm:num_requests_waiting"),
        "kv_cache_usage_frac": Series("vllm:kv_cache_usage_perc"),  # a fraction, whatever its name says
        "prefix_cache_queries_tokens": Series("vllm:prefix_cache_queries_total"),
        "prefix_cache_hits_tokens": Series("vllm:prefix_cache_hits_total"),
        "num_preemptions": Series("vllm:num_preemptions_total"),
        "prompt_tokens": Series("vllm:prompt_tokens_total"),
        "generation_tokens": Series("vllm:generation_tokens_total"),
        "num_gpu_blocks": Series("vllm:cache_config_info", label="num_gpu_blocks"),
        "block_size": Series("vllm:cache_config_info", label="block_size"),
    },
    remedy="start the server without --disable-log-stats",
)
SGLANG: Final = MetricNames(
    engine="sglang",
    releases="0.5.11 to 0.5.17",
    engine_label="dp_rank",
    only={"priority": "", "tp_rank": "0", "pp_rank": "0"},
    series={
        "num_requests_running": Series("sglang:num_running_reqs"),
        "num_requests_waiting": Series("sglang:num_queue_reqs"),
        "kv_cache_usage_frac": Series("sglang:token_usage"),  # without evictable tokens, as vLLM's
        # Not sglang:cache_hit_rate: that is the last prefill batch's and falls back to 0.
        "prefix_cache_queries_tokens": Series("sglang:prompt_tokens_total"),
        "prefix_cache_hits_tokens": Series("sglang:cached_tokens_total", is_late=True),
        "num_preemptions": Series("sglang:num_retracted_requests_total", is_late=True),
        "prompt_tokens": Series("sglang:prompt_tokens_total"),
        "generation_tokens": Series("sglang:generation_tokens_total"),
        "num_gpu_blocks": Series("sglang:num_pages"),
        "block_size": Series("sglang:page_size"),
        "kv_available_tokens": Series("sglang:kv_available_tokens"),
        "max_total_num_tokens": Series("sglang:max_total_num_tokens"),
    },
    remedy="start the server with --enable-metrics and send one request first: most series appear with it",
)
ENGINES: Final = (VLLM, SGLANG)
