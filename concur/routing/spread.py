"""Routers that spread calls and look at nothing but load: round robin, least loaded, power of two choices."""

from collections.abc import Sequence

from concur.routing.base import EngineLoad, PlainRouter, RoutedCall, RouterParams, those_up
from concur.routing.draws import Draws


class RoundRobin(PlainRouter):
    """One engine after the other; those that are down are passed over."""

    def __init__(self, params: RouterParams) -> None:
        self._number = 0

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the next engine in the row."""
        up = those_up(engines)
        engine = up[self._number % len(up)]
        self._number += 1
        return engine


class LeastLoaded(PlainRouter):
    """The engine with the fewest calls in flight; of equal ones the next in the row."""

    def __init__(self, params: RouterParams) -> None:
        self._number = 0

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the engine with the least to do."""
        up, first = those_up(engines), self._number
        self._number += 1
        return min(up, key=lambda each: (engines[each].num_in_flight, (each - first) % len(engines)))


class PowerOfTwo(PlainRouter):
    """Of two engines drawn at random, the one with fewer calls in flight (Mitzenmacher, 2001)."""

    def __init__(self, params: RouterParams) -> None:
        self._draws = Draws(params.seed)

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the better one of two that are drawn."""
        up = those_up(engines)
        one = self._draws.below(len(up))
        other = (one + 1 + self._draws.below(max(1, len(up) - 1))) % len(up)
        return min(up[one], up[other], key=lambda each: engines[each].num_in_flight)
