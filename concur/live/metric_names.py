"""The one table of metric names: what a `Snapshot` needs, under each engine's own names and labels.

Names are those of the *samples* on `/metrics`, the very strings that are looked up: a counter ends in
`_total`, also where the engine's source names it without. `vllm_x` is read as `vllm:x`, because
prometheus_client writes the colon so where it answers in OpenMetrics.

Sources: vLLM 0.32.0, v1/metrics/loggers.py (`PrometheusStatLogger`), seen on a running server; the names in
use here are those of 0.26.0 too. SGLang 0.5.17, srt/observability/metrics_collector.py, read and *not* seen
on a running server; before 0.5.11 it published `page_size` and `num_pages` as labels of one info metric and
had no cumulative count of retractions, so those releases are refused.

What the labels mean:

- vLLM: `engine` is the data-parallel rank, `model_name` the served model, one per server.
- SGLang: `dp_rank` is the data-parallel rank, absent without data parallelism. Every scheduler process of a
  rank (`pp_rank`, `tp_rank`, `moe_ep_rank`) publishes the pool's constants and counts retractions, and with
  --enable-metrics-for-all-schedulers all gauges too: repetitions, which count once. Under DP attention
  `tp_rank` runs through all ranks, so the first `tp_rank` of a `dp_rank` need not be 0. The tokenizer's
  counters are the whole server's. `priority=""` is the total, other values its parts.
- `pid` is prometheus_client's, in multiprocess mode: each process's own value of a gauge.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from concur.signals import COUNTERS, GAUGES

CAPACITY: Final = ("num_gpu_blocks", "block_size")
RESIDENT: Final = ("kv_available_tokens", "max_total_num_tokens")  # for `Snapshot.kv_cache_resident_frac`


@dataclass(frozen=True, slots=True)
class Series:
    """Where a value is: the sample's own, or, for an info metric, that of one of its labels.

    `is_late`: the engine publishes the series only after its first event; until then the value is 0.
    `is_server_wide`: one value for all engines of the server. `parts`: labels that break the value down, over
    which it is summed; of any other label only one value may be published.
    """

    name: str
    label: str = ""
    is_late: bool = False
    is_server_wide: bool = False
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LateGroup:
    """Series that an engine begins to publish together, after it has started; until then they are 0.

    They may be absent all together, as long as none of the counters in `unless` has counted anything.
    """

    fields: tuple[str, ...]
    unless: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetricNames:
    """What one engine calls the fields of a `Snapshot`.

    `engine_label` tells the engines (data-parallel ranks) behind one server apart, `rank_labels` the
    processes of one engine, which repeat its values. A sample with a label in `totals` counts if it has that
    value.
    """

    engine: str
    releases: str
    series: Mapping[str, Series]
    engine_label: str
    rank_labels: tuple[str, ...] = ()
    totals: tuple[tuple[str, str], ...] = ()
    late_groups: tuple[LateGroup, ...] = ()
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
        "num_engine_steps": Series("vllm:iteration_tokens_total_count"),
        "external_prefix_cache_queries_tokens": Series(
            "vllm:external_prefix_cache_queries_total", is_late=True
        ),
        "external_prefix_cache_hits_tokens": Series("vllm:external_prefix_cache_hits_total", is_late=True),
    },
    # With several API servers, gauges of mode "mostrecent" are not written before their first value.
    late_groups=(LateGroup(GAUGES, unless=COUNTERS),),
    remedy="start the server without --disable-log-stats",
)
SGLANG: Final = MetricNames(
    engine="sglang",
    releases="0.5.11 to 0.5.17",
    engine_label="dp_rank",
    rank_labels=("pp_rank", "tp_rank", "moe_ep_rank"),
    totals=(("priority", ""),),
    series={
        "num_requests_running": Series("sglang:num_running_reqs"),
        "num_requests_waiting": Series("sglang:num_queue_reqs"),
        "kv_cache_usage_frac": Series("sglang:token_usage"),  # without evictable tokens, as vLLM's
        # Not sglang:cache_hit_rate: that is the last prefill batch's and falls back to 0.
        "prefix_cache_queries_tokens": Series(
            "sglang:prompt_tokens_total", is_server_wide=True, parts=("is_streaming",)
        ),
        "prefix_cache_hits_tokens": Series(
            "sglang:cached_tokens_total", is_late=True, is_server_wide=True, parts=("cache_source",)
        ),
        "num_preemptions": Series("sglang:num_retracted_requests_total", is_late=True),
        "prompt_tokens": Series("sglang:prompt_tokens_total", is_server_wide=True, parts=("is_streaming",)),
        "generation_tokens": Series(
            "sglang:generation_tokens_total", is_server_wide=True, parts=("is_streaming",)
        ),
        "num_gpu_blocks": Series("sglang:num_pages"),
        "block_size": Series("sglang:page_size"),
        "kv_available_tokens": Series("sglang:kv_available_tokens"),
        "max_total_num_tokens": Series("sglang:max_total_num_tokens"),
    },
    # Gauges come with the first batch, the tokenizer's counters with the first request that has ended.
    late_groups=(
        LateGroup(GAUGES, unless=COUNTERS),
        LateGroup(
            ("prefix_cache_queries_tokens", "prompt_tokens", "generation_tokens"),
            unless=("prefix_cache_hits_tokens",),
        ),
    ),
    remedy="start the server with --enable-metrics and send one request first: most series appear with it",
)
ENGINES: Final = (VLLM, SGLANG)

FOREIGN: Final[tuple[tuple[str, str], ...]] = (
    ("ray_vllm", "vLLM through Ray, which sums over replicas and renames: name each engine's own address"),
    ("ray_", "Ray: name each engine's own address"),
    ("dynamo_", "NVIDIA Dynamo's front end: name each worker's own address"),
    ("sglang_router_", "SGLang's router: name each worker's own address"),
    ("sgl_router_", "SGLang's router: name each worker's own address"),
    ("smg_", "SGLang's model gateway: name each worker's own address"),
    ("litellm_", "LiteLLM's proxy: name each engine's own address"),
    ("tgi_", "Text Generation Inference, which is not read here: only vLLM and SGLang are"),
    ("trtllm_", "TensorRT-LLM, which is not read here: only vLLM and SGLang are"),
    ("nv_", "Triton Inference Server, which is not read here: only vLLM and SGLang are"),
    ("lmdeploy", "LMDeploy, which is not read here: only vLLM and SGLang are"),
    ("llamacpp", "llama.cpp, which is not read here: only vLLM and SGLang are"),
    ("vllm_", "vLLM, but renamed on the way: name the engine's own address"),
    ("sglang_", "SGLang, but renamed on the way: name the engine's own address"),
)
"""What else answers on `/metrics`, by the prefix of its names; the first that fits."""
