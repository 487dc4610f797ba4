"""How long one engine step takes, given what it computes.

The calibrated model is in `concur.sim.step_time.roofline`. The linear one (`kind = "linear"`), with the terms
of `StepBatch`::

    step_s = base_s + per_prefill_token_s * P + per_decode_seq_s * D + per_context_token_s * C
           + per_prefill_pair_s * Q

Source of the shape: a step reads the weights once (base), multiplies them with every prefill token (P) and
every decoding sequence (D), reads the keys and values of each decoding sequence (C), and attends from each
prefill token to all before it (Q). Coefficients are the scenario's; the defaults are not calibrated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
@dataclass(init=False, slots=True)
class StepBatch:
    """What one step computes.

    A scheduled request is a *decode* if before the step it lacks only its last sampled token
    (num_computed == num_tokens - 1 with at least one output token) and gets one token; else it is a
    *prefill* of n tokens on c computed ones.

    `prefill_tokens`: P, sum of n. `decode_seqs`: D, number of decodes. `context_tokens`: C, sum over decodes
    of the tokens before the step. `prefill_pairs`: Q, sum over prefills of n*c + n*(n+1)/2.
    `prefill_seqs`: K, number of prefills. `prefill_context_tokens`: R, sum over prefills of c.
    `recomputed_tokens`, `recomputed_pairs`: the part of P and Q that was computed for the same agent before;
    within a prefill those tokens come first. `recomputed_seqs`: prefills that are all recompute.
    `useful_context_tokens`: what R would be in a cache that never evicts. There a prefill has what it
    recomputes among its context, and one that is all recompute does not take place.
    """

    prefill_tokens: int
    decode_seqs: int
    context_tokens: int
    prefill_pairs: int
    recomputed_tokens: int
    recomputed_pairs: int
    prefill_seqs: int
    prefill_context_tokens: int
    recomputed_seqs: int
    useful_context_tokens: int

    def __init__(
        self,
        prefill_tokens: int = 0,
        decode_seqs: int = 0,
        context_tokens: int = 0,
        prefill_pairs: int = 0,
        recomputed_tokens: int = 0,
        recomputed_pairs: int = 0,
        prefill_seqs: int = 0,
        prefill_context_tokens: int = 0,
        recomputed_seqs: int = 0,
        useful_context_tokens: int = 0,
    ) -> None:
        self.prefill_tokens = prefill_tokens
        self.decode_seqs = decode_seqs
        self.context_tokens = context_tokens
        self.prefill_pairs = prefill_pairs
        self.recomputed_tokens = recomputed_tokens
        self.recomputed_pairs = recomputed_pairs
        self.prefill_seqs = prefill_seqs
        self.prefill_context_tokens = prefill_context_tokens
        self.recomputed_seqs = recomputed_seqs
        self.useful_context_tokens = useful_context_tokens

    def add_decode(self, num_computed_tokens: int) -> None:
        """Add one decoding sequence with that many tokens before it."""
        self.decode_seqs += 1
        self.context_tokens += num_computed_tokens

    def add_prefill(self, num_tokens: int, num_computed_tokens: int, num_recomputed_tokens: int) -> None:
        """Add a prefill chunk whose first `num_recomputed_tokens` tokens were computed before."""
        self.prefill_seqs += 1
        self.prefill_tokens += num_tokens
        self.prefill_pairs += _pairs(num_tokens, num_computed_tokens)
        self.prefill_context_tokens += num_computed_tokens
        if num_recomputed_tokens:
            self.recomputed_tokens += num_recomputed_tokens
            self.recomputed_pairs += _pairs(num_recomputed_tokens, num_computed_tokens)
        if num_recomputed_tokens == num_tokens:
            self.recomputed_seqs += 1
        else:
            self.useful_context_tokens += num_computed_tokens + num_recomputed_tokens

    def remove(self, part: "StepBatch") -> None:
        """Take out what was added before."""
        self.prefill_tokens -= part.prefill_tokens
        self.decode_seqs -= part.decode_seqs
        self.context_tokens -= part.context_tokens
        self.prefill_pairs -= part.prefill_pairs
        self.recomputed_tokens -= part.recomputed_tokens
        self.recomputed_pairs -= part.recomputed_pairs
        self.prefill_seqs -= part.prefill_seqs
        self.prefill_context_tokens -= part.prefill_context_tokens
        self.recomputed_seqs -= part.recomputed_seqs
        self.useful_context_tokens -= part.useful_context_tokens

    def without_recompute(self) -> "StepBatch":
        """Return the batch as a cache that never evicts would have left it."""
        return StepBatch(
            self.prefill_tokens - self.recomputed_tokens,
            self.decode_seqs,
            self.context_tokens,
            self.prefill_pairs - self.recomputed_pairs,
            prefill_seqs=self.prefill_seqs - self.recomputed_seqs,
            prefill_context_tokens=self.useful_context_tokens,
            useful_context_tokens=self.useful_context_tokens,
        )

    def decodes_only(self) -> "StepBatch":
        """Return the decoding part of the batch."""
        return StepBatch(decode_seqs=self.decode_seqs, context_tokens=self.context_tokens)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""
        return not self.prefill_tokens and not self.decode_seqs


class StepTime(Protocol):
    """The duration of one engine step."""

    def __call__(self, batch: StepBatch) -> float:
        """Return the duration in seconds of a batch that is not empty."""
        ...

    def of_decodes(self, decode_seqs: int) -> Callable[[int], float]:
        """Return the duration of a step of that many decodes, as a function of their context tokens.

        Bit-identical to calling with such a batch; for the many steps of a leap.
        """
        ...

    def observe(self, batch: StepBatch) -> None:
        """Take note of a step that is run; `of_decodes` takes note by itself."""
        ...

    def warnings(self) -> list[str]:
        """Return what a reader of the durations should know; for the run record."""
        ...


@dataclass(frozen=True, slots=True)
class LinearStepTime:
    """The linear model of the module docstring."""

    base_s: float
    per_prefill_token_s: float
    per_decode_seq_s: float
    per_context_token_s: float
    per_prefill_pair_s: float

    def __deepcopy__(self, memo: dict[int, Any]) -> "LinearStepTime":
        return self

    def __call__(self, batch: StepBatch) -> float:
        """Return the duration of one step in seconds."""
        return (
            self.base_s
            + self.per_prefill_token_s * batch.prefill_tokens
            + self.per_decode_seq_s * batch.decode_seqs
            + self.per_context_token_s * batch.context_tokens
            + self.per_prefill_pair_s * batch.prefill_pairs
        )

    def of_decodes(self, decode_seqs: int) -> Callable[[int], float]:
        """Return the duration of a step of that many decodes, as a function of their context tokens."""
        fixed_s = (
            self.base_s + self.per_decode_seq_s * decode_seqs
        )  # in the order of __call__; + 0.0 is exact
        per_context_token_s = self.per_context_token_s
        return lambda context_tokens: fixed_s + per_context_token_s * context_tokens

    def observe(self, batch: StepBatch) -> None:
        """Take no note: the formula has no domain."""

    def warnings(self) -> list[str]:
        """Say that nothing was measured."""
        return ["step time is not calibrated: linear coefficients from the scenario"]


@dataclass(init=False, slots=True)
class StepCost:
    """One step's duration and whom it served: `total_s` = `prefill_s` + `recompute_s` + `decode_s`.

    Recompute pays what it adds to the step; useful prefill pays what it adds to the decodes alone; the rest,
    the fixed part included, is the decodes'. A step without decodes charges its fixed part to the useful
    prefill, and one that only recomputes charges all of it to recompute. Measured kernels are uneven: a step
    of less can take longer than one of more, and then the more pays nothing.
    """

    total_s: float
    prefill_s: float
    recompute_s: float
    decode_s: float

    def __init__(
        self,
        total_s: float,
        prefill_s: float,
        recompute_s: float,
        decode_s: float,
    ) -> None:
        self.total_s = total_s
        self.prefill_s = prefill_s
        self.recompute_s = recompute_s
        self.decode_s = decode_s


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
@dataclass(slots=True)
class StepTotals:
    """What all steps of an engine add up to; the three sums of time are as in `StepCost`."""

    num_steps: int = 0
    recomputed_tokens: int = 0
    prefill_s: float = 0.0
    recompute_s: float = 0.0
    decode_s: float = 0.0

    def add(self, batch: StepBatch, cost: StepCost) -> None:
        """Add one step."""
        self.num_steps += 1
        self.recomputed_tokens += batch.recomputed_tokens
        self.prefill_s += cost.prefill_s
        self.recompute_s += cost.recompute_s
        self.decode_s += cost.decode_s


def step_cost(step_time: StepTime, batch: StepBatch) -> StepCost:
    """Return the duration of a step that is run, and its split."""
    step_time.observe(batch)
    total_s = step_time(batch)
    if not batch.prefill_tokens:
        return StepCost(total_s, 0.0, 0.0, total_s)
    decode_s = min(step_time(batch.decodes_only()), total_s) if batch.decode_seqs else 0.0
    if not batch.recomputed_tokens:
        return StepCost(total_s, total_s - decode_s, 0.0, decode_s)
    useful = batch.without_recompute()
    useful_s = 0.0 if useful.is_empty else min(max(step_time(useful), decode_s), total_s)
    return StepCost(total_s, useful_s - decode_s, total_s - useful_s, decode_s)


def _pairs(num_tokens: int, num_computed_tokens: int) -> int:
    return num_tokens * num_computed_tokens + num_tokens * (num_tokens + 1) // 2
