"""What an SGLang publishes, when it does (0.5.23, `metrics_reporter.py`, `metrics_collector.py`).

Gauges are refreshed after every prefill, after every so many decode steps, and when nothing is left to
do while the last report says that somebody runs; between, they stand still. (An idle engine reports every
30 s too, which shows nothing new.) The counters of tokens are those of the tokenizer: they grow when a
request has ended.
"""

from typing import Final

from mypy_extensions import mypyc_attr

from concur.sim.engine.output import SchedulerStats
from concur.sim.engine.request import Request
from concur.sim.engine.sglang.output import BatchOutput
from concur.sim.kv.radix import RadixTree

_DECODE_LOG_INTERVAL: Final = 40
"""Decode steps between two refreshes of the gauges (`decode_log_interval`)."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Signals:
    """Gauges as last refreshed, and counters so far, under the names of `SchedulerStats`.

    `host_hit_tokens` is `prefill_effective_tokens{mode="host_hit"}`: without those who were retracted.
    """

    def __init__(self, tree: RadixTree, pool_tokens: int) -> None:
        self.num_retractions = 0
        self.host_hit_tokens = 0
        self._tree = tree
        self._pool_tokens = pool_tokens
        self._num_decode_steps = 0
        self._gauges = (0, 0, 0.0, 0.0)
        self._cached_tokens = 0
        self._prompt_tokens = 0
        self._generation_tokens = 0

    def note_batch(self, output: BatchOutput, *, num_queued: int) -> None:
        """Refresh the gauges, if it is time, after a batch; `sglang:token_usage` has two digits."""
        self.host_hit_tokens += output.host_hit_tokens
        if output.is_extend:
            self._refresh(output.num_running, num_queued)
        else:
            self.note_decodes(len(output.reqs), num_queued=num_queued)

    def note_decodes(self, num_running: int, *, num_queued: int) -> None:
        """Refresh the gauges, if it is time, after a step in which so many decoded."""
        self._num_decode_steps += 1
        if self._num_decode_steps % _DECODE_LOG_INTERVAL == 0:
            self._refresh(num_running, num_queued)

    def note_idle(self) -> None:
        """Refresh the gauges of an engine at rest if they still show running requests."""
        if self._gauges[0]:
            self._refresh(0, 0)

    def note_end(self, request: Request) -> None:
        """Count a request that has ended."""
        self._prompt_tokens += request.num_prompt_tokens
        self._cached_tokens += request.num_cached_tokens
        self._generation_tokens += request.num_output_tokens

    def published(self) -> SchedulerStats:
        """Return it all, as a value of its own."""
        num_running, num_queued, usage, resident = self._gauges
        return SchedulerStats(
            num_requests_running=num_running,
            num_requests_waiting=num_queued,
            kv_cache_usage_frac=usage,
            kv_cache_resident_frac=resident,
            prefix_cache_queries_tokens=self._prompt_tokens,
            prefix_cache_hits_tokens=self._cached_tokens,
            num_preemptions=self.num_retractions,
            prompt_tokens=self._prompt_tokens,
            generation_tokens=self._generation_tokens,
            num_evictions=self._tree.num_evicted_tokens // self._tree.page_size,
        )

    def _refresh(self, num_running: int, num_queued: int) -> None:
        held_tokens = self._pool_tokens - self._tree.available_tokens
        usage = (held_tokens - self._tree.evictable_tokens) / self._pool_tokens
        self._gauges = (num_running, num_queued, self._shown(usage), held_tokens / self._pool_tokens)

    def _shown(self, usage: float) -> float:
        """Return `sglang:token_usage` as it is published."""
        return round(usage, 2)
