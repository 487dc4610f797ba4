"""What a router believes that engines have in their caches: the prompts that it has sent there.

A tree would hold the same: a part's name stands for all that comes before it too. Bounded by tokens, by what
was least recently sent (SGLang's tree), and by age (Dynamo's index without events from the engines).
"""

from collections import OrderedDict
from collections.abc import Hashable
from math import inf
from typing import NamedTuple

from concur.routing.base import Part


class _Seen(NamedTuple):
    tokens: int
    time_s: float


class SentPrefixes:
    """The parts that each engine was sent, at most `max_tokens` of them and none longer ago than `ttl_s`."""

    def __init__(self, *, max_tokens: float = inf, ttl_s: float = inf) -> None:
        self._max_tokens = max_tokens
        self._ttl_s = ttl_s
        self._seen: dict[int, OrderedDict[Hashable, _Seen]] = {}
        self._tokens: dict[int, int] = {}

    def matched_tokens(self, engine: int, prefix: tuple[Part, ...], *, time_s: float) -> int:
        """Return how many leading tokens of a prompt that engine was sent before."""
        seen, matched = self._seen.get(engine), 0
        if seen is None:
            return 0
        for name, length in prefix:
            known = seen.get(name)
            if known is None or time_s - known.time_s > self._ttl_s:
                break
            matched += min(length, known.tokens)
            if known.tokens < length:
                break
        return matched

    def sent(self, engine: int, prefix: tuple[Part, ...], *, time_s: float) -> None:
        """Take note of a prompt that goes to an engine."""
        seen = self._seen.setdefault(engine, OrderedDict())
        tokens = self._tokens.get(engine, 0)
        for name, length in reversed(prefix):  # leaves are the first to go
            known = seen.pop(name, _Seen(0, 0.0)).tokens
            seen[name] = _Seen(max(known, length), time_s)
            tokens += max(0, length - known)
        while tokens > self._max_tokens and len(seen) > 1:
            tokens -= seen.popitem(last=False)[1].tokens
        self._tokens[engine] = tokens

    def forget(self, engine: int) -> None:
        """Take note that an engine has lost its cache."""
        self._seen.pop(engine, None)
        self._tokens.pop(engine, None)
