"""What every mutation proof does: changes of an engine's rule, and worlds that show them."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from typing import Any
from unittest.mock import patch

from hypothesis.strategies import SearchStrategy

from concur.validate.parity.fuzz import fuzz
from concur.validate.parity.parity import run_parity
from concur.validate.parity.worlds import World, worlds

Mutant = Callable[..., Any]
_BROKEN = (AssertionError, ValueError, IndexError, KeyError)


def replace(mutant: Any) -> Callable[[Any], Any]:
    return lambda original: mutant


def changed(rule: tuple[Any, str, Callable[[Any], Any]]) -> AbstractContextManager[Any]:
    """Put a mutant in the place of an owner's attribute for a while."""
    owner, attribute, mutate = rule
    return patch.object(owner, attribute, mutate(getattr(owner, attribute)))


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
