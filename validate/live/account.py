"""A run's calls held against the engine's own counters: who else was there, and what the cache gave.

Both are over the same stretch: counters start at 0 with the run (`concur.sim.record.publish.since`),
and the last sample of the timeline is taken after the last call. So the difference is exact, if every call
was made once and the last sample was read.

**Hit rate without per-call counts.** A server without --enable-prompt-tokens-details does not say how many
tokens of a call were cached, but counts them: `prefix_cache_hits` adds what was credited when a request was
first admitted, `prefix_cache_queries` the prompt tokens that it looked up then; requests admitted again after
a preemption are left out (vLLM 0.32.0, v1/core/sched/scheduler.py, v1/metrics/stats.py `PrefixCacheStats`).
Where the queries are the run's prompt tokens, to the token, each prompt was looked up exactly once and the
hits are the run's cached tokens. Otherwise (other callers; a release that counts a look-up again whenever
the admission was refused) they are not, and nothing is made of them. With a KV connector they are of the
engine's own pool only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True, slots=True)
class Account:
    """What the calls of a run amount to, in tokens, and what the engine counted meanwhile.

    `cached_tokens` is `None` where a call does not know its own. `is_once`: every call was made once and
    every reading is there, so that what the counters have beyond the calls is somebody else's.
    """

    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int | None
    counted_prompt_tokens: int
    counted_generated_tokens: int
    counted_queries_tokens: int
    counted_hits_tokens: int
    is_once: bool

    @property
    def foreign_tokens(self) -> dict[str, int] | None:
        """Tokens that the engine counted beyond the run's own, negative where it counted too few.

        `None` where that cannot be told.
        """
        if not self.is_once:
            return None
        return {
            "prompt": self.counted_prompt_tokens - self.prompt_tokens,
            "generated": self.counted_generated_tokens - self.generated_tokens,
        }

    @property
    def are_counters_ours(self) -> bool:
        """Whether the cache counters are of this run's prompts, each looked up once, and of nothing else."""
        return self.counted_queries_tokens == self.prompt_tokens > 0

    def cache_metrics(self) -> dict[str, Any]:
        """Return the metrics that the counters know and the calls do not."""
        if self.cached_tokens is not None or not self.are_counters_ours:
            return {}
        hits = self.counted_hits_tokens
        return {"cached_tokens": hits, "hit_rate": hits / self.prompt_tokens}

    def warnings(self) -> list[str]:
        """Say who else was there, and where the hit rate is from if not from the calls."""
        lines = [line for line in (explain_foreign(self.foreign_tokens),) if line]
        if self.cached_tokens is None:
            lines.append(f"the server says no cached tokens per call: {self._source()}; {_REMEDY}")
        return lines

    def _source(self) -> str:
        if self.are_counters_ours:
            return "the hit rate is that of its counters, which counted this run's prompts and no others"
        return (
            "the hit rate is not measured, for its counters looked up "
            f"{self.counted_queries_tokens:,} tokens and the run's prompts have {self.prompt_tokens:,}"
        )


_REMEDY = "start it with --enable-prompt-tokens-details for that of every call and phase"


def account(requests: pd.DataFrame, timeline: pd.DataFrame, *, is_once: bool) -> Account:
    """Hold the calls of a run that came to its end against the last sample of its timeline."""
    last = timeline.iloc[-1]
    cached = requests["cached_tokens"]
    return Account(
        prompt_tokens=int(requests["prompt_tokens"].sum()),
        generated_tokens=int(requests["output_tokens"].sum()),
        cached_tokens=None if cached.isna().any() else int(cached.sum()),
        counted_prompt_tokens=int(last["prompt_tokens"]),
        counted_generated_tokens=int(last["generation_tokens"]),
        counted_queries_tokens=int(last["prefix_cache_queries_tokens"]),
        counted_hits_tokens=int(last["prefix_cache_hits_tokens"]),
        is_once=is_once,
    )


def explain_foreign(tokens: Mapping[str, int] | None) -> str | None:
    """Say in one line what foreign tokens mean; `None` if there are none, or it is not known."""
    if not tokens or not any(tokens.values()):
        return None
    prompt, generated = tokens["prompt"], tokens["generated"]
    if min(prompt, generated) < 0:
        return (
            f"the engine counted {-prompt:,} prompt and {-generated:,} generated tokens fewer than the calls "
            "had: is it one of several behind this address?"
        )
    return (
        f"someone else used the server: it counted {prompt:,} prompt and {generated:,} generated tokens "
        "beyond the run's own"
    )
