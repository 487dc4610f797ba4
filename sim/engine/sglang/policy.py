"""In which order requests are tried: SGLang's `SchedulePolicy` (0.5.23, `managers/schedule_policy.py`).

`fcfs`: as they came, those that were retracted behind all others. `lpm`: the longest match in the tree
first, as long as the queue is short; of several that match little and begin alike only the first is tried
early, because the others will find what it computes.
"""

from math import inf
from typing import Final

from mypy_extensions import mypyc_attr

from concur.sim.engine.sglang.req import Req
from concur.sim.kv.radix import Key, RadixTree, cut

_LONGEST_MATCHED_QUEUE: Final = 128  # WAITING_QUEUE_PREFIX_MATCH_MAX
_REFRESH_INTERVAL: Final = 32  # passes, WAITING_PREFIX_REFRESH_INTERVAL
_SHORT_MATCH_TOKENS: Final = 32  # IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD, and ..._DEPRIORITIZE_THRESHOLD


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SchedulePolicy:
    """The order of one engine's queue; with `lpm` the queue itself is sorted."""

    def __init__(self, name: str, tree: RadixTree) -> None:
        self._is_cache_aware = name == "lpm"
        self._tree = tree
        self._num_passes = 0

    def order(self, waiting: list[Req]) -> None:
        """Sort the queue before a prefill pass, and refresh in the tree what it is about to use."""
        if not self._is_cache_aware:
            self._refresh(waiting)
        elif len(waiting) <= _LONGEST_MATCHED_QUEUE:
            self._sort_by_longest_prefix(waiting)
        else:
            self._refresh(waiting)

    def _refresh(self, waiting: list[Req]) -> None:
        """Match the first requests, the last of them first, every so many passes, for their recency."""
        if not waiting:
            return
        is_due = self._num_passes % _REFRESH_INTERVAL == 0
        self._num_passes += 1
        if is_due:
            for req in reversed(waiting[:_LONGEST_MATCHED_QUEUE]):
                self._tree.match(req.key(req.request.num_tokens))

    def _sort_by_longest_prefix(self, waiting: list[Req]) -> None:
        beginnings: set[Key] = set()
        last: set[Req] = set()
        for req in waiting:
            num_tokens = req.request.num_tokens
            key = req.key(num_tokens)
            num_matched, req.matched = self._tree.match(key)
            req.prefix_tokens = req.protected_tokens = num_matched
            num_found = num_matched + self._tree.away_tokens(req.matched)
            req.num_matched_tokens = self._num_credited(num_found, num_tokens)
            if num_matched <= _SHORT_MATCH_TOKENS and num_tokens >= _SHORT_MATCH_TOKENS:
                beginning = cut(key, _SHORT_MATCH_TOKENS)[0]
                if beginning in beginnings:
                    last.add(req)
                beginnings.add(beginning)
        waiting.sort(key=lambda req: inf if req in last else -req.num_matched_tokens)

    def _num_credited(self, num_matched: int, num_tokens: int) -> int:
        """Return how much of a match counts: the last token is computed anyway."""
        return min(num_matched, num_tokens - 1)
