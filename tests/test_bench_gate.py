from benchmarks.gate import is_slower

BASE_S = [1.0, 1.1, 0.9, 1.0, 1.2]


def times(factors: list[float]) -> list[float]:
    return [base * factor for base, factor in zip(BASE_S, factors, strict=True)]


def test_the_same_speed_passes() -> None:
    assert not is_slower(BASE_S, BASE_S)


def test_slower_in_four_of_five_rounds_fails() -> None:
    assert is_slower(BASE_S, times([1.3, 1.3, 1.3, 1.3, 0.9]))


def test_slower_in_three_of_five_rounds_passes_as_noise() -> None:
    assert not is_slower(BASE_S, times([1.3, 1.3, 1.3, 1.0, 0.9]))


def test_a_tenth_more_is_within_the_bound() -> None:
    assert not is_slower(BASE_S, times([1.099] * 5))


def test_much_slower_but_by_milliseconds_passes() -> None:
    assert not is_slower([0.1] * 5, [0.19] * 5)
