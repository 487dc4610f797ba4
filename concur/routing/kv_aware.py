"""Dynamo's router (`lib/kv-router`, `scheduling/selector.rs`; facts only): the engine with the least to do.

::

    cost = overlap_score_weight * potential_prefill_blocks + decode_blocks        (the lowest one; ties drawn)

    potential_prefill_blocks   prompt tokens that the engine has to compute for this call and for those that
                               it was sent before and that are in flight, in blocks
    decode_blocks              blocks of the prompts in flight there, with this one

What an engine has cached is what it was sent in the last `ttl_s` seconds, as Dynamo has it without events
from the engines (`--no-kv-events`, 120 s). Prompts count as being prefilled until their call ends, for this
router is not told of first tokens: its costs lean to the prefill's side by that.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from concur.errors import require
from concur.routing.base import EngineLoad, PlainRouter, RoutedCall, RouterParams, those_up
from concur.routing.draws import Draws
from concur.routing.prefixes import SentPrefixes


@dataclass(frozen=True, slots=True, kw_only=True)
class KvAwareParams(RouterParams):
    """Parameters of `kv_aware`, with Dynamo's defaults; `block_size` is the unit of its cost, in tokens."""

    overlap_score_weight: float = 1.0
    ttl_s: float = 120.0
    block_size: int = 16

    def __post_init__(self) -> None:
        RouterParams.__post_init__(self)
        require(
            self.overlap_score_weight >= 0, "overlap_score_weight", self.overlap_score_weight, "at least 0"
        )
        require(self.ttl_s > 0, "ttl_s", self.ttl_s, "greater than 0 s")
        require(self.block_size >= 1, "block_size", self.block_size, "at least 1 token")


class KvAware(PlainRouter):
    """Weigh what a call would have to compute against what an engine has in flight."""

    def __init__(self, params: KvAwareParams) -> None:
        self._params = params
        self._draws = Draws(params.seed)
        self._sent = SentPrefixes(ttl_s=params.ttl_s)
        self._prefill_tokens: Counter[int] = Counter()
        self._prompt_tokens: Counter[int] = Counter()
        self._missing: dict[tuple[str, int], list[int]] = {}

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the engine of the lowest cost, and book the call there."""
        missing = {
            each: call.prompt_tokens - self._sent.matched_tokens(each, call.prefix, time_s=time_s)
            for each in those_up(engines)
        }
        costs = {each: self._cost(call, each, tokens) for each, tokens in missing.items()}
        lowest = min(costs.values())
        best = [each for each, cost in costs.items() if cost == lowest]
        engine = best[self._draws.below(len(best))]
        self._prefill_tokens[engine] += missing[engine]
        self._prompt_tokens[engine] += call.prompt_tokens
        self._missing.setdefault((call.agent_id, engine), []).append(missing[engine])
        self._sent.sent(engine, call.prefix, time_s=time_s)
        return engine

    def ended(self, call: RoutedCall, engine: int) -> None:
        """Strike the call off the books."""
        missing = self._missing[call.agent_id, engine]
        self._prefill_tokens[engine] -= missing.pop(0)
        self._prompt_tokens[engine] -= call.prompt_tokens
        if not missing:
            del self._missing[call.agent_id, engine]

    def lost(self, engine: int) -> None:
        """Forget what was in its cache."""
        self._sent.forget(engine)

    def _cost(self, call: RoutedCall, engine: int, missing_tokens: int) -> float:
        params = self._params
        prefill = (self._prefill_tokens[engine] + missing_tokens) / params.block_size
        decode = (self._prompt_tokens[engine] + call.prompt_tokens) / params.block_size
        return params.overlap_score_weight * prefill + decode
