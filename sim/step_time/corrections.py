"""How measured kernels depart from the step time's law: factors at knots, interpolated between them.

Matrix kernels are not smooth in the tokens of a step. cuBLAS gives 1,025 tokens another kernel than 1,024 (13
% slower for Qwen3-32B on an H200, by the measured kernels in `calib`), expert kernels change with their tile,
and attention works at another share of its bandwidth for one long sequence than for many short ones. A law of
a few coefficients cannot follow that; factors on its parts can. Between knots a factor is linear, in the
tokens themselves or in log2(1 + value) for what spans decades; beyond them it stays what it is at the last
knot.
"""

from bisect import bisect_left
from math import log2
from typing import Annotated, Self

from mypy_extensions import mypyc_attr
from pydantic import BaseModel, ConfigDict, Field, model_validator

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TokenFactors(_Part):
    """Factors by the tokens of a step, after padding."""

    num_tokens: tuple[int, ...]
    factors: tuple[_Positive, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_knots("num_tokens", self.num_tokens)
        if len(self.factors) != len(self.num_tokens):
            raise ValueError(
                f"{len(self.factors)} factors but {len(self.num_tokens)} num_tokens; give one each"
            )
        return self


class SizeFactors(_Part):
    """Factors of an attention by two sizes, one row per knot of the first."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    factors: tuple[tuple[_NonNegative, ...], ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_knots("first", self.first)
        _check_knots("second", self.second)
        if [len(row) for row in self.factors] != [len(self.second)] * len(self.first):
            raise ValueError(f"factors must be {len(self.first)} rows of {len(self.second)}")
        return self


class Corrections(_Part):
    """Factors on the parts of the law in `concur.sim.step_time.roofline`.

    `tokens`: on what depends on the step's tokens alone. `launch`: on the prefills' part without its pairs,
    by their tokens P and the mean tokens at their end L = (P + R) / K; near 0 where the pairs' time hides
    it. `pairs`: on the prefills' pairs, by their number K and by L. `decode`: on the decodes' part, by
    their number D and their mean context C / D.
    """

    tokens: TokenFactors
    launch: SizeFactors
    pairs: SizeFactors
    decode: SizeFactors


@mypyc_attr(serializable=True)
class TokenTable:
    """`TokenFactors`, ready to be asked."""

    __slots__ = ("_factors", "_knots")

    def __init__(self, factors: TokenFactors) -> None:
        self._knots = [float(knot) for knot in factors.num_tokens]
        self._factors = list(factors.factors)

    def at(self, num_tokens: int) -> float:
        """Return the factor of so many tokens."""
        place, share = _place(self._knots, float(num_tokens))
        return self._factors[place] + share * (self._factors[place + 1] - self._factors[place])


@mypyc_attr(serializable=True)
class SizeTable:
    """`SizeFactors`, ready to be asked; the row of a first size is kept, since runs of steps share it."""

    __slots__ = ("_factors", "_first", "_rows", "_second")

    def __init__(self, factors: SizeFactors) -> None:
        self._first = [log2(1.0 + knot) for knot in factors.first]
        self._second = [log2(1.0 + knot) for knot in factors.second]
        self._factors = [list(row) for row in factors.factors]
        self._rows: dict[int, list[float]] = {}

    def row(self, first: int) -> list[float]:
        """Return the factors of a first size at the knots of the second."""
        known = self._rows.get(first)
        if known is None:
            known = self._rows[first] = self._row(first)
        return known

    def at(self, first: int, second: float) -> float:
        """Return the factor of two sizes; for a first size that hardly comes twice."""
        return self.in_row(self._row(first), second)

    def in_row(self, row: list[float], second: float) -> float:
        """Return the factor of a second size in a row."""
        place, share = _place(self._second, log2(1.0 + second))
        return row[place] + share * (row[place + 1] - row[place])

    def _row(self, first: int) -> list[float]:
        place, share = _place(self._first, log2(1.0 + first))
        low, high = self._factors[place], self._factors[place + 1]
        return [a + share * (b - a) for a, b in zip(low, high, strict=True)]


def _place(knots: list[float], value: float) -> tuple[int, float]:
    """Return the knot below a value, and how far it is on the way to the next, from 0 to 1."""
    place = min(max(bisect_left(knots, value) - 1, 0), len(knots) - 2)
    share = (value - knots[place]) / (knots[place + 1] - knots[place])
    return place, min(max(share, 0.0), 1.0)


def _check_knots(name: str, knots: tuple[int, ...]) -> None:
    if len(knots) < 2 or list(knots) != sorted(set(knots)) or knots[0] < 0:
        raise ValueError(f"{name} must be two or more numbers that rise strictly from at least 0")
