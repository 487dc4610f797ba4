"""The calibrated step time: a roofline over a step's tokens, and attention beside it.

With T tokens scheduled (padded to the next CUDA-graph capture size, where there is one), of them K prefills
with P tokens on R computed ones and Q attended pairs, and D decodes with C tokens of context::

    read_s    = weights_s + experts_s * (1 - exp(-T / experts_tokens))
    gemm_s    = (read_s**p + (per_gemm_token_s * tiles(T))**p) ** (1 / p),    p = roofline_sharpness
    reduce_s  = min(per_allreduce_token_s * T, allreduce_switch_s)
    step_s    = host_s + f(T) (base_s + gemm_s + per_token_s * T + reduce_s)
              + [P > 0] (g(P, L) (prefill_s + per_prefill_seq_s * K + per_prefill_token_s * P
                                  + per_prefill_context_token_s * R) + h(K, L) per_prefill_pair_s * Q)
              + [D > 0] i(D, C / D) (decode_s + per_decode_seq_s * D + per_context_token_s * C)

Where the terms come from. A step reads every weight once and multiplies it with every token; it is bound by
memory or by arithmetic, whichever takes longer (the roofline of Williams, Waterman and Patterson, CACM 52(4),
2009). Kernels of different sizes turn at different T, so the maximum is smooth: a p-norm. Matrix kernels
compute whole tiles: `tiles` rounds T up to `gemm_tile_tokens`. Of E experts with k active per token, T tokens
touch E * (1 - (1 - k/E)**T), hence `experts_tokens` near -1 / ln(1 - k/E). Norms, activations and all-reduces
cost per token. An all-reduce changes its algorithm at some size (vLLM's `custom_all_reduce.cuh`: one stage
below 256 or 512 KB, then two; NCCL likewise across machines): what small messages cost more per token stops
growing there (`allreduce_switch_s`). Prefill attention reads the keys and values of R tokens and computes Q
pairs, decode attention reads those of C tokens (so it is bound by bandwidth), and both have launch costs.
`host_s` is the profile's `host.per_step_s`, L = (P + R) / K. The factors f, g, h and i are 1, unless the
profile has corrections (`concur.sim.step_time.corrections`). What is left out: the order of sequences, the
imbalance among them, and any slowing by neighbours.

`num_outside` counts steps beyond the domain of the fit.
"""

from bisect import bisect_left
from collections.abc import Callable
from math import exp
from typing import NamedTuple

from mypy_extensions import mypyc_attr

from concur.sim.step_time.corrections import SizeTable, TokenTable
from concur.sim.step_time.profile import StepTimeProfile
from concur.sim.step_time.step_time import StepBatch


