"""How well a samples file repeats itself."""

import pandas as pd

from concur.calib.fit.samples import Samples

_SHAPE = ("prefill_tokens", "prefill_context_tokens", "decode_context_tokens")


def repeat_spread(samples: Samples) -> float | None:
    """Return the median over shapes of the relative spread of their durations; `None` if nothing repeats.

    A shape is the counts of a step, equal to the token; its spread is the median distance of its durations
    from their median, over that median.
    """
    steps = samples.steps
    shapes = [str([list(map(int, steps[name].iloc[row])) for name in _SHAPE]) for row in range(len(steps))]
    spreads = []
    for _, step_s in steps["step_s"].groupby(pd.Series(shapes, index=steps.index)):
        if len(step_s) > 1:
            centre = step_s.median()
            spreads.append((step_s - centre).abs().median() / centre)
    return float(pd.Series(spreads).median()) if spreads else None


def describe(samples: Samples) -> str:
    """Return one line: how many steps of which phase, and how well they repeat."""
    counts = ", ".join(f"{name} {count}" for name, count in samples.steps["phase"].value_counts().items())
    spread = repeat_spread(samples)
    suffix = "" if spread is None else f"; the same shape repeats within {spread:.1%} (median)"
    return f"{len(samples)} steps ({counts}) in {samples.steps['step_s'].sum():.1f} s{suffix}"
