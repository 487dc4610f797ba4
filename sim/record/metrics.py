"""The metrics of a run, from its tables alone: the same formulas for a simulated and a live engine.

`None` means that the record does not hold what the metric needs, or that it has no value; never 0.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

import numpy as np

from concur.measures.prefixes import warm_prefix, warm_up
from concur.sim.record.latency import LEVELS, latency_metrics, quantiles
from concur.sim.record.phases import RULE, Phase, find_phases, hit_rate
from concur.sim.record.sharing import levels_of, parents_of
from concur.sim.record.tables import Columns
from concur.sim.scenario.sections import SloConfig

_LATENCY_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_WAIT_QUANTILES: Final = {"p50": 0.5, "p99": 0.99, "max": 1.0}
_NAMES: Final = (
    "num_agents",
    "num_agents_skipped",
    "makespan_s",
    "num_engine_steps",
    "num_requests",
    "prompt_tokens",
    "cached_tokens",
    "host_tokens",
    "hit_rate",
    "ideal_hit_rate",
    "recomputed_tokens",
    "generated_tokens",
    "throughput_tokens_per_s",
    "recompute_time_fraction",
    "idle_fraction",
    "num_preemptions",
    "mean_active_agents",
    "agent_latency_s",
    "step_wait_s",
    "ttft_s",
    "tpot_s",
    "call_latency_s",
    "slo_attainment",
    "goodput_calls_per_s",
    "goodput_tokens_per_s",
    "gate_pauses",
    "jain_fairness",
    "mean_kv_usage",
    "peak_kv_usage",
    "phases",
)
_PHASES: Final = ("warm_up", "middle", "cool_down")


def compute_metrics(
    *,
    requests: Columns,
    agents: Columns,
    timeline: Columns,
    pool_tokens: int,
    block_size: int,
    num_agents_skipped: int,
    num_engine_steps: int | None,
    slo: SloConfig,
    num_engines: int = 1,
) -> dict[str, Any]:
    """Return every metric of a finished run.

    ======================== =====================================================================
    num_agents               agents that finished
    num_agents_skipped       agents left out, for whatever reason; `warnings` in run.json has the reasons
    makespan_s               end of the last call, seconds since the start
    num_engine_steps         steps that computed something
    num_requests             model calls
    prompt_tokens            sum of prompt lengths over calls
    cached_tokens            sum of tokens credited when a call was first scheduled
    host_tokens              the part of cached_tokens that was loaded from host memory
    hit_rate                 cached_tokens / prompt_tokens, 0 to 1
    ideal_hit_rate           the same under a cache that never evicts, see `ideal_hit_rate`
    recomputed_tokens        tokens prefilled although computed before for that agent
    generated_tokens         sum of output lengths
    throughput_tokens_per_s  generated_tokens / makespan_s: recomputed tokens do not count
    recompute_time_fraction  engine time that recompute added to the steps / makespan_s, mean over engines
    idle_fraction            time without a step / makespan_s, mean over engines
    num_preemptions          sum over calls
    mean_active_agents       time average of agents that hold a slot, over the timeline
    agent_latency_s          finished - arrived per agent: p50, p90, p99, max
    step_wait_s              wait at the gate per call: p50, p99, max
    ttft_s                   time to first token per call, from ready: p50, p90, p95, p99, max
    tpot_s                   time per later output token per call: the same
    call_latency_s           from ready to the last token per call: the same
    slo_attainment           share of calls that kept every limit of `[slo]`, 0 to 1
    goodput_calls_per_s      number of those / makespan_s
    goodput_tokens_per_s     their output tokens / makespan_s
    gate_pauses              how often agents lost their slot, sum
    jain_fairness            (sum x)^2 / (n sum x^2), x = output tokens / latency of each agent; 1 is fair
                             (Jain, Chiu, Hawe, DEC-TR-301, 1984)
    mean_kv_usage            time average of the KV-usage gauge (referenced blocks), 0 to 1
    peak_kv_usage            its maximum over the timeline
    phases                   see `concur.sim.record.phases`
    ======================== =====================================================================

    A simulated engine with vLLM's `OffloadingConnector` adds `num_host_loads`, `host_loaded_blocks`,
    `host_stored_blocks`, `num_host_flushes` (steps that waited for transfers), `host_flush_stall_s` (how
    long), `host_load_s` (how long loads ran) and `host_reload_wait_s` (how long of that nothing was
    computed); see `concur.sim.engine.offload.transfers.HostTraffic`. One with SGLang's HiCache adds what
    SGLang counts, `load_back_tokens`, `hicache_backup_tokens`, `hicache_dropped_tokens`, `evicted_tokens` and
    `host_hit_tokens`, and `host_load_s`, `host_reload_wait_s`, `host_backup_s` and `host_backup_stall_s` (how
    long the scheduler waited for copies); see `concur.sim.engine.sglang.transfers.HiCacheTraffic`. A fleet
    adds those of `concur.sim.record.fleet`.
    """
    makespan_s = float(requests["finished_s"].max())
    latencies_s = agents["finished_s"] - agents["arrived_s"]
    waits_s = requests["submitted_s"] - requests["ready_s"]
    generated = int(requests["output_tokens"].sum())
    busy_s = _total(timeline, "prefill_s", "recompute_s", "decode_s")
    phases = find_phases(requests, agents, pool_tokens=pool_tokens, end_s=makespan_s)
    return {
        "num_agents": len(latencies_s),
        "num_agents_skipped": num_agents_skipped,
        "makespan_s": makespan_s,
        "num_engine_steps": num_engine_steps,
        "num_requests": len(waits_s),
        "prompt_tokens": int(requests["prompt_tokens"].sum()),
        "cached_tokens": _sum(requests["cached_tokens"]),
        "host_tokens": _sum(requests["host_tokens"]),
        "hit_rate": hit_rate(requests),
        "ideal_hit_rate": ideal_hit_rate(requests, agents, block_size=block_size),
        "recomputed_tokens": _sum(requests["recomputed_tokens"]),
        "generated_tokens": generated,
        "throughput_tokens_per_s": generated / makespan_s,
        "recompute_time_fraction": _ratio(_total(timeline, "recompute_s"), makespan_s * num_engines),
        "idle_fraction": None if busy_s is None else 1.0 - busy_s / (makespan_s * num_engines),
        "num_preemptions": _sum(requests["num_preemptions"]),
        "mean_active_agents": time_average(timeline, "agents_active"),
        "agent_latency_s": quantiles(latencies_s, _LATENCY_QUANTILES),
        "step_wait_s": quantiles(waits_s, _WAIT_QUANTILES),
        **latency_metrics(requests, makespan_s=makespan_s, slo=slo),
        "gate_pauses": int(agents["num_pauses"].sum()),
        "jain_fairness": _fairness(_output_tokens(requests, agents), latencies_s),
        "mean_kv_usage": time_average(timeline, "kv_cache_usage_frac"),
        "peak_kv_usage": float(timeline["kv_cache_usage_frac"].max()),
        "phases": {"rule": RULE} | {phase.name: _without_name(asdict(phase)) for phase in phases},
    }


def no_metrics() -> dict[str, Any]:
    """Return every metric of `compute_metrics` as not known: where a run that did not end begins."""
    groups: dict[str, dict[str, Any]] = {
        "agent_latency_s": dict.fromkeys(_LATENCY_QUANTILES),
        "step_wait_s": dict.fromkeys(_WAIT_QUANTILES),
        **{name: dict.fromkeys(LEVELS) for name in ("ttft_s", "tpot_s", "call_latency_s")},
        "phases": {"rule": RULE} | {name: _unknown_phase() for name in _PHASES},
    }
    return {name: groups.get(name) for name in _NAMES}


def counts_of(tables: Mapping[str, Columns]) -> dict[str, Any]:
    """Return what can be said of a run that was cut off: what is over has been counted."""
    requests = tables["requests"]
    return {
        "num_agents": len(tables["agents"]["agent_index"]),
        "num_requests": len(requests["agent_index"]),
        "prompt_tokens": int(requests["prompt_tokens"].sum()),
        "generated_tokens": int(requests["output_tokens"].sum()),
    }


def _unknown_phase() -> dict[str, None]:
    return {field.name: None for field in fields(Phase) if field.name != "name"}


def ideal_hit_rate(requests: Columns, agents: Columns, *, block_size: int) -> float | None:
    """Return the hit rate that a cache that never evicts would have had on the same calls.

    A call finds the full blocks of its history (`kept_tokens`, all but the last sampled token of which were
    computed; a fork's are its parent's), or of the shared prefix once a call of its group was scheduled
    before; never its last token.
    """
    levels = dict(zip(agents["agent_index"].tolist(), levels_of(agents), strict=True))
    forks = parents_of(agents)
    forked = set(forks.values())
    computed: dict[tuple[int, int], int] = {}  # by agent and call: of the history after it
    warm_tokens: dict[str, int] = {}
    ideal = 0
    order = np.lexsort((requests["call_index"], requests["agent_index"], requests["scheduled_s"]))
    names = ("agent_index", "call_index", "prompt_tokens", "kept_tokens", "output_tokens")
    calls = zip(*(requests[each][order].tolist() for each in names), strict=True)
    for agent, call, prompt, kept, output in calls:
        before = (agent, call - 1) if call else forks.get(agent, (agent, -1))
        known = max(min(computed.get(before, 0), kept), min(warm_prefix(levels[agent], warm_tokens), kept))
        ideal += min(known, prompt - 1) // block_size * block_size
        if agent in forks and not call:  # with the parent's last token, which nobody had computed
            computed[before] = max(computed.get(before, 0), kept)
        elif call and before not in forked:
            del computed[before]
        computed[agent, call] = prompt + output - 1
        warm_up(levels[agent], warm_tokens)
    prompt_total = int(requests["prompt_tokens"].sum())
    return int(ideal) / prompt_total if prompt_total else None


def jain_fairness(shares: np.ndarray) -> float:
    """Return Jain's index of `shares`, shape (num_agents,): 1 if all are equal, 1/n if one has it all."""
    return float(shares.sum() ** 2 / (shares.size * (shares**2).sum()))