class Regressors(NamedTuple):
    """The sums over a batch that its duration depends on, or their largest values in the fit's samples."""

    num_tokens: int
    prefill_seqs: int
    prefill_context_tokens: int
    prefill_pairs: int
    decode_seqs: int
    context_tokens: int


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RooflineStepTime:
    """The formula of the module docstring; the part that depends on T alone is computed once per T.

    Life cycle: made for one run; the durations are a function of the batch alone, `num_outside` and
    `largest` (by regressor) grow as steps beyond the domain are seen.
    """

    __slots__ = (
        *("_coefficients", "_decode_factors", "_decode_s", "_host_s", "_launch_factors", "_most"),
        *("_pair_factors", "_sizes", "_token_factors", "_tokens_s", "largest", "num_outside"),
    )

    def __init__(self, profile: StepTimeProfile) -> None:
        self._coefficients = c = profile.coefficients
        self._sizes = profile.cudagraph_capture_sizes
        self._tokens_s: dict[int, float] = {}
        self._decode_s = (c.decode_s, c.per_decode_seq_s, c.per_context_token_s)
        self._host_s = profile.host.per_step_s if profile.host else 0.0
        self._token_factors: TokenTable | None = None
        self._launch_factors: SizeTable | None = None
        self._pair_factors: SizeTable | None = None
        self._decode_factors: SizeTable | None = None
        if profile.corrections:
            self._token_factors = TokenTable(profile.corrections.tokens)
            self._launch_factors = SizeTable(profile.corrections.launch)
            self._pair_factors = SizeTable(profile.corrections.pairs)
            self._decode_factors = SizeTable(profile.corrections.decode)
        domain = profile.domain
        self._most = Regressors(*(getattr(domain, name)[1] for name in Regressors._fields))
        self.num_outside = 0
        self.largest: dict[str, int] = {}

    def __call__(self, batch: StepBatch) -> float:
        """Return the duration of one step in seconds."""
        prefill_tokens, decode_seqs = batch.prefill_tokens, batch.decode_seqs
        num_tokens = prefill_tokens + decode_seqs
        step_s = self._tokens_s.get(num_tokens) or self._of_tokens(num_tokens)
        if prefill_tokens:
            step_s += self._prefill_part_s(batch)
        if decode_seqs:
            if self._decode_factors is not None:
                return step_s + self._corrected_decode_s(decode_seqs, batch.context_tokens)
            decode_s, per_decode_seq_s, per_context_token_s = self._decode_s
            step_s += decode_s + per_decode_seq_s * decode_seqs
            step_s += per_context_token_s * batch.context_tokens
        return step_s

    def of_decodes(self, decode_seqs: int) -> Callable[[int], float]:
        """Return the duration of a step of that many decodes, as a function of their context tokens."""
        decode_s, per_decode_seq_s, per_context_token_s = self._decode_s
        tokens_s = self._tokens_s.get(decode_seqs) or self._of_tokens(decode_seqs)
        fixed_s = tokens_s + (decode_s + per_decode_seq_s * decode_seqs)  # in the order of __call__
        limit = self._most.context_tokens if decode_seqs <= self._most.decode_seqs else -1
        is_corrected = self._decode_factors is not None

        def step_s(context_tokens: int) -> float:
            if context_tokens > limit:
                self._note(StepBatch(decode_seqs=decode_seqs, context_tokens=context_tokens))
            if is_corrected:
                return tokens_s + self._corrected_decode_s(decode_seqs, context_tokens)
            return fixed_s + per_context_token_s * context_tokens

        return step_s

    def observe(self, batch: StepBatch) -> None:
        """Take note of a step that is run, to tell later what lay beyond the domain."""
        most = self._most
        if (
            batch.prefill_pairs > most.prefill_pairs
            or batch.context_tokens > most.context_tokens
            or batch.decode_seqs > most.decode_seqs
            or batch.prefill_seqs > most.prefill_seqs
            or batch.prefill_context_tokens > most.prefill_context_tokens
            or batch.prefill_tokens + batch.decode_seqs > most.num_tokens
        ):
            self._note(batch)

    def parts_s(self, batch: StepBatch) -> dict[str, float]:
        """Return what the duration is made of; the parts add up to it."""
        num_tokens = self._padded(batch.prefill_tokens + batch.decode_seqs)
        factor = self._token_factor(num_tokens)
        prefill_s = self._prefill_part_s(batch) if batch.prefill_tokens else 0.0
        return {
            "host": self._host_s,
            "base": factor * self._coefficients.base_s,
            "gemm": factor * self._gemm_s(num_tokens),
            "per_token": factor * self._per_token_s(num_tokens),
            "prefill_attention": prefill_s,
            "decode_attention": self._decode_part_s(batch.decode_seqs, batch.context_tokens),
        }

    def warnings(self) -> list[str]:
        """Return what to say of the steps beyond the domain; nothing if there were none."""
        if not self.num_outside:
            return []
        seen = ", ".join(
            f"{name} {self.largest[name]} (fitted up to {limit})"
            for name, limit in self._most._asdict().items()
            if self.largest.get(name, 0) > limit
        )
        return [f"about {self.num_outside} steps were beyond the step-time profile's domain: {seen}"]

    def _note(self, batch: StepBatch) -> None:
        self.num_outside += 1
        for name, value in regressors(batch)._asdict().items():
            if value > self.largest.get(name, 0):
                self.largest[name] = value

    def _of_tokens(self, num_tokens: int) -> float:
        padded = self._padded(num_tokens)
        step_s = self._coefficients.base_s + self._gemm_s(padded) + self._per_token_s(padded)
        step_s = self._host_s + self._token_factor(padded) * step_s
        self._tokens_s[num_tokens] = step_s
        return step_s

    def _token_factor(self, padded: int) -> float:
        return 1.0 if self._token_factors is None else self._token_factors.at(padded)

    def _prefill_part_s(self, batch: StepBatch) -> float:
        c = self._coefficients
        launch_s = (
            c.prefill_s
            + c.per_prefill_seq_s * batch.prefill_seqs
            + c.per_prefill_token_s * batch.prefill_tokens
            + c.per_prefill_context_token_s * batch.prefill_context_tokens
        )
        pairs_s = c.per_prefill_pair_s * batch.prefill_pairs
        launch_factors, pair_factors = self._launch_factors, self._pair_factors
        if launch_factors is None or pair_factors is None:
            return launch_s + pairs_s
        seqs = batch.prefill_seqs
        end_tokens = (batch.prefill_tokens + batch.prefill_context_tokens) / seqs
        launch_s *= launch_factors.at(batch.prefill_tokens, end_tokens)
        return launch_s + pairs_s * pair_factors.in_row(pair_factors.row(seqs), end_tokens)

    def _decode_part_s(self, decode_seqs: int, context_tokens: int) -> float:
        if not decode_seqs:
            return 0.0
        if self._decode_factors is not None:
            return self._corrected_decode_s(decode_seqs, context_tokens)
        decode_s, per_decode_seq_s, per_context_token_s = self._decode_s
        return decode_s + per_decode_seq_s * decode_seqs + per_context_token_s * context_tokens

    def _corrected_decode_s(self, decode_seqs: int, context_tokens: int) -> float:
        table = self._decode_factors
        assert table is not None
        decode_s, per_decode_seq_s, per_context_token_s = self._decode_s
        part_s = decode_s + per_decode_seq_s * decode_seqs + per_context_token_s * context_tokens
        return part_s * table.in_row(table.row(decode_seqs), context_tokens / decode_seqs)

    def _padded(self, num_tokens: int) -> int:
        place = bisect_left(self._sizes, num_tokens)
        return self._sizes[place] if place < len(self._sizes) else num_tokens

    def _gemm_s(self, num_tokens: int) -> float:
        c = self._coefficients
        read_s = c.weights_s + c.experts_s * (1.0 - exp(-num_tokens / c.experts_tokens))
        tile = c.gemm_tile_tokens
        compute_s = c.per_gemm_token_s * (-(-num_tokens // tile) * tile)
        longer_s = max(read_s, compute_s)
        if longer_s == 0.0:
            return 0.0
        shorter = min(read_s, compute_s) / longer_s  # in 0..1, so that no power overflows
        return float(longer_s * (1.0 + shorter**c.roofline_sharpness) ** (1.0 / c.roofline_sharpness))

    def _per_token_s(self, num_tokens: int) -> float:
        c = self._coefficients
        reduce_s = min(c.per_allreduce_token_s * num_tokens, c.allreduce_switch_s)
        return c.per_token_s * num_tokens + reduce_s


def regressors(batch: StepBatch) -> Regressors:
    """Return what the duration of a batch is a function of."""
    return Regressors(
        batch.prefill_tokens + batch.decode_seqs,
        batch.prefill_seqs,
        batch.prefill_context_tokens,
        batch.prefill_pairs,
        batch.decode_seqs,
        batch.context_tokens,
    )
