"""Numbers that look random and are a function of their names: for routers, which have no generator.

BLAKE2b (RFC 7693) of the names, the same on every machine and in every run.
"""

from hashlib import blake2b
from typing import Final

_BYTES: Final = 8


def draw(*names: object) -> int:
    """Return a number from 0 to 2**64 - 1 that these names stand for."""
    text = "\0".join(str(name) for name in names)
    return int.from_bytes(blake2b(text.encode(), digest_size=_BYTES).digest(), "big")


class Draws:
    """A row of draws, one after the other."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number = 0

    def below(self, bound: int) -> int:
        """Return the next one, from 0 to `bound` - 1."""
        self._number += 1
        return draw(self._seed, self._number) % bound
