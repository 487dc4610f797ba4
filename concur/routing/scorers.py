"""The endpoint picker of the Gateway API Inference Extension and llm-d (facts only): a sum of three scores.

::

    score = queue_weight * (most - waiting) / (most - least)      over the engines; 1 if all wait alike
          + kv_cache_weight * (1 - KV usage)
          + prefix_weight * matched blocks / blocks               of the first `max_prefix_tokens` tokens

The highest one, ties drawn. Engines are read every 50 ms (`refreshMetricsInterval`). Its default profile
weighs queue-scorer 2, kv-cache-utilization-scorer 2 and prefix-cache-scorer 3; 256 blocks of 16 tokens are
matched at most, and 31,250 blocks of an engine remembered (`DefaultMaxPrefixBlocks`,
`DefaultLRUCapacityPerServer`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from concur.errors import require
from concur.routing.base import EngineLoad, PlainRouter, RoutedCall, RouterParams, check_interval, those_up
from concur.routing.draws import Draws
from concur.routing.prefixes import SentPrefixes


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorersParams(RouterParams):
    """Parameters of `scorers`, with the default profile's values."""

    queue_weight: float = 2.0
    kv_cache_weight: float = 2.0
    prefix_weight: float = 3.0
    max_prefix_tokens: int = 256 * 16
    lru_tokens: int = 31_250 * 16
    stats_interval_s: float = 0.05

    def __post_init__(self) -> None:
        RouterParams.__post_init__(self)
        for name in ("queue_weight", "kv_cache_weight", "prefix_weight"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("max_prefix_tokens", "lru_tokens"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1 token")
        check_interval(self.stats_interval_s)


class Scorers(PlainRouter):
    """Take the engine with the highest score."""

    def __init__(self, params: ScorersParams) -> None:
        self.reads_every_s = params.stats_interval_s
        self._params = params
        self._draws = Draws(params.seed)
        self._sent = SentPrefixes(max_tokens=params.lru_tokens)

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the engine of the highest score, and remember what it is sent."""
        up, prefix = those_up(engines), _cut(call, self._params.max_prefix_tokens)
        waiting = [engines[each].num_requests_waiting for each in up]
        scores = {
            each: self._score(each, engines[each], prefix, (min(waiting), max(waiting)), time_s)
            for each in up
        }
        highest = max(scores.values())
        best = [each for each, score in scores.items() if score == highest]
        engine = best[self._draws.below(len(best))]
        self._sent.sent(engine, prefix, time_s=time_s)
        return engine

    def lost(self, engine: int) -> None:
        """Forget what was in its cache."""
        self._sent.forget(engine)

    def _score(
        self,
        engine: int,
        load: EngineLoad,
        prefix: tuple[tuple[object, int], ...],
        waiting: tuple[int, int],
        time_s: float,
    ) -> float:
        params, (least, most) = self._params, waiting
        queue = (most - load.num_requests_waiting) / (most - least) if most > least else 1.0
        length = sum(tokens for _, tokens in prefix)
        matched = self._sent.matched_tokens(engine, prefix, time_s=time_s) / length if length else 0.0
        usage = 1.0 - load.kv_cache_usage_frac
        return params.queue_weight * queue + params.kv_cache_weight * usage + params.prefix_weight * matched


def _cut(call: RoutedCall, most_tokens: int) -> tuple[tuple[object, int], ...]:
    """Return the parts of the first tokens of a prompt."""
    parts: list[tuple[object, int]] = []
    left = most_tokens
    for name, length in call.prefix:
        if left <= 0:
            break
        parts.append((name, min(length, left)))
        left -= length
    return tuple(parts)
