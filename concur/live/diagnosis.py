"""What phase an engine is in, from two or more readings of its counters: each engine judged by itself.

An engine does not publish evictions, nor what its clients will ask for again. What can be told:

- It cannot have evicted anything while it has computed fewer tokens than its pool holds. Misses are then
  first calls, however many: it warms up.
- After that, hits that have gone are histories that were evicted. What they were before is the engine's own
  rate up to the first reading; where that was low as well, nobody comes back, or it has thrashed all along:
  the numbers do not tell, and the words say so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from concur.errors import require

_KEPT_FRAC: Final = 0.75
"""Below this share of its earlier hit rate an engine has lost histories. That rate is of all its life, so
it has much of a collapse in it already: on a thrashing server it was 27 % against 9 % in the window."""
_SOME_FRAC: Final = 0.1
"""An earlier hit rate below this is no evidence that anybody comes back: it may be a shared prefix's."""
_LITTLE_FRAC: Final = 0.3
"""Below this few come back, or they are evicted: agents' later calls have found 80 to 98 % elsewhere."""
_FULL_FRAC: Final = 0.9
"""With so much of the pool referenced by running requests, the next one waits or preempts."""


class Phase(StrEnum):
    """What an engine is doing."""

    IDLE = "idle"
    WARM_UP = "warm-up"
    HEALTHY = "healthy"
    FULL = "full"
    THRASHING = "thrashing"
    LITTLE_REUSE = "little reuse"


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one engine; counters since its start, `None` where only the whole server counts."""

    time_s: float
    pool_tokens: int
    num_requests_running: float
    num_requests_waiting: float
    kv_cache_usage_frac: float
    prefix_cache_queries_tokens: float | None = None
    prefix_cache_hits_tokens: float | None = None
    generation_tokens: float | None = None
    num_preemptions: float | None = None


def reading_of(values: Mapping[str, float], pool_tokens: int, time_s: float) -> Reading:
    """Return an engine's reading from its values under a `Snapshot`'s names."""
    optional = ("prefix_cache_queries_tokens", "prefix_cache_hits_tokens", "generation_tokens")
    return Reading(
        time_s,
        pool_tokens,
        values["num_requests_running"],
        values["num_requests_waiting"],
        values["kv_cache_usage_frac"],
        *(values.get(name) for name in (*optional, "num_preemptions")),
    )


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One engine between its first and its last reading.

    Rates are of the window; `hit_rate_before` is that of the engine's life up to it. `None`: nothing was
    looked up, or the engine does not say. `context_tokens` is the mean of running requests, a prefix that
    they share divided among them; `num_fitting` so many of them fill the pool. `lost_tokens_per_s`: what was
    computed although it would have been found at the earlier hit rate; `lost_frac`: its share of all tokens
    computed.
    """

    seconds: float
    pool_tokens: int
    num_running: float
    num_waiting: float
    kv_cache_usage_frac: float
    hit_rate: float | None
    hit_rate_before: float | None
    prefill_tokens_per_s: float | None
    generation_tokens_per_s: float | None
    num_preemptions: float | None
    context_tokens: float | None
    num_fitting: float | None
    lost_tokens_per_s: float
    lost_frac: float
    can_have_evicted: bool

    @property
    def phase(self) -> Phase:
        """What the numbers amount to, see the module's docstring."""
        if not self.num_running and not self.num_waiting and not self.prefill_tokens_per_s:
            return Phase.IDLE
        if self.hit_rate is not None:
            if not self.can_have_evicted:
                return Phase.WARM_UP
            before = self.hit_rate_before or 0.0
            if before > _SOME_FRAC and self.hit_rate < _KEPT_FRAC * before:
                return Phase.THRASHING
            if self.hit_rate < _LITTLE_FRAC:
                return Phase.LITTLE_REUSE
        is_full = self.kv_cache_usage_frac > _FULL_FRAC or bool(self.num_preemptions)
        return Phase.FULL if is_full else Phase.HEALTHY


def diagnose(readings: Sequence[Reading]) -> Diagnosis:
    """Return what the readings of one engine say, in order of time.

    Raises
    ------
    ParameterError
        If there are fewer than two, or no time passes between them.
    """
    require(len(readings) >= 2, "number of readings", len(readings), "at least 2", "watch for longer")
    first, last = readings[0], readings[-1]
    seconds = last.time_s - first.time_s
    require(seconds > 0, "seconds between readings", seconds, "greater than 0")
    queries = _grown(first.prefix_cache_queries_tokens, last.prefix_cache_queries_tokens)
    hits = _grown(first.prefix_cache_hits_tokens, last.prefix_cache_hits_tokens)
    generated = _grown(first.generation_tokens, last.generation_tokens)
    hit_rate = _ratio(hits, queries)
    before = _ratio(first.prefix_cache_hits_tokens, first.prefix_cache_queries_tokens)
    usage = _mean([each.kv_cache_usage_frac for each in readings])
    running = _mean([each.num_requests_running for each in readings])
    context = usage * last.pool_tokens / running if running and usage else None
    missed = None if queries is None or hits is None else queries - hits
    lost = max(0.0, (before or 0.0) - hit_rate) * (queries or 0.0) if hit_rate is not None else 0.0
    computed = (missed or 0.0) + (generated or 0.0)
    return Diagnosis(
        seconds=seconds,
        pool_tokens=last.pool_tokens,
        num_running=running,
        num_waiting=_mean([each.num_requests_waiting for each in readings]),
        kv_cache_usage_frac=usage,
        hit_rate=hit_rate,
        hit_rate_before=before,
        prefill_tokens_per_s=None if missed is None else missed / seconds,
        generation_tokens_per_s=None if generated is None else generated / seconds,
        num_preemptions=_grown(first.num_preemptions, last.num_preemptions),
        context_tokens=context,
        num_fitting=None if context is None else last.pool_tokens / context,
        lost_tokens_per_s=lost / seconds,
        lost_frac=lost / computed if computed else 0.0,
        can_have_evicted=can_have_evicted(last),
    )


def can_have_evicted(reading: Reading) -> bool:
    """Tell whether the engine has computed more tokens than its pool holds, since its start."""
    queries, hits = reading.prefix_cache_queries_tokens, reading.prefix_cache_hits_tokens
    computed = (queries or 0.0) - (hits or 0.0) + (reading.generation_tokens or 0.0)
    return computed > reading.pool_tokens


def _grown(first: float | None, last: float | None) -> float | None:
    """Return how much a counter has grown; one that fell began anew with its engine."""
    if first is None or last is None:
        return None
    return last - first if last >= first else last


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
