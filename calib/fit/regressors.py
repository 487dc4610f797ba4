"""What a step's duration is regressed on, one row per sample, and the same batches for the simulator."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from concur.calib.fit.samples import Samples
from concur.sim.step_time.profile import REGIMES, Regime, RegimeErrors, StepDomain
from concur.sim.step_time.step_time import StepBatch, StepTime

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
HELD_OUT_FRAC: Final = 0.2
_BINS_PER_OCTAVE: Final = 8  # contexts within 9 % of each other are one shape: neighbours in a decoding run


@dataclass(frozen=True, slots=True)
class Regressors:
    """The regressors of `StepBatch` as arrays of shape (num_steps,)."""

    prefill_seqs: Array
    prefill_tokens: Array
    prefill_context_tokens: Array
    prefill_pairs: Array
    decode_seqs: Array
    context_tokens: Array

    @property
    def num_tokens(self) -> Array:
        """Tokens scheduled."""
        return self.prefill_tokens + self.decode_seqs

    def where(self, mask: Mask) -> "Regressors":
        """Return the rows of `mask`."""
        return Regressors(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    def named(self) -> dict[str, Array]:
        """Return every regressor by the name that `StepDomain` gives it."""
        return {"num_tokens": self.num_tokens} | {
            name: getattr(self, name) for name in self.__dataclass_fields__
        }

    def domain(self) -> StepDomain:
        """Return the range of each regressor."""
        ranges = {name: (int(values.min()), int(values.max())) for name, values in self.named().items()}
        return StepDomain(**ranges)

    def regime(self, regime: Regime) -> Mask:
        """Return which steps are of that regime."""
        has_prefill, has_decode = self.prefill_seqs > 0, self.decode_seqs > 0
        masks: dict[Regime, Mask] = {
            "prefill": has_prefill & ~has_decode,
            "decode": has_decode & ~has_prefill,
            "mixed": has_prefill & has_decode,
            "all": has_prefill | has_decode,
        }
        return masks[regime]

    def is_held_out(self) -> Mask:
        """Return which steps are kept from the fit: about a fifth of the shapes, the same ones every time.

        A shape is the numbers of prefills, prefill tokens and decodes, and the pairs and context tokens to
        an eighth of an octave; all steps of one shape are on one side.
        """
        pairs, context = (
            np.round(_BINS_PER_OCTAVE * np.log2(1.0 + values))
            for values in (self.prefill_pairs, self.context_tokens)
        )
        columns = (self.prefill_seqs, self.prefill_tokens, self.decode_seqs, pairs, context)
        shapes = np.stack(columns, axis=1).astype(np.int64)
        digests = [hashlib.sha256(shape.tobytes()).digest() for shape in shapes]
        return np.array([digest[0] < HELD_OUT_FRAC * 256 for digest in digests])

    def batches(self) -> list[StepBatch]:
        """Return the steps as the simulator's batches."""
        return [
            StepBatch(
                prefill_tokens=int(tokens),
                decode_seqs=int(decodes),
                context_tokens=int(context),
                prefill_pairs=int(pairs),
                prefill_seqs=int(seqs),
                prefill_context_tokens=int(prefill_context),
            )
            for seqs, tokens, prefill_context, pairs, decodes, context in zip(
                *(getattr(self, name) for name in self.__dataclass_fields__), strict=True
            )
        ]


def regressors_of(samples: Samples) -> Regressors:
    """Return the regressors of every sample."""
    steps = samples.steps
    chunks = [np.asarray(tokens, dtype=float) for tokens in steps["prefill_tokens"]]
    contexts = [np.asarray(tokens, dtype=float) for tokens in steps["prefill_context_tokens"]]
    decodes = [np.asarray(tokens, dtype=float) for tokens in steps["decode_context_tokens"]]
    return Regressors(
        prefill_seqs=np.array([len(tokens) for tokens in chunks], dtype=float),
        prefill_tokens=np.array([tokens.sum() for tokens in chunks]),
        prefill_context_tokens=np.array([context.sum() for context in contexts]),
        prefill_pairs=np.array(
            [
                (tokens * context + tokens * (tokens + 1) / 2).sum()
                for tokens, context in zip(chunks, contexts, strict=True)
            ]
        ),
        decode_seqs=np.array([len(tokens) for tokens in decodes], dtype=float),
        context_tokens=np.array([tokens.sum() for tokens in decodes]),
    )


def predicted_s(step_time: StepTime, regressors: Regressors) -> Array:
    """Return the simulator's own durations of the steps, shape (num_steps,)."""
    return np.array([step_time(batch) for batch in regressors.batches()])


def errors_by_regime(regressors: Regressors, step_s: Array, predicted: Array) -> dict[Regime, RegimeErrors]:
    """Return how far predictions are off, for every regime that has steps."""
    relative = predicted / step_s - 1.0
    errors: dict[Regime, RegimeErrors] = {}
    for regime in REGIMES:
        of_regime = relative[regressors.regime(regime)]
        if of_regime.size:
            errors[regime] = RegimeErrors(
                num_steps=of_regime.size,
                median_ape=float(np.median(np.abs(of_regime))),
                p95_ape=float(np.percentile(np.abs(of_regime), 95)),
                bias=float(of_regime.mean()),
                worst_ape=float(np.abs(of_regime).max()),
            )
    return errors
