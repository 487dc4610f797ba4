"""Bounded non-linear least squares with standard errors: one call of SciPy's, and its statistics.

Covariance at the solution: s**2 * inv(J'J) with s**2 = RSS / (n - k) over the k parameters that are not at a
bound (Bates and Watts, *Nonlinear Regression Analysis*, 1988, section 2.3.1).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.optimize import least_squares

Array = np.ndarray[Any, np.dtype[np.float64]]
_AT_BOUND: Final = 1e-6  # of a parameter's scale


@dataclass(frozen=True, slots=True)
class Minimum:
    """A least-squares solution; arrays of shape (num_parameters,) unless said otherwise.

    `standard_errors` and `correlation` (num_parameters, num_parameters) are NaN for parameters at a bound and
    where they cannot be determined. `condition` is that of the scaled Jacobian of the free parameters.
    """

    values: Array
    standard_errors: Array
    correlation: Array
    is_at_bound: np.ndarray[Any, np.dtype[np.bool_]]
    condition: float
    residual_sum_of_squares: float
    cost: float
    num_evaluations: int


def minimise(
    residuals: Callable[[Array], Array],
    start: Sequence[float],
    bounds: tuple[Sequence[float], Sequence[float]],
    *,
    outlier_scale: float = math.inf,
) -> Minimum:
    """Minimise the sum of squared residuals, starting from `start` (which also sets each parameter's scale).

    Residuals far beyond `outlier_scale` count by their size, not its square (SciPy's `soft_l1`).
    """
    begin = np.asarray(start, dtype=float)
    scale = np.where(begin == 0, 1.0, np.abs(begin))
    low, high = (np.asarray(bound, dtype=float) / scale for bound in bounds)
    is_robust = math.isfinite(outlier_scale)

    def scaled_residuals(scaled: Array) -> Array:
        return residuals(scaled * scale)

    found = least_squares(
        scaled_residuals,
        np.clip(begin / scale, low, high),
        bounds=(low, high),
        x_scale="jac",
        loss="soft_l1" if is_robust else "linear",
        f_scale=outlier_scale if is_robust else 1.0,
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
        max_nfev=200,
    )
    is_at_bound = (found.x - low <= _AT_BOUND) | (high - found.x <= _AT_BOUND)
    errors, correlation, condition = _statistics(
        np.asarray(found.jac, dtype=float), 2.0 * found.cost, ~is_at_bound
    )
    at_solution = residuals(found.x * scale)
    return Minimum(
        values=np.where(found.x - low <= _AT_BOUND, low, found.x) * scale,
        standard_errors=errors * scale,
        correlation=correlation,
        is_at_bound=is_at_bound,
        condition=condition,
        residual_sum_of_squares=float(at_solution @ at_solution),
        cost=float(found.cost),
        num_evaluations=int(found.nfev),
    )


def _statistics(
    jacobian: Array, sum_of_squares: float, is_free: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[Array, Array, float]:
    """Return standard errors, correlations and the condition number, by singular values."""
    size = len(is_free)
    errors, correlation = np.full(size, np.nan), np.full((size, size), np.nan)
    is_free = is_free & (np.linalg.norm(jacobian, axis=0) > 0)  # no residual depends on the others
    free = jacobian[:, is_free]
    norms = np.linalg.norm(free, axis=0)
    degrees = len(jacobian) - free.shape[1]
    if not free.size or degrees < 1:
        return errors, correlation, math.inf
    _, singular, rotation = np.linalg.svd(free / norms, full_matrices=False)
    condition = float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf
    if condition > 1e12:  # numerically singular: nothing can be said of single parameters
        return errors, correlation, condition
    covariance = (rotation.T / singular**2) @ rotation * (sum_of_squares / degrees)
    spread = np.sqrt(np.diag(covariance))
    errors[is_free] = spread / norms
    correlation[np.ix_(is_free, is_free)] = covariance / np.outer(spread, spread)
    return errors, correlation, condition
