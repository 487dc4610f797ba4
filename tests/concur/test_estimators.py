"""The windowed hit rate: unknown is not zero, and restarts are not negative traffic."""

import pytest

from concur.measures.estimators import WindowedHitRate


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


@pytest.mark.parametrize("interval_s", [0.1, 0.3, 0.7, 1.1, 5.0])
def test_a_window_of_one_interval_never_reads_the_same_traffic_twice(interval_s: float) -> None:
    """Multiples of an interval are not exact in floating point; the rate must not see that."""
    rate = WindowedHitRate(interval_s)
    for number in range(500):
        hits = 100 * ((number + 1) // 2)  # every other interval hits all, the ones between nothing
        value = rate.update(time_s=number * interval_s, queries=100 * number, hits=hits)
        assert number == 0 or value == float(number % 2)


def test_a_counter_that_falls_starts_a_new_history() -> None:
    rate = WindowedHitRate(10.0)
    rate.update(time_s=0.0, queries=1000, hits=900)
    assert rate.update(time_s=5.0, queries=10, hits=1) is None
    assert rate.update(time_s=10.0, queries=110, hits=26) == 0.25