def _fairness(output_tokens: np.ndarray, latencies_s: np.ndarray) -> float | None:
    return jain_fairness(output_tokens / latencies_s) if (latencies_s > 0).all() else None


def _output_tokens(requests: Columns, agents: Columns) -> np.ndarray:
    """Return what each agent has generated, in the order of `agents`."""
    indices, place = np.unique(requests["agent_index"], return_inverse=True)
    totals = np.bincount(place, requests["output_tokens"])
    return np.asarray(totals[np.searchsorted(indices, agents["agent_index"])])


def time_average(timeline: Columns, column: str) -> float:
    """Return the average of a gauge over time; each sample holds until the next one."""
    values = timeline[column].astype(np.float64)
    widths_s = np.diff(timeline["t_s"])
    return float((values[:-1] * widths_s).sum() / widths_s.sum()) if widths_s.sum() > 0 else float(values[0])


def _sum(column: np.ndarray) -> int | None:
    return None if np.isnan(column).any() else int(column.sum())


def _total(timeline: Columns, *columns: str) -> float | None:
    """Return the sum of counters at the end of a run."""
    last = [float(timeline[column][-1]) for column in columns]
    return None if np.isnan(last).any() else float(sum(last))


def _ratio(part: float | None, whole: float) -> float | None:
    return None if part is None else part / whole


def _without_name(phase: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in phase.items() if key != "name"}
