"""What a running vLLM server says of itself, as far as it decides a run's numbers.

Three places, the later over the earlier: the model card (`/v1/models`), the resolved configuration
(`/server_info`, in its development mode only; vLLM 0.32.0, entrypoints/serve/dev/server_info/api_router.py),
and the labels of `vllm:cache_config_info` on `/metrics`, which is where a run reads the pool's size too. What
a server does not publish is no key of the facts: unknown is not a value.
"""

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

_INFO: Final = "vllm:cache_config_info"
_CACHE_KEYS: Final = ("block_size", "num_gpu_blocks", "enable_prefix_caching", "cache_dtype")
_SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "cache_config": _CACHE_KEYS,
    "scheduler_config": (
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
    ),
    "model_config": ("max_model_len", "dtype", "quantization", "enforce_eager"),
    "parallel_config": ("tensor_parallel_size",),
    "device_config": ("device",),
}
_WORDS: Final = {"True": True, "False": False, "None": None}


def card_facts(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a model card: the model, by the name of its folder if it is one, and its length."""
    model = str(card.get("root") or card["id"])
    name = model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".")) else model
    return _known({"model": name, "max_model_len": card.get("max_model_len")})


def resolved_facts(info: object) -> dict[str, Any]:
    """Return the facts of what `/server_info` answered; none if that is not in sections."""
    config = _section(info, "vllm_config")
    parts = {section: _section(config, section) for section in _SECTIONS}
    facts = {name: parts[section].get(name) for section, names in _SECTIONS.items() for name in names}
    facts["scheduling_policy"] = facts.pop("policy")  # as the flag has it
    facts["num_engines"] = _section(config, "parallel_config").get("data_parallel_size")
    if facts["device"] is not None:
        facts["device"] = str(facts["device"]).partition(":")[0]
    if facts["dtype"] is not None:
        facts["dtype"] = str(facts["dtype"]).removeprefix("torch.")
    return _known(facts) | _extensions(config)


def published_facts(text: str) -> dict[str, Any]:
    """Return the facts on a `/metrics` page: sizes of the cache, and how many engines publish them.

    Raises
    ------
    ValueError
        If the text is not Prometheus'.
    """
    families = text_string_to_metric_families(text)
    labels = [sample.labels for family in families for sample in family.samples if sample.name == _INFO]
    if not labels:
        return {}
    facts: dict[str, Any] = {name: _value(labels[0][name]) for name in _CACHE_KEYS if name in labels[0]}
    return _known(facts) | {"num_engines": len({each.get("engine", "") for each in labels})}


def _extensions(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what speculates and what moves KV about: `None` is an answer here, nothing does."""
    facts: dict[str, Any] = {}
    if "speculative_config" in config:
        facts["speculative_method"] = _section(config, "speculative_config").get("method")
    if "kv_transfer_config" in config:
        connector = _section(config, "kv_transfer_config").get("kv_connector")
        is_offloading = _section(config, "cache_config").get("kv_offloading_size")
        facts["kv_connector"] = connector or ("offloading" if is_offloading else None)
    return facts


def _section(config: object, name: str) -> Mapping[str, Any]:
    section = config.get(name) if isinstance(config, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _value(text: str) -> Any:
    return _WORDS[text] if text in _WORDS else int(text) if text.isdecimal() else text
