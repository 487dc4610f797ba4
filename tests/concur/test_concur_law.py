"""CONCUR's Eq. 1: each branch against the formula, and every open choice against its statement."""

from typing import Any

import pytest

from concur.controllers import make_controller
from concur.errors import ParameterError
from tests.helpers import make_snapshot


def decide(*, usage: float, hits: int | None, window: int = 16, **params: Any) -> int:
    """One decision with a known hit percentage over the last interval; `None` is no traffic."""
    law = make_controller("concur", initial_window=window, **params)
    law.update(make_snapshot(0.0, kv_cache_usage_frac=0.3), active=1)
    queries = 0 if hits is None else 100
    return law.update(
        make_snapshot(
            5.0,
            kv_cache_usage_frac=usage,
            kv_cache_resident_frac=usage,
            prefix_cache_queries_tokens=queries,
            prefix_cache_hits_tokens=hits or 0,
        ),
        active=1,
    )


@pytest.mark.parametrize(
    ("usage", "hits", "expected"),
    [
        (0.19, 100, 18),  # U < U_low: + alpha
        (0.19, 0, 18),  # low usage grows, whatever the hits
        (0.20, 100, 16),  # at U_low: hold
        (0.35, 0, 16),  # between the thresholds: hold
        (0.50, 0, 16),  # at U_high: hold
        (0.51, 19, 8),  # U > U_high and H < H_thresh: * beta
        (0.51, 20, 16),  # at H_thresh: hold
        (1.00, 100, 16),  # high usage with healthy hits is tolerated on purpose
    ],
)
def test_each_branch_of_equation_one(usage: float, hits: int, expected: int) -> None:
    assert decide(usage=usage, hits=hits) == expected


def test_no_traffic_is_not_a_low_hit_rate() -> None:
    assert decide(usage=0.9, hits=None) == 16


@pytest.mark.parametrize(("rounding", "expected"), [("floor", 7), ("nearest", 8), ("ceil", 8)])
def test_rounding_of_a_cut(rounding: str, expected: int) -> None:
    assert decide(usage=0.9, hits=0, window=15, rounding=rounding) == expected


def test_window_stays_between_its_bounds() -> None:
    assert decide(usage=0.9, hits=0, window=3, min_window=2) == 2
    assert decide(usage=0.1, hits=0, window=16, max_window=17) == 17


def test_hit_rate_is_taken_over_its_window_only() -> None:
    law = make_controller("concur", hit_rate_window_s=10.0, interval_s=5.0)
    readings = [(0.0, 0, 0), (5.0, 100, 100), (10.0, 200, 100), (15.0, 300, 100)]
    for time_s, queries, hits in readings:
        law.update(
            make_snapshot(time_s, prefix_cache_queries_tokens=queries, prefix_cache_hits_tokens=hits),
            active=1,
        )
    assert law.log_state() == {"hit_rate_frac": 0.0}  # from 5 s to 15 s: 200 queries, no hit


def test_usage_can_count_resident_blocks_and_holds_where_they_are_not_published() -> None:
    assert decide(usage=0.9, hits=0, usage_counts="resident") == 8
    law = make_controller("concur", usage_counts="resident")
    assert law.update(make_snapshot(0.0, kv_cache_usage_frac=0.0), active=1) == 16


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"alpha": -1}, "alpha"),
        ({"beta": 1.0}, "beta"),
        ({"beta": 0.0}, "beta"),
        ({"u_low_frac": -0.1}, "u_low_frac"),
        ({"u_high_frac": 0.1}, "u_high_frac"),
        ({"h_thresh_frac": 1.1}, "h_thresh_frac"),
        ({"hit_rate_window_s": -1.0}, "hit_rate_window_s"),
        ({"max_window": 2**31}, "max_window"),
        ({"interval_s": float("inf")}, "interval_s"),
        ({"usage_counts": "all"}, "usage_counts"),
        ({"initial_window": 0}, "initial_window"),
        ({"min_window": 0}, "min_window"),
        ({"max_window": 4}, "initial_window"),
        ({"rounding": "up"}, "rounding"),
        ({"interval_s": 0.0}, "interval_s"),
        ({"alpha": 1.5}, "alpha"),
        ({"gain": 1}, "gain"),
    ],
)
def test_a_parameter_out_of_bounds_is_refused_by_name(params: dict[str, Any], name: str) -> None:
    with pytest.raises(ParameterError, match=name):
        make_controller("concur", **params)
