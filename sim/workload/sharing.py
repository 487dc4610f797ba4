"""How much of a shared prefix others have sent before."""

from collections.abc import Iterable
from typing import Protocol


class Level(Protocol):
    """Tokens that a group shares, within those of the groups around it."""

    @property
    def group(self) -> str:
        """Who shares them."""
        ...

    @property
    def tokens(self) -> int:
        """How many they are."""
        ...


def warm_prefix(levels: Iterable[Level], warm_tokens: dict[str, int]) -> int:
    """Return how much of the prefix has been sent before, given how much of each group's has."""
    total = 0
    for level in levels:
        warm = min(level.tokens, warm_tokens.get(level.group, 0))
        total += warm
        if warm < level.tokens:
            break
    return total


def warm_up(levels: Iterable[Level], warm_tokens: dict[str, int]) -> None:
    """Take note that somebody has sent the whole prefix."""
    for level in levels:
        warm_tokens[level.group] = max(warm_tokens.get(level.group, 0), level.tokens)
