"""Fit the factors of `concur.sim.step_time.corrections` to what a fitted law leaves over.

With the law's parts given, a step's duration is linear in the factors at the knots: non-negative least
squares on relative errors. Tokens have a knot wherever the samples have steps: kernels change from one size
to the next. Sizes of attention have a knot every octave. Two weak terms settle what samples leave open:
neighbouring factors lie on a line (second differences: Whittaker, *Proc. Edinburgh Math. Soc.* 41, 1923), and
all are near 1.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.optimize import nnls

from concur.calib.fit.law import vectorised_parts_s
from concur.calib.fit.regressors import Array, Regressors
from concur.sim.step_time.corrections import Corrections, SizeFactors, TokenFactors
from concur.sim.step_time.profile import RooflineCoefficients

_BENDING: Final = 0.01  # weight of a second difference against a relative error
_STRAYING: Final = 0.002  # weight of a factor's distance from 1
_LEAST_TOKEN_FACTOR: Final = 0.01  # a step takes time
_CHUNKS: Final = tuple(2**k for k in range(17))
_PREFILLS: Final = tuple(2**k for k in range(10))
_END_TOKENS: Final = tuple(2**k for k in range(19))
_DECODES: Final = tuple(2**k for k in range(12))
_CONTEXTS: Final = (16, *(2**k for k in range(7, 18)))
_Knots = tuple[int, ...]


def fit_corrections(
    coefficients: RooflineCoefficients, regressors: Regressors, num_tokens: Array, step_s: Array
) -> Corrections:
    """Return the factors that bring the law closest to the steps; `num_tokens` (num_steps,) are padded."""
    law = coefficients.model_dump()
    tile = law.pop("gemm_tile_tokens")
    parts_s = vectorised_parts_s(law, tile, regressors, num_tokens)
    r, has_prefill, has_decode = regressors, regressors.prefill_seqs > 0, regressors.decode_seqs > 0
    ends = (r.prefill_tokens + r.prefill_context_tokens) / np.maximum(r.prefill_seqs, 1)
    contexts = r.context_tokens / np.maximum(r.decode_seqs, 1)
    sizes = (  # of the launch, the pairs, the decodes
        (_CHUNKS, r.prefill_tokens, _END_TOKENS, ends, has_prefill),
        (_PREFILLS, r.prefill_seqs, _END_TOKENS, ends, has_prefill),
        (_DECODES, r.decode_seqs, _CONTEXTS, contexts, has_decode),
    )
    token_knots = tuple(int(tokens) for tokens in np.unique(num_tokens))
    shapes: list[_Knots] = [(len(token_knots),)]
    hats = [_hats(num_tokens, np.array(token_knots, dtype=float))]
    axes: list[tuple[_Knots, _Knots]] = []
    for first_knots, first, second_knots, second, is_there in sizes:
        axes.append((_within(first_knots, first[is_there]), _within(second_knots, second[is_there])))
        hats.append(_products(_octave_hats(first, axes[-1][0]), _octave_hats(second, axes[-1][1])))
        shapes.append((len(axes[-1][0]), len(axes[-1][1])))
    design = np.hstack([hat * (part_s / step_s)[:, None] for hat, part_s in zip(hats, parts_s, strict=True)])
    factors = np.split(_solve(design, shapes), np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    launch, pairs, decode = (_size_factors(*knots, f) for knots, f in zip(axes, factors[1:], strict=True))
    of_tokens = tuple(max(float(factor), _LEAST_TOKEN_FACTOR) for factor in factors[0])
    tokens = TokenFactors(num_tokens=token_knots, factors=of_tokens)
    return Corrections(tokens=tokens, launch=launch, pairs=pairs, decode=decode)


def _solve(design: Array, shapes: Sequence[_Knots]) -> Array:
    size = design.shape[1]
    bending = _bending(shapes)
    rows = np.vstack([design, _BENDING * bending, _STRAYING * np.eye(size)])
    wanted = np.concatenate([np.ones(len(design)), np.zeros(len(bending)), np.full(size, _STRAYING)])
    found: Array = nnls(rows, wanted)[0]
    return found


def _bending(shapes: Sequence[_Knots]) -> Array:
    """Return the second differences of every table along each of its axes."""
    rows, offset = [], 0
    size = sum(int(np.prod(shape)) for shape in shapes)
    for shape in shapes:
        places = offset + np.arange(int(np.prod(shape))).reshape(shape)
        offset += places.size
        for axis in range(len(shape)):
            along = np.moveaxis(places, axis, -1).reshape(-1, shape[axis])
            for line in along:
                rows += [(line[k - 1], line[k], line[k + 1]) for k in range(1, len(line) - 1)]
    matrix = np.zeros((len(rows), size))
    for row, (one, middle, other) in enumerate(rows):
        matrix[row, [one, middle, other]] = (1.0, -2.0, 1.0)
    return matrix


def _hats(values: Array, knots: Array) -> Array:
    """Return the weights of linear interpolation between knots, (num_values, num_knots)."""
    place = np.clip(np.searchsorted(knots, values) - 1, 0, len(knots) - 2)
    share = np.clip((values - knots[place]) / (knots[place + 1] - knots[place]), 0.0, 1.0)
    hats = np.zeros((len(values), len(knots)))
    every = np.arange(len(values))
    hats[every, place] = 1.0 - share
    hats[every, place + 1] += share
    return hats


def _octave_hats(values: Array, knots: _Knots) -> Array:
    return _hats(np.log2(1.0 + values), np.log2(1.0 + np.array(knots, dtype=float)))


def _products(first: Array, second: Array) -> Array:
    """Return the weights of two-dimensional interpolation, (num_values, num_first * num_second)."""
    products: Array = (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)
    return products


def _within(knots: _Knots, values: Array) -> _Knots:
    """Return the knots that span the values, two at least."""
    low = max(0, int(np.searchsorted(knots, values.min(), side="right")) - 1)
    high = min(len(knots) - 1, int(np.searchsorted(knots, values.max())))
    low = min(low, len(knots) - 2)
    return knots[low : max(high, low + 1) + 1]


def _size_factors(first: _Knots, second: _Knots, factors: Array) -> SizeFactors:
    table = factors.reshape(len(first), len(second))
    return SizeFactors(
        first=first, second=second, factors=tuple(tuple(float(f) for f in row) for row in table)
    )
