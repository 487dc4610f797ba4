"""The engine's prefix cache, as far as the model needs it: histories of agents, and what groups share.

What running calls use stays. What nobody uses is evicted least recently used first, from its end, as vLLM
does block by block (0.32.0, `v1/core/block_pool.py`); blocks themselves are left out.
"""

from collections import OrderedDict
from collections.abc import Sequence

from concur.measures.shares import Shares

Level = tuple[str, float]
"""A group and the tokens that its agents share."""


class ModelCache:
    """Tokens that are in use, and those that are not, oldest first: by agent's number, and by group.

    `running_tokens` are in use.
    """

    __slots__ = ("_idle", "_idle_tokens", "_num_running", "_pool_tokens", "_shares", "running_tokens")

    def __init__(self, pool_tokens: float) -> None:
        self._pool_tokens = pool_tokens
        self._idle: OrderedDict[int | str, float] = OrderedDict()
        self._idle_tokens = 0.0
        self._num_running = 0
        self.running_tokens = 0.0
        self._shares = Shares()  # of calls that run

    def has_room(self, tokens: float) -> bool:
        """Tell whether a context has room beside those that run; alone it always has."""
        return not self._num_running or self.running_tokens + tokens <= self._pool_tokens

    def hold(self, number: int, tokens: float, levels: Sequence[Level]) -> None:
        """Have an agent's history, and what it shares, as if its last call had just ended."""
        self._num_running += 1
        self._use(levels)
        self.running_tokens += tokens
        self.end(number, tokens, levels)
        self._evict()

    def begin(self, number: int, kept_tokens: float, all_tokens: float, levels: Sequence[Level]) -> float:
        """Begin a call, with room for all of its tokens; return those of its history that are not there."""
        cached = self._idle.pop(number, 0.0)
        self._idle_tokens -= cached
        missing = max(0.0, kept_tokens - cached) + self._use(levels)
        self._num_running += 1
        self.running_tokens += all_tokens
        self._evict()
        return missing

    def end(self, number: int, tokens: float, levels: Sequence[Level]) -> None:
        """End a call that has used so many tokens."""
        self._num_running -= 1
        self.running_tokens -= tokens
        self._leave(number, tokens)
        for group, _ in reversed(levels):
            shared_tokens = self._shares.leave(group)
            if shared_tokens:
                self.running_tokens -= shared_tokens
                self._leave(group, shared_tokens)

    def _use(self, levels: Sequence[Level]) -> float:
        missing = 0.0
        for group, tokens in levels:
            used = self._shares.tokens(group)
            new = self._shares.enter(group, tokens)
            if new:
                cached = self._idle.pop(group, 0.0)
                self._idle_tokens -= cached
                missing += max(0.0, tokens - max(cached, used))
                self.running_tokens += new
        return missing

    def _leave(self, key: int | str, tokens: float) -> None:
        self._idle[key] = tokens
        self._idle_tokens += tokens

    def _evict(self) -> None:
        idle = self._idle
        surplus = self.running_tokens + self._idle_tokens - self._pool_tokens
        while surplus > 0 and idle:
            oldest = next(iter(idle))
            cached = idle[oldest]
            if cached <= surplus:
                del idle[oldest]
            else:
                idle[oldest] = cached - surplus
            taken = min(cached, surplus)
            self._idle_tokens -= taken
            surplus -= taken
