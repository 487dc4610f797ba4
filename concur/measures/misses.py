"""What a miss costs: of what was evicted and is needed again, how much is computed and how much reloaded."""

from typing import Final

from concur.signals import Snapshot

_TRUST_FRAC: Final = 0.05  # of the pool: so many tokens of misses weigh as much as the expectation
_EXPECTED_FRAC: Final = 0.1  # with a tier of which nothing is known: it is there to hold histories


class MissMeter:
    """Compare the engine's cache and the offload tier with what the calls needed of both.

    `recomputed_frac`: the share of misses that is computed again, 1 without a tier.
    """

    __slots__ = ("_recomputed_tokens", "recomputed_frac")

    def __init__(self) -> None:
        self.recomputed_frac = 1.0
        self._recomputed_tokens = 0.0

    def update(self, snapshot: Snapshot) -> float:
        """Take a reading; return `recomputed_frac`."""
        for call in snapshot.calls:
            if call.cached_tokens is not None:
                self._recomputed_tokens += max(0, call.kept_tokens - call.cached_tokens)
        if not snapshot.external_prefix_cache_queries_tokens:
            self.recomputed_frac = 1.0
            return 1.0
        expected = max(1.0, _TRUST_FRAC * snapshot.pool_tokens)
        recomputed = self._recomputed_tokens + _EXPECTED_FRAC * expected
        reloaded = snapshot.external_prefix_cache_hits_tokens + (1.0 - _EXPECTED_FRAC) * expected
        self.recomputed_frac = recomputed / (recomputed + reloaded)
        return self.recomputed_frac
