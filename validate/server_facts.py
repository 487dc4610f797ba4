"""What a running vLLM server says of itself, as far as it decides a run's numbers.

Three places, the later over the earlier: the model card (`/v1/models`), the resolved configuration
(`/server_info`, in its development mode only; vLLM 0.32.0, entrypoints/serve/dev/server_info/api_router.py),
and the labels of `vllm:cache_config_info` on `/metrics`, which is where a run reads the pool's size too. A
name that a server does not publish is no key of the facts: unknown is not a value.
"""

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

_INFO: Final = "vllm:cache_config_info"
_CACHE_KEYS: Final = ("block_size", "num_gpu_blocks", "enable_prefix_caching", "cache_dtype")
_SCHEDULER_KEYS: Final = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "long_prefill_token_threshold",
    "long_prefill_token_threshold_adaptive",
    "scheduler_reserve_full_isl",
    "watermark",
    "async_scheduling",
    "policy",
    "enable_chunked_prefill",
    "max_num_active_seqs",
    "prefill_schedule_interval",
)
_MODEL_KEYS: Final = ("max_model_len", "quantization", "enforce_eager")
_WORDS: Final = {"True": True, "False": False, "None": None}


def card_facts(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a model card: the model, by the name of its folder if it is one, and its length."""
    model = str(card.get("root") or card["id"])
    facts: dict[str, Any] = {"model": model.rstrip("/").rpartition("/")[2] if model[0] in "/." else model}
    if card.get("max_model_len") is not None:
        facts["max_model_len"] = card["max_model_len"]
    return facts


def resolved_facts(config: object) -> dict[str, Any]:
    """Return the facts of the configuration that vLLM resolved; none if it is not in that form."""
    if not isinstance(config, Mapping):
        return {}
    parts = {name: config.get(f"{name}_config") or {} for name in ("cache", "scheduler", "model", "parallel")}
    facts = {name: parts["cache"][name] for name in _CACHE_KEYS if parts["cache"].get(name) is not None}
    facts |= {name: parts["scheduler"][name] for name in _SCHEDULER_KEYS if name in parts["scheduler"]}
    facts |= {name: parts["model"][name] for name in _MODEL_KEYS if name in parts["model"]}
    if "dtype" in parts["model"]:
        facts["dtype"] = str(parts["model"]["dtype"]).removeprefix("torch.")
    if "tensor_parallel_size" in parts["parallel"]:
        facts["tensor_parallel_size"] = parts["parallel"]["tensor_parallel_size"]
    if "data_parallel_size" in parts["parallel"]:
        facts["num_engines"] = parts["parallel"]["data_parallel_size"]
    if isinstance(config.get("device_config"), Mapping) and config["device_config"].get("device_type"):
        facts["device_type"] = config["device_config"]["device_type"]
    return facts | _extensions(config)


def published_facts(text: str) -> dict[str, Any]:
    """Return the facts on a `/metrics` page: sizes of the cache, and how many engines publish one.

    Raises
    ------
    ValueError
        If the text is not Prometheus'.
    """
    labels = [
        sample.labels
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == _INFO
    ]
    if not labels:
        return {}
    facts = {name: _value(labels[0][name]) for name in _CACHE_KEYS if name in labels[0]}
    known = {name: value for name, value in facts.items() if value is not None}
    return known | {"num_engines": len({each.get("engine", "") for each in labels})}


def _extensions(config: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if "speculative_config" in config:
        facts["speculative_method"] = (config["speculative_config"] or {}).get("method")
    if "kv_transfer_config" in config:
        cache = config.get("cache_config") or {}
        connector = (config["kv_transfer_config"] or {}).get("kv_connector")
        facts["kv_connector"] = connector or ("offloading" if cache.get("kv_offloading_size") else None)
    return facts


def _value(text: str) -> Any:
    return _WORDS[text] if text in _WORDS else int(text) if text.isdecimal() else text
