"""Shared prefixes: groups within groups, and how much of each others have sent before."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from concur.signals import Prefix


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


def prefix_levels(
    prefix_group: str | None, shared_prefix_tokens: int, outer_prefixes: Sequence[Prefix]
) -> tuple[Prefix, ...]:
    """Return what an agent shares with groups, from the outermost in, each with its own tokens."""
    if prefix_group is None:
        return ()
    outer_tokens = sum([prefix.tokens for prefix in outer_prefixes])
    return (*outer_prefixes, Prefix(prefix_group, shared_prefix_tokens - outer_tokens))


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
