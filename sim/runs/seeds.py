"""Seeds on the command line."""

from typing import Final

from concur.sim.errors import ScenarioError

_MOST_SEEDS: Final = 10_000
_MOST_DIGITS: Final = 9


def read_seeds(text: str, option: str) -> list[int]:
    """Read `0,1` or `100..104`, or both.

    Raises
    ------
    ScenarioError
        If `text`, given as `option`, is something else, or names a seed twice.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        if not all(end.isdecimal() and len(end) <= _MOST_DIGITS for end in (first, last if dots else first)):
            raise ScenarioError(
                f"{option} {text[:80]}: must be whole numbers of at most {_MOST_DIGITS} digits, e.g. 0,1 or "
                "100..104"
            )
        seeds = range(int(first), int(last if dots else first) + 1)
        if not 1 <= len(seeds) <= _MOST_SEEDS:
            raise ScenarioError(
                f"{option} {text}: {part} names {len(seeds):,} seeds but must name 1 to {_MOST_SEEDS:,}; "
                "write the lower end first"
            )
        numbers += seeds
    if len(set(numbers)) < len(numbers):
        raise ScenarioError(f"{option} {text}: names a seed twice; have each named once")
    return numbers
