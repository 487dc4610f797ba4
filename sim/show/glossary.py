"""What the words of tables mean, in one sentence each: metrics in the words of the code that makes them."""

import inspect
import re
from functools import cache
from typing import Final

from concur.sim.record.metrics import compute_metrics

_WORDS: Final = {
    "policy": "who decides how many agents may be active; * marks the best static cap, chosen afterwards",
    "makespan s": "seconds from the start to the end of the last call",
    "speed-up": "makespan without control over this one: above 1 is faster",
    "of best": "makespan of the best static cap over this one: above 1 is faster than any fixed cap",
    "of best cap": "makespan of the best static cap over this one: above 1 is faster than any fixed cap",
    "of first": "makespan of the same policy on the engine named first over this one: above 1 is faster here",
    "hits": "share of prompt tokens that were found in the prefix cache",
    "hits, later calls": "the same, without each agent's first call, which has nothing to find",
    "recompute": "share of the time spent on computing again what had been computed and was evicted",
    "recomp.": "share of the time spent on computing again what had been computed and was evicted",
    "active": "agents that hold a slot, averaged over time; a slot is held through tool waits",
    "tokens/s": "generated tokens per second; recomputed ones do not count",
    "preempted": "how often the engine threw a running call out for want of blocks",
    "p50 s": "seconds from an agent's arrival to its end: half of the agents took less",
    "p99 s": "seconds from an agent's arrival to its end: all but one in a hundred took less",
    "TTFT p99 s": "time to first token, from when the agent is ready: all but one in a hundred took less",
    "call p99 s": "from when the agent is ready to the last token: all but one call in a hundred took less",
    "in SLO": "share of calls that kept every limit of [slo]",
    "gate p99 s": "seconds that a call waited at the gate: all but one in a hundred waited less",
    "Jain": "fairness of output tokens per second over agents: 1 is fair, 1/n if one has it all",
    "calls": "calls of the model that came to their end there",
    "mean usage": "share of the KV cache that running calls hold, averaged over time",
    "peak usage": "share of the KV cache that running calls hold, at most",
    "phase": "warm-up: all histories fit the pool; middle: they do not; cool-down: they do again",
    "useful prefill": "seconds of computing prompt tokens for the first time",
    "decode": "seconds of generating tokens",
    "idle": "seconds without a step of the engine",
    "not published": "a live engine does not say where its time went",
    "model": "the model whose step times were fitted",
    "GPU": "the devices that the step times are of",
    "engine": "whose scheduler and cache took the decisions, of which release",
    "pool": "what the KV cache holds, beside the model's weights",
    "profile": "the fitted step times of a model on a machine",
    "agents": "loops of model calls and tool calls, each with one history that grows",
    "seed": "what draws the workload: the same seed and scenario give the same bytes",
    "seeds": "what draws the workload: the same seed and scenario give the same bytes",
    "commit": "the state of the code that ran; after + are changes that were not committed",
    "arm": "one policy, or one setting, of a published table",
    "measured": "what others measured, run by run",
    "predicted": "simulated: mean and 95 % interval over seeds",
    "error": "predicted against measured: relative, of shares the difference",
    "rule": "how near the prediction has to be, stated beforehand",
    "trial": "one choice of parameters; 0 are the defaults, or those of the scenario",
    "gain over start": "how many times as good as before the search, paired by seed",
    "over the cap of the tuning seeds": "how many times as good as the static cap that was best there",
    "over the cap in hindsight": "how many times as good as the static cap that is best here",
    "world": "sim: simulated; live: a running engine",
}


@cache
def metric_meanings() -> dict[str, str]:
    """Return what each metric of a record means, from the table in the docstring of `compute_metrics`."""
    block = re.split(r"^=+ =+$", inspect.getdoc(compute_metrics) or "", flags=re.MULTILINE)[1:2]
    found: dict[str, str] = {}
    name = ""
    for line in "".join(block).strip("\n").splitlines():
        first, _, rest = line.partition(" ")
        name = first or name
        found[name] = f"{found.get(name, '')} {rest.strip()}".strip()
    return found


def glossary() -> dict[str, str]:
    """Return every word that a page explains, and what it says of it."""
    return {**metric_meanings(), **_WORDS}
