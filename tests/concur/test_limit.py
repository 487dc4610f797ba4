"""A bound that remembers which other values would have decided the same."""

from concur.twin.limit import Limit


def test_a_bound_agrees_with_those_that_would_have_answered_the_same() -> None:
    limit = Limit(10.0)
    assert [limit.is_exceeded(amount) for amount in (4.0, 8.0, 10.0, 15.0, 20.0)] == [False] * 3 + [True] * 2
    assert [limit.agrees(value) for value in (9.9, 10.0, 14.9, 15.0)] == [False, True, True, False]
