"""Seeds on the command line."""

from sim.errors import ScenarioError


def read_seeds(text: str, option: str) -> list[int]:
    """Read `0,1` or `100..104`, or both.

    Raises
    ------
    ScenarioError
        If `text`, given as `option`, is something else, or names a seed twice.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        if not first.isdecimal() or (dots and not last.isdecimal()):
            raise ScenarioError(f"{option} {text}: must be whole numbers from 0 on, e.g. 0,1 or 100..104")
        numbers += range(int(first), int(last) + 1) if dots else [int(first)]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ScenarioError(f"{option} {text}: needs at least one seed, each named once")
    return numbers
