"""What a step of the engine costs, from its counters alone: seconds a step, a prefilled and a decoded token.

Between two readings dt = base * steps + prefill * uncached + decode * generated. The three are fitted by
least squares with exponential forgetting, each pulled a little towards what the others say (ridge), because
at a constant load steps and generated tokens cannot be told apart.
"""

from dataclasses import dataclass
from typing import Final

from concur.signals import Snapshot

_FORGET: Final = 0.997  # per reading: a memory of some 300 readings
_BATCH: Final = 60.0  # decodes whose tokens cost as much as the step itself, where nothing else is known
_RIDGE: Final = (0.01, 0.0, 0.03)
_LEAST: Final = (1e-4, 1e-7, 1e-7)
_SWEEPS: Final = 40
_LEAST_READINGS: Final = 3


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Seconds of a step, of a token that is prefilled and of one that is decoded."""

    base_s: float = 0.008
    prefill_token_s: float = 3e-5
    decode_token_s: float = 1.5e-4


class CostMeter:
    """Fit the costs, reading by reading."""

    __slots__ = ("_last", "_num_readings", "_products", "_targets", "costs")

    def __init__(self) -> None:
        self.costs = StepCosts()
        self._last: Snapshot | None = None
        self._num_readings = 0
        self._products = [[0.0] * 3 for _ in range(3)]
        self._targets = [0.0] * 3

    def update(self, snapshot: Snapshot) -> StepCosts:
        """Take a reading; return the costs as far as they are known."""
        last, self._last = self._last, snapshot
        work = None if last is None else _work(last, snapshot)
        if work is None or last is None:
            return self.costs
        passed_s = snapshot.time_s - last.time_s
        for row, (name, amount) in enumerate(zip(self._products, work, strict=True)):
            self._targets[row] = _FORGET * self._targets[row] + amount * passed_s
            for column, other in enumerate(work):
                name[column] = _FORGET * name[column] + amount * other
        self._num_readings += 1
        if self._num_readings >= _LEAST_READINGS:
            self.costs = self._fitted()
        return self.costs

    def _fitted(self) -> StepCosts:
        """Return the ridge solution by coordinate descent, none of the costs below its least."""
        products, targets = self._products, self._targets
        costs = [self.costs.base_s, self.costs.prefill_token_s, self.costs.decode_token_s]
        steps, generated = products[0][0] ** 0.5, products[2][2] ** 0.5
        for _ in range(_SWEEPS):
            decoding_s = costs[0] * steps + costs[2] * generated
            base_s = decoding_s / (steps + generated / _BATCH) if steps else costs[0]
            prior = (base_s, costs[1], base_s / _BATCH)
            for row in range(3):
                own = products[row][row]
                if own > 0:
                    pull = _RIDGE[row] * own
                    others = sum(products[row][each] * costs[each] for each in range(3) if each != row)
                    costs[row] = max((targets[row] + pull * prior[row] - others) / (own + pull), _LEAST[row])
        return StepCosts(*costs)


def _work(last: Snapshot, now: Snapshot) -> tuple[float, float, float] | None:
    """Return steps, uncached and generated tokens between two readings of an engine that was busy in both."""
    generated = now.generation_tokens - last.generation_tokens
    uncached = _uncached(now) - _uncached(last)
    is_busy = now.num_requests_running > 0 and last.num_requests_running > 0
    steps = _steps(last, now, generated)
    if not is_busy or now.time_s <= last.time_s or steps <= 0 or uncached < 0 or generated < 0:
        return None
    return steps, float(uncached), float(generated)


def _steps(last: Snapshot, now: Snapshot, generated: int) -> float:
    """Return the engine's steps, or, where it does not count them, tokens over the requests that ran."""
    if now.num_engine_steps is not None and last.num_engine_steps is not None:
        return float(now.num_engine_steps - last.num_engine_steps)
    running = (now.num_requests_running + last.num_requests_running) / 2
    return generated / running if running else 0.0


def _uncached(snapshot: Snapshot) -> int:
    return snapshot.prefix_cache_queries_tokens - snapshot.prefix_cache_hits_tokens
