"""The metrics that only a fleet has: each engine for itself, for a mean hides the one that has collapsed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from concur.sim.record.metrics import time_average
from concur.sim.record.phases import hit_rate
from concur.sim.record.tables import Columns


def fleet_metrics(
    requests: Columns,
    engines: Columns,
    *,
    num_engines: int,
    num_moves: int,
    num_calls_aborted: int | None = None,
) -> dict[str, Any]:
    """Return `num_moves` (calls on another engine than the agent's last one) and a row for each engine.

    With `[[fleet.outages]]` also `num_calls_aborted`, calls that were at an engine when it died.

    An engine's row: `num_requests`, `prompt_tokens`, `cached_tokens`, `hit_rate`, `generated_tokens`,
    `throughput_tokens_per_s` (over the makespan of the fleet), `num_preemptions`, `mean_kv_usage`,
    `peak_kv_usage`; named as those of the fleet, `None` where the record does not say.
    """
    makespan_s = float(requests["finished_s"].max())
    rows = [
        _engine(_of(requests, index), _of(engines, index), index, makespan_s) for index in range(num_engines)
    ]
    aborted = {} if num_calls_aborted is None else {"num_calls_aborted": num_calls_aborted}
    return {"num_moves": num_moves, **aborted, "engines": rows}


def sum_of_metrics(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return counts of several engines as one; of one engine its own."""
    if len(each) == 1:
        return dict(each[0])
    names = dict.fromkeys(name for metrics in each for name in metrics)
    return {name: sum(metrics.get(name, 0) for metrics in each) for name in names}


def downtimes(engines: pd.DataFrame) -> list[tuple[int, float, float]]:
    """Return (engine, from, to) of every stretch of samples at which an engine was down, in seconds."""
    found = []
    for engine_index in sorted(set(engines["engine_index"])):
        samples = engines[engines["engine_index"] == engine_index]
        is_down = samples["is_up"].to_numpy() == 0
        times_s = samples["t_s"].to_numpy(np.float64)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], is_down, [False]])))
        for first, after in edges.reshape(-1, 2):
            end_s = times_s[min(after, len(times_s) - 1)]
            found.append((int(engine_index), float(times_s[first]), float(end_s)))
    return found


def _of(table: Columns, index: int) -> Columns:
    own = table["engine_index"] == index
    return {name: column[own] for name, column in table.items()}


def _engine(requests: Columns, samples: Columns, index: int, makespan_s: float) -> dict[str, Any]:
    generated = int(requests["output_tokens"].sum())
    return {
        "engine_index": index,
        "num_requests": len(requests["engine_index"]),
        "prompt_tokens": int(requests["prompt_tokens"].sum()),
        "cached_tokens": _sum(requests["cached_tokens"]),
        "hit_rate": hit_rate(requests),
        "generated_tokens": generated,
        "throughput_tokens_per_s": generated / makespan_s,
        "num_preemptions": _sum(requests["num_preemptions"]),
        "mean_kv_usage": time_average(samples, "kv_cache_usage_frac"),
        "peak_kv_usage": float(samples["kv_cache_usage_frac"].max()),
    }


def _sum(column: np.ndarray) -> int | None:
    return None if np.isnan(column).any() else int(column.sum())
