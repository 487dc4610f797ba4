"""A bound that remembers which other values would have decided the same."""

from math import inf


class Limit:
    """Tell what goes beyond `value`, and keep the range of values under which all answers were the same."""

    __slots__ = ("_least", "_most", "value")

    def __init__(self, value: float) -> None:
        self.value = value
        self._least = -inf
        self._most = inf

    def is_exceeded(self, amount: float) -> bool:
        """Tell whether an amount goes beyond the bound."""
        if amount > self.value:
            if amount < self._most:
                self._most = amount
            return True
        if amount > self._least:
            self._least = amount
        return False

    def agrees(self, value: float) -> bool:
        """Tell whether another bound would have given every answer so far."""
        return self._least <= value < self._most
