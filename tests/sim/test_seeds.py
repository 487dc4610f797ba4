"""Seeds as they are written on the command line."""

import pytest

from concur.sim.errors import ScenarioError
from concur.sim.runs.seeds import read_seeds


def test_seeds_and_ranges_of_them() -> None:
    assert read_seeds("3", "--seeds") == [3]
    assert read_seeds("0, 100..102,7", "--seeds") == [0, 100, 101, 102, 7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "whole numbers"),
        ("a", "whole numbers"),
        ("-1", "whole numbers"),
        ("1..", "whole numbers"),
        ("9" * 5000, "at most 9 digits"),
        ("0,9..1", "9..1 names 0 seeds"),
        ("0..999999999", "1,000,000,000 seeds"),
        ("0,0", "named once"),
        ("0..3,2", "named once"),
    ],
)
def test_what_names_no_seeds_is_refused(text: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said) as refused:
        read_seeds(text, "--seeds")
    assert str(refused.value).startswith("--seeds")
    assert len(str(refused.value)) < 200
