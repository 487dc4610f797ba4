"""Whether a server is the engine of the scenario: what differs, and what it does not say.

*Facts* are what `concur.validate.live.server_facts` learns from a server, under vLLM's names (0.32.0,
config/cache.py, config/scheduler.py). A run on an engine of other sizes or flags is no test of the
simulation, however well the numbers agree; so a difference in what decides them is refused, before any run
and again when records are compared. What a server does not say is not known to be right: it is named in the
result.

`max_model_len` decides nothing while every agent fits. The step-time profile is of an engine too, but stands
in for another one while that is being calibrated: where it differs, the result says so.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from concur.sim.errors import ProfileError
from concur.sim.scenario.scenario import Scenario
from concur.sim.step_time.profile import load_profile
from concur.sim.workload.spec import Workload
from concur.validate.errors import EngineDiffersError
from concur.validate.live.server import FLAGS, Server, flag

FIXED: Final[Mapping[str, tuple[Any, str]]] = {
    "num_engines": (1, "name the address of one engine, started with --data-parallel-size 1"),
    "enable_chunked_prefill": (True, "start it with --enable-chunked-prefill"),
    "max_num_active_seqs": (None, "start it without --max-num-active-seqs"),
    "prefill_schedule_interval": (1, "start it without --prefill-schedule-interval"),
    "long_prefill_token_threshold_adaptive": (
        False,
        "start it without --long-prefill-token-threshold-adaptive",
    ),
    "speculative_method": (None, "start it without --speculative-config"),
    "kv_connector": (None, "start it without --kv-transfer-config and --kv-offloading-size"),
}
"""What the simulated engine has no key for: how it is, and how to start a server like it."""


def check_server(scenario: Scenario, workload: Workload, server: Server) -> None:
    """Refuse a server that is not the scenario's engine.

    Raises
    ------
    EngineDiffersError
        If it is known to differ in what decides a run's numbers, or its model is too short for an agent:
        every difference, and how to mend it on either side.
    """
    engine = scenario.engine.model_dump()
    differing = differences(engine, server.facts)
    remedies = [*_remedies(engine, server.facts)]
    longest = max(agent.peak_context_tokens for agent in workload.agents)
    limit = server.facts.get("max_model_len")
    if limit is not None and limit < longest:
        differing.append(f"max_model_len is {limit} but an agent needs {longest}")
        remedies.append(
            f"skip such agents with --set workload.max_context_tokens={limit}, or start it with "
            f"--max-model-len {longest}"
        )
    if differing:
        raise EngineDiffersError(
            f"{server.url} is not the scenario's engine: {'; '.join(differing)}. {'; '.join(remedies)}"
        )


def differences(engine: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Say where a server is known to differ from `[engine]` of a scenario in what decides a run."""
    lines = [f"{name} is {facts[name]}, the scenario's {engine[name]}" for name in _differing(engine, facts)]
    lines += [
        f"{name} is {facts[name]}, the simulated engine's {FIXED[name][0]}"
        for name in _unlike_simulated(engine, facts)
    ]
    if _lacks_host_cache(engine, facts):
        lines.append("it has no host cache, the scenario has one")
    return lines


def notes(scenario: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    """Say what could not be checked, and where the step-time profile is of another engine.

    `scenario` is that of a record.
    """
    unknown = [name for name in FLAGS if name not in facts]
    if unknown:
        yield (
            f"not checked, because the server does not say: {', '.join(unknown)}; start it with "
            "VLLM_SERVER_DEV_MODE=1"
        )
    name = scenario["step_time"].get("profile")
    with suppress(ProfileError):  # it may have been a file that is gone
        yield from _profile_notes(load_profile(name).provenance if name else {}, facts)


def _differing(engine: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    return [name for name in FLAGS if name in facts and facts[name] != engine[name]]


def _unlike_simulated(engine: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    has_host_cache = engine["host_cache"]["capacity_tokens"] > 0
    fixed = {
        name: value for name, (value, _) in FIXED.items() if name != "kv_connector" or not has_host_cache
    }
    return [name for name, value in fixed.items() if name in facts and facts[name] != value]


def _lacks_host_cache(engine: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return engine["host_cache"]["capacity_tokens"] > 0 and facts.get("kv_connector", "not known") is None


def _remedies(engine: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    differing = _differing(engine, facts)
    if differing:
        keys = " ".join(f"--set engine.{name}={_toml(facts[name])}" for name in differing)
        flags = " ".join(text for name in differing for text in flag(FLAGS[name], engine[name]))
        yield f"simulate the server's own with {keys}, or start it with {flags}"
    if _lacks_host_cache(engine, facts):
        yield "simulate none with --set engine.host_cache.capacity_tokens=0"
    yield from (FIXED[name][1] for name in _unlike_simulated(engine, facts))


def _profile_notes(provenance: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    for what, measured, here in _of_both(provenance, facts):
        if measured is not None and here is not None and measured != here:
            yield (
                f"the step-time profile is of {what} {measured}, the server's is {here}: calibrate on it, or "
                "name its profile"
            )


def _of_both(provenance: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Yield (what, of the profile, of the server); `None` where one of them does not say."""
    flags = provenance.get("flags") or {}
    yield "model", _base_name(provenance.get("model_name")), _base_name(facts.get("model"))
    yield "vLLM", _after(provenance.get("engine"), "vllm "), facts.get("vllm")
    device = provenance.get("device")
    yield "device", device and ("cpu" if device.startswith("cpu") else "cuda"), facts.get("device")
    for name in ("tensor_parallel_size", "dtype"):
        yield name, provenance.get(name), facts.get(name)
    for name in ("cache_dtype", "quantization", "enforce_eager"):
        yield name, flags.get(name), facts.get(name)


def _base_name(model: object) -> str | None:
    """Return a model's name without organisation, folder or case."""
    return str(model).rstrip("/").rpartition("/")[2].lower() if model else None


def _after(text: object, prefix: str) -> str | None:
    return text.removeprefix(prefix) if isinstance(text, str) and text.startswith(prefix) else None


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
