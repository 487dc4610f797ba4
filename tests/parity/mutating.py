"""What every mutation proof against vLLM's scheduler does: changes of a rule, and worlds that show them."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from hypothesis.strategies import SearchStrategy

from concur.validate.parity.fuzz import fuzz
from concur.validate.parity.parity import run_parity
from concur.validate.parity.worlds import World, worlds

Mutant = Callable[..., Any]
_BROKEN = (AssertionError, ValueError, IndexError, KeyError)


def replace(mutant: Any) -> Callable[[Any], Any]:
    return lambda original: mutant


def is_caught_on(
    known: Iterable[World], *, num_worlds: int, drawn_from: Callable[[], SearchStrategy[World]] = worlds
) -> bool:
    """Run the known worlds, then random ones, until something differs or breaks."""
    for world in known:
        try:
            if run_parity(*world).difference is not None:
                return True
        except _BROKEN:
            return True
    with suppress(*_BROKEN):
        return fuzz(num_worlds, 0, drawn_from=drawn_from).failure is not None
    return True
