"""The windowed hit rate: unknown is not zero, and restarts are not negative traffic."""

import pytest

from concur.estimators import WindowedHitRate


def test_one_reading_knows_nothing() -> None:
    assert WindowedHitRate(5.0).update(time_s=0.0, queries=100, hits=50) is None


def test_no_traffic_in_the_window_is_unknown_not_zero() -> None:
    rate = WindowedHitRate(5.0)
    rate.update(time_s=0.0, queries=100, hits=50)
    assert rate.update(time_s=5.0, queries=100, hits=50) is None


def test_rate_is_the_quotient_of_increases_over_the_window() -> None:
    rate = WindowedHitRate(10.0)
    readings = [(0.0, 0, 0), (5.0, 100, 90), (10.0, 200, 100), (15.0, 300, 110), (20.0, 400, 160)]
    rates = [rate.update(time_s=t, queries=q, hits=h) for t, q, h in readings]
    assert rates == [None, 0.9, 0.5, pytest.approx(20 / 200), pytest.approx(60 / 200)]


def test_a_counter_that_falls_starts_a_new_history() -> None:
    rate = WindowedHitRate(10.0)
    rate.update(time_s=0.0, queries=1000, hits=900)
    assert rate.update(time_s=5.0, queries=10, hits=1) is None
    assert rate.update(time_s=10.0, queries=110, hits=26) == 0.25
