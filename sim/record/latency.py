"""What a client sees: time to the first token, per later token and to the last, and goodput under an SLO.

All of it counts from the moment that the agent was ready to call, so waiting at the gate is part of it:
holding agents back must not look like serving them fast.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from concur.sim.record.tables import Columns
from concur.sim.scenario.sections import SloConfig

LEVELS: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
"""Name -> quantile. Names of metrics are vLLM's (vllm/benchmarks/serve.py, 0.32): TTFT, TPOT."""


def ttft_s(requests: Columns) -> np.ndarray:
    """Return the time to the first token of each call, shape (num_calls,)."""
    return np.asarray(requests["first_token_s"] - requests["ready_s"], dtype=np.float64)


def tpot_s(requests: Columns) -> np.ndarray:
    """Return the mean time of each output token after the first; NaN for an answer of one token."""
    later = np.asarray(requests["output_tokens"], dtype=np.float64) - 1.0
    decode_s = np.asarray(requests["finished_s"] - requests["first_token_s"], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(later > 0, decode_s / later, np.nan))


def call_latency_s(requests: Columns) -> np.ndarray:
    """Return the time from ready to the last token of each call, shape (num_calls,)."""
    return np.asarray(requests["finished_s"] - requests["ready_s"], dtype=np.float64)


def quantiles(values: np.ndarray, levels: Mapping[str, float] = LEVELS) -> dict[str, float | None]:
    """Return the quantiles of the values that there are; none of any call is known: `None` each."""
    known = values[~np.isnan(values)]
    if not known.size:
        return dict.fromkeys(levels)
    return {name: float(np.quantile(known, level)) for name, level in levels.items()}


def latency_metrics(requests: Columns, *, makespan_s: float, slo: SloConfig) -> dict[str, Any]:
    """Return the latencies' quantiles, and what of the work met the SLO; see `compute_metrics`."""
    is_met = met(requests, slo)
    tokens = requests["output_tokens"]
    return {
        "ttft_s": quantiles(ttft_s(requests)),
        "tpot_s": quantiles(tpot_s(requests)),
        "call_latency_s": quantiles(call_latency_s(requests)),
        "slo_attainment": None if is_met is None else float(is_met.mean()),
        "goodput_calls_per_s": None if is_met is None else float(is_met.sum()) / makespan_s,
        "goodput_tokens_per_s": None if is_met is None else float(tokens[is_met].sum()) / makespan_s,
    }


def met(requests: Columns, slo: SloConfig) -> np.ndarray | None:
    """Tell which calls kept every limit that the SLO states, shape (num_calls,); `None` if it states none.

    Goodput counts the work of those alone: Zhong et al., DistServe (OSDI 2024), section 2. An answer of one
    token has no time per output token and keeps that limit.
    """
    limits = (
        (slo.ttft_s, ttft_s(requests)),
        (slo.tpot_s, tpot_s(requests)),
        (slo.call_latency_s, call_latency_s(requests)),
    )
    stated = [~(values > limit) for limit, values in limits if limit is not None]
    return np.logical_and.reduce(stated) if stated else None
