"""Rates over a sliding window, from the cumulative counters of a timeline."""

import numpy as np
import pandas as pd


def window_of(timeline: pd.DataFrame, *, part: int = 60) -> float:
    """Return a window in seconds that shows a run's shape: one `part`-th of it, and at least 1 s."""
    return max(float(timeline["t_s"].iloc[-1]) / part, 1.0)


def windowed_rate(timeline: pd.DataFrame, counter: str, window_s: float) -> np.ndarray:
    """Return a cumulative counter's increase per second over the last `window_s`, shape (num_samples,).

    0 at the first sample; NaN where the counter is not known.
    """
    times_s = timeline["t_s"].to_numpy(np.float64)
    values = timeline[counter].to_numpy(np.float64)
    before_s = np.maximum(times_s - window_s, times_s[0])
    spans_s = times_s - before_s
    increase = values - np.interp(before_s, times_s, values)
    return np.asarray(np.divide(increase, spans_s, out=0 * increase, where=spans_s > 0))


def windowed_hit_rate(timeline: pd.DataFrame, window_s: float) -> np.ndarray:
    """Return cached / prompt tokens of the calls scheduled in the last `window_s`, NaN where there are none.

    Returns
    -------
    array of shape (num_samples,), 0 to 1
    """
    hits = windowed_rate(timeline, "prefix_cache_hits_tokens", window_s)
    queries = windowed_rate(timeline, "prefix_cache_queries_tokens", window_s)
    return np.asarray(np.divide(hits, queries, out=np.full_like(hits, np.nan), where=queries > 0))
