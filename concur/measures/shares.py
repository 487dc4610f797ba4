"""What groups share, while somebody of them is counted: as long as the longest of those."""


class Shares:
    """Tokens by group, and how many of each group are counted."""

    __slots__ = ("_by_group",)

    def __init__(self) -> None:
        self._by_group: dict[str, tuple[int, float]] = {}

    def tokens(self, group: str) -> float:
        """Return what is counted of a group, 0 while nobody of it is."""
        return self._by_group[group][1] if group in self._by_group else 0

    def num_members(self, group: str) -> int:
        """Return how many of a group are counted."""
        return self._by_group[group][0] if group in self._by_group else 0

    def items(self) -> list[tuple[str, float]]:
        """Return the groups of which somebody is counted, with what they share."""
        return [(group, tokens) for group, (_, tokens) in self._by_group.items()]

    def missing(self, group: str, tokens: float) -> float:
        """Return what one more of a group, that shares so much, would add."""
        return max(0, tokens - self.tokens(group))

    def enter(self, group: str, tokens: float) -> float:
        """Count one more of a group; return what it adds."""
        number, held = self._by_group.get(group, (0, 0))
        longest = max(held, tokens)
        self._by_group[group] = number + 1, longest
        return longest - held

    def leave(self, group: str) -> float:
        """Count one less of a group; return what nobody else shares."""
        number, held = self._by_group.pop(group)
        if number == 1:
            return held
        self._by_group[group] = number - 1, held
        return 0
