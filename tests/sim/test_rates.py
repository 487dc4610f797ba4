"""Rates over a sliding window, by hand."""

import numpy as np
import pandas as pd
import pytest

from concur.sim.record.rates import window_of, windowed_hit_rate, windowed_rate

TIMELINE = pd.DataFrame(
    {
        "t_s": [0.0, 1.0, 2.0, 4.0],
        "prefix_cache_queries_tokens": [0, 100, 100, 300],
        "prefix_cache_hits_tokens": [0, 50, 50, 90],
        "unknown": pd.array([None] * 4, pd.Int64Dtype()),
    }
)


def test_a_rate_is_the_increase_over_the_window_and_over_what_there_is_of_it_at_the_start() -> None:
    assert windowed_rate(TIMELINE, "prefix_cache_queries_tokens", 2.0).tolist() == [0.0, 100.0, 50.0, 100.0]


def test_a_hit_rate_is_unknown_where_nothing_was_asked() -> None:
    rates = windowed_hit_rate(TIMELINE, 1.0)
    assert np.isnan(rates[[0, 2]]).all()
    assert rates[[1, 3]] == pytest.approx([0.5, 0.2])


def test_a_counter_that_is_not_published_has_no_rate() -> None:
    assert np.isnan(windowed_rate(TIMELINE, "unknown", 1.0)).all()


def test_the_window_is_a_part_of_the_run_but_a_second_at_least() -> None:
    assert window_of(TIMELINE) == 1.0
    assert window_of(TIMELINE, part=2) == 2.0
