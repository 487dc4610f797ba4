"""SGLang's router, policy `cache_aware` (sgl-model-gateway 0.3.2, `src/policies/cache_aware.rs`; facts only).

::

    out of balance:  max - min > balance_abs_threshold  and  max > balance_rel_threshold * min
                     of calls in flight by the router's own count: the engine with the fewest
    in balance:      matched / prompt > cache_threshold: the engine with the longest match
                     else the engine with the fewest calls in flight

Ties are drawn. A prompt counts as held by the engine that it was sent to, until `max_tree_tokens` of that
engine are exceeded. The router itself counts characters (2**26 by default); 2**24 tokens are as many at four
each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from concur.errors import require
from concur.routing.base import EngineLoad, PlainRouter, RoutedCall, RouterParams, those_up
from concur.routing.draws import Draws
from concur.routing.prefixes import SentPrefixes
from concur.routing.sticky import check_balance


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAwareParams(RouterParams):
    """Parameters of `cache_aware`, under SGLang's names and with its defaults."""

    cache_threshold: float = 0.3
    balance_abs_threshold: int = 64
    balance_rel_threshold: float = 1.5
    max_tree_tokens: int = 2**24

    def __post_init__(self) -> None:
        RouterParams.__post_init__(self)
        require(0 <= self.cache_threshold <= 1, "cache_threshold", self.cache_threshold, "0 to 1")
        check_balance(self.balance_abs_threshold, self.balance_rel_threshold)
        require(self.max_tree_tokens >= 1, "max_tree_tokens", self.max_tree_tokens, "at least 1 token")


class CacheAware(PlainRouter):
    """Follow the cache while the fleet is in balance, and the load when it is not."""

    def __init__(self, params: CacheAwareParams) -> None:
        self._params = params
        self._draws = Draws(params.seed)
        self._sent = SentPrefixes(max_tokens=params.max_tree_tokens)

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the engine that the policy names, and remember what it is sent."""
        up = those_up(engines)
        engine = self._choose(call, {each: engines[each].num_in_flight for each in up}, time_s)
        self._sent.sent(engine, call.prefix, time_s=time_s)
        return engine

    def lost(self, engine: int) -> None:
        """Forget what was in its cache."""
        self._sent.forget(engine)

    def _choose(self, call: RoutedCall, loads: dict[int, int], time_s: float) -> int:
        params = self._params
        least, most = min(loads.values()), max(loads.values())
        if most - least > params.balance_abs_threshold and most > params.balance_rel_threshold * least:
            return self._least_loaded(loads)
        matches = {each: self._sent.matched_tokens(each, call.prefix, time_s=time_s) for each in loads}
        longest = max(matches.values())
        if longest <= params.cache_threshold * call.prompt_tokens:
            return self._least_loaded(loads)
        return min((each for each in loads if matches[each] == longest), key=lambda each: (loads[each], each))

    def _least_loaded(self, loads: dict[int, int]) -> int:
        least = min(loads.values())
        equal = [each for each, load in loads.items() if load == least]
        return equal[self._draws.below(len(equal))]
