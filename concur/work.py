"""The work behind a generated token: what stands for a round-trip time where calls have heavy tails."""

from concur.signals import Snapshot


class TokenWork:
    """Measure tokens computed per token generated, reading by reading.

    (uncached prompt tokens + generated tokens) / generated tokens, from the counters of one interval. Without
    recomputation it is a constant of the workload; evicted histories that are prefilled again raise it. Ours:
    latencies of agent steps vary too much by themselves. Live: `vllm:prefix_cache_queries_total` less
    `vllm:prefix_cache_hits_total`, and `vllm:generation_tokens_total`.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: Snapshot | None = None

    def update(self, snapshot: Snapshot) -> float | None:
        """Return the work of the interval, at least 1, or `None` where nothing was generated."""
        last, self._last = self._last, snapshot
        if last is None or snapshot.generation_tokens <= last.generation_tokens:
            return None
        generated = snapshot.generation_tokens - last.generation_tokens
        return 1.0 + max(0, _uncached(snapshot) - _uncached(last)) / generated


def _uncached(snapshot: Snapshot) -> int:
    return snapshot.prefix_cache_queries_tokens - snapshot.prefix_cache_hits_tokens
