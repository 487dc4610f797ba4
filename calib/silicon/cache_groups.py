"""Which KV cache groups vLLM makes of a model's layers, from its Hugging Face config.

The rule of vLLM 0.32.0, `v1/core/kv_cache_utils.py` (`_get_kv_cache_groups_uniform_page_size`): groups of
equal size, that of the rarer kind of layers; or, if the other has less than half as many again, the other's.
Left out: models whose layers differ in heads or in head size, and all other kinds of layers.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

_KINDS: Final = {"full_attention": "full", "sliding_attention": "sliding_window"}
_ALIKE_FRAC: Final = 1.5

Group = dict[str, str | int]
"""An entry of `[[engine.kv_cache_groups]]`."""


def kv_cache_groups(config: Mapping[str, Any]) -> tuple[Group, ...]:
    """Return the groups of a model whose layers have windows or none; empty where all have none.

    Known: gpt-oss (`layer_types`) and Gemma-3 (`layer_types`, or `sliding_window_pattern` = 6: every sixth is
    full), whose text model may be a part of the config.
    """
    config = config.get("text_config", config)
    layers = _layer_types(config)
    counts = Counter(layers)
    if set(counts) - set(_KINDS) or set(counts) <= {"full_attention"}:
        return ()
    rarer, other = min(counts.values()), max(counts.values())
    size = other if other < _ALIKE_FRAC * rarer else rarer
    return tuple(
        _group(_KINDS[kind], int(config["sliding_window"]), -(-counts[kind] // size))
        for kind in dict.fromkeys(layers)
    )


def _layer_types(config: Mapping[str, Any]) -> list[str]:
    if config.get("layer_types"):
        return list(config["layer_types"])
    pattern, number = config.get("sliding_window_pattern"), int(config.get("num_hidden_layers", 0))
    if not isinstance(pattern, int) or not config.get("sliding_window"):
        return []
    return ["sliding_attention" if (layer + 1) % pattern else "full_attention" for layer in range(number)]


def _group(kind: str, sliding_window: int, num_groups: int) -> Group:
    group: Group = {"kind": kind}
    if kind == "sliding_window":
        group["sliding_window"] = sliding_window
    if num_groups > 1:
        group["num_groups"] = num_groups
    return group
