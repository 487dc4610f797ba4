"""Engines by their text, as `--engines` and `compare.engines` name them: the same pool and seats in each."""

from collections.abc import Sequence
from typing import Any, Final

from concur.sim.engine.config import ENGINE_KINDS, AnyEngineConfig, EngineConfig
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.errors import ScenarioError
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.scenario.toml_files import toml_value

_BLOCK_SIZE: Final = 16
"""Of a vLLM beside an SGLang whose pages hold one token: vLLM's default."""
_KEPT_TOKENS: Final = 2
"""Tokens of `context_length` that SGLang gives to nobody, see `SglangConfig.max_context_tokens`."""


def engine_variants(
    scenario: Scenario, texts: Sequence[str], *, origin: str = "--engines"
) -> dict[str, Scenario]:
    """Return the scenario with each of these engines, by their texts: `vllm`, `sglang+schedule_policy=lpm`.

    The engine of the scenario's own kind is as the scenario says. Another one has the same pool in tokens, as
    many seats and as many tokens a step, serves as long contexts and decides a step ahead or not as that one
    does; all else is its default. `+KEY=VALUE` sets one of its keys.

    Raises
    ------
    ScenarioError
        If one is no engine or named twice, has a key that is unknown or out of bounds, or would leave out a
        second tier or groups of layers.
    """
    variants: dict[str, Scenario] = {}
    for text in texts:
        if text in variants:
            raise ScenarioError(f"{origin}: {text} is named twice; name each engine once")
        variants[text] = _variant(scenario, text, origin)
    return variants


def _variant(scenario: Scenario, text: str, origin: str) -> Scenario:
    kind, *settings = text.split("+")
    if kind not in ENGINE_KINDS:
        raise ScenarioError(
            f"{origin}: {kind!r} is no engine that is simulated but must be one of {', '.join(ENGINE_KINDS)}"
        )
    raw = _section(scenario.engine, kind, origin)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ScenarioError(f"{origin}: {text} has {setting!r}, which is not of the form KEY=VALUE")
        raw[key] = toml_value(value)
    changed = scenario.model_dump(mode="json") | {"engine": raw}
    return parse_scenario(changed, origin=f"{origin} {text}")


def _section(engine: AnyEngineConfig, kind: str, origin: str) -> dict[str, Any]:
    """Return `[engine]` of that kind, comparable to the one given."""
    if kind == engine.kind:
        return engine.model_dump(mode="json") | {"kind": kind}
    if isinstance(engine, SglangConfig):
        return _vllm_like(engine)
    _check_has_one_tier(engine, kind, origin)
    return _sglang_like(engine)


def _check_has_one_tier(engine: EngineConfig, kind: str, origin: str) -> None:
    for name, has in (
        ("host_cache", engine.host_cache.capacity_tokens),
        ("kv_cache_groups", engine.kv_cache_groups),
    ):
        if has:
            raise ScenarioError(
                f"{origin}: engine.{name} is vLLM's own, and {kind} would stand beside it without; leave it "
                "out of the scenario"
            )


def _sglang_like(engine: EngineConfig) -> dict[str, Any]:
    return {
        "kind": "sglang",
        "max_total_num_tokens": engine.pool_tokens,
        "max_running_requests": engine.max_num_seqs,
        "chunked_prefill_size": engine.max_num_batched_tokens,
        "context_length": engine.max_model_len + _KEPT_TOKENS,
        "disable_overlap_schedule": not engine.async_scheduling,
    }


def _vllm_like(engine: SglangConfig) -> dict[str, Any]:
    block_size = engine.page_size if engine.page_size > 1 else _BLOCK_SIZE
    step_tokens = (
        engine.max_prefill_tokens if engine.chunked_prefill_size == -1 else engine.chunked_prefill_size
    )
    return {
        "kind": "vllm",
        "block_size": block_size,
        "num_gpu_blocks": engine.pool_tokens // block_size + 1,  # the null block holds none
        "max_num_seqs": engine.max_running_requests,
        "max_num_batched_tokens": max(step_tokens, engine.max_running_requests),
        "max_model_len": engine.max_context_tokens,
        "async_scheduling": engine.is_one_step_ahead,
    }
