"""What a step of the engine costs, from its counters alone.

Between two readings

    dt = base * steps + prefill * U + decode * G + context * K

with U the tokens that were prefilled, each with what it attends to, G those that were generated, and K the
tokens of context that were read for them, step by step. A prefilled token on a context of `ATTENTION_TOKENS`
costs twice what it costs on none: there its attention takes as many operations as all else.

The four are fitted to stretches of readings by least squares of the relative error, with exponential
forgetting. At a constant load they cannot be told apart; therefore each is held to where it began, in
proportion: its logarithm is normal around that of a large GPU, with `_SPREAD`. So costs that the readings do
not tell apart all rise and fall together.
"""

import math
from collections import deque
from dataclasses import astuple, dataclass
from typing import Final

from concur.signals import Snapshot

ATTENTION_TOKENS: Final = 30_000.0
"""2 * parameters / (4 * layers * heads * head size): 27,000 for Qwen3-8B, 30,000 for Qwen3-32B."""
_FORGET: Final = 0.997  # per second: a memory of some five minutes
_NOISE: Final = 0.1  # of a stretch, relative
_PROMPTS: Final = 8.0  # typical ones that a stretch has to be long enough for
_LONGEST_S: Final = 60.0
_SPREAD: Final = math.log(3.0)
_SWEEPS: Final = 20
_MOST_CALLS: Final = 200


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Seconds of a step, of a token prefilled, of one decoded, of one of context that is read for it.

    The defaults: a dense model of 8 to 32 billion parameters on one or two H100s (`calib/README.md`).
    """

    base_s: float = 0.008
    prefill_token_s: float = 3e-5
    decode_token_s: float = 5e-5
    context_token_s: float = 1.5e-8

    def step_s(self, num_decodes: float, context_tokens: float) -> float:
        """Return what a step costs that decodes so many calls with so much context in all."""
        return self.base_s + self.decode_token_s * num_decodes + self.context_token_s * context_tokens

    def prefill_s(self, tokens: float, context_tokens: float) -> float:
        """Return what it adds to prefill so many tokens, the last of them on so much context."""
        return self.prefill_token_s * attended(tokens, context_tokens)


_PRIOR: Final = StepCosts()


def attended(tokens: float, context_tokens: float) -> float:
    """Return prefilled tokens with what they attend to: as many tokens on no context cost the same."""
    return tokens * (1.0 + max(0.0, context_tokens - tokens / 2) / ATTENTION_TOKENS)


class CostMeter:
    """Fit the costs to stretches of readings."""

    __slots__ = ("_last", "_missed", "_products", "_stretch", "_targets", "costs")

    def __init__(self) -> None:
        self.costs = _PRIOR
        self._last: Snapshot | None = None
        self._missed: deque[tuple[int, int]] = deque(maxlen=_MOST_CALLS)  # uncached tokens, and the prompt's
        self._stretch = _NOTHING
        self._products = [[0.0] * 4 for _ in range(4)]
        self._targets = [0.0] * 4

    def update(self, snapshot: Snapshot) -> StepCosts:
        """Take a reading; return the costs as far as they are known."""
        for call in snapshot.calls:
            cached = call.kept_tokens if call.cached_tokens is None else call.cached_tokens
            self._missed.append((max(0, call.prompt_tokens - cached), call.prompt_tokens))
        last, self._last = self._last, snapshot
        work = None if last is None else _work(last, snapshot)
        if work is not None:
            self._stretch = self._stretch.plus(work)
        if self._stretch.steps and (work is None or self._is_long_enough()):
            self._fit_to(self._stretch)
            self._stretch = _NOTHING
        return self.costs

    def _is_long_enough(self) -> bool:
        """Tell whether the prompts at its two ends, which are partly of other stretches, weigh little.

        The engine counts a prompt when it begins, and computes it for a while after that.
        """
        tokens = self._missed_tokens()
        typical = sum([uncached**2 for uncached, _ in self._missed]) / tokens if tokens else math.inf
        return self._stretch.uncached >= _PROMPTS * typical or self._stretch.time_s >= _LONGEST_S

    def _missed_tokens(self) -> int:
        return sum([uncached for uncached, _ in self._missed])

    def _fit_to(self, work: "_Work") -> None:
        tokens = self._missed_tokens()
        longer = sum([attended(*each) for each in self._missed]) / tokens if tokens else 1.0
        amounts = (work.steps, work.uncached * longer, work.generated, work.context)
        weight = 1.0 / (_NOISE * work.time_s) ** 2
        forget = _FORGET**work.time_s
        for row, amount in enumerate(amounts):
            self._targets[row] = forget * self._targets[row] + weight * amount * work.time_s
            for column, other in enumerate(amounts):
                self._products[row][column] = forget * self._products[row][column] + weight * amount * other
        self.costs = self._fitted()

    def _fitted(self) -> StepCosts:
        """Return the most likely costs: Newton's steps, one logarithm after the other."""
        prior = [math.log(cost) for cost in astuple(_PRIOR)]
        logs = [math.log(cost) for cost in astuple(self.costs)]
        costs = [math.exp(each) for each in logs]
        for _ in range(_SWEEPS):
            for row, products in enumerate(self._products):
                cost = costs[row]
                others = sum([products[each] * costs[each] for each in range(4) if each != row])
                slope = cost * (products[row] * cost + others - self._targets[row])
                slope += (logs[row] - prior[row]) / _SPREAD**2
                curve = products[row] * cost * cost + 1.0 / _SPREAD**2
                logs[row] -= min(1.0, max(-1.0, slope / curve))
                costs[row] = math.exp(logs[row])
        return StepCosts(*costs)


@dataclass(frozen=True, slots=True)
class _Work:
    """What the engine did in `time_s`: steps, tokens uncached and generated, context tokens times steps."""

    time_s: float
    steps: float
    uncached: float
    generated: float
    context: float

    def plus(self, other: "_Work") -> "_Work":
        return _Work(*[one + more for one, more in zip(astuple(self), astuple(other), strict=True)])


_NOTHING: Final = _Work(0.0, 0.0, 0.0, 0.0, 0.0)


def _work(last: Snapshot, now: Snapshot) -> _Work | None:
    """Return what was done between two readings of an engine that was busy in both."""
    generated = now.generation_tokens - last.generation_tokens
    uncached = _uncached(now) - _uncached(last)
    is_busy = now.num_requests_running > 0 and last.num_requests_running > 0
    steps = _steps(last, now, generated)
    if not is_busy or now.time_s <= last.time_s or min(steps, uncached, generated) < 0:
        return None
    used_frac = (now.kv_cache_usage_frac + last.kv_cache_usage_frac) / 2
    context = used_frac * now.pool_tokens * steps
    return _Work(now.time_s - last.time_s, steps, uncached, generated, context)


def _steps(last: Snapshot, now: Snapshot, generated: int) -> float:
    """Return the engine's steps, or, where it does not count them, tokens over the requests that ran."""
    if now.num_engine_steps is not None and last.num_engine_steps is not None:
        return float(now.num_engine_steps - last.num_engine_steps)
    running = (now.num_requests_running + last.num_requests_running) / 2
    return generated / running if running else 0.0


def _uncached(snapshot: Snapshot) -> int:
    hits = snapshot.prefix_cache_hits_tokens + snapshot.external_prefix_cache_hits_tokens
    return snapshot.prefix_cache_queries_tokens - hits
