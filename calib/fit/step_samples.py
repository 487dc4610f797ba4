"""From recorded step rows to the columns of `concur.calib.fit.samples.SCHEMA`."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from concur.calib.fit.samples import SCHEMA
from concur.validate.steps.step_log import StepRow, step_spans


def regime(row: StepRow) -> str:
    """Name what a step computes: `prefill`, `decode` or `mixed`."""
    decodes = sum(request.is_decode for request in row.requests)
    if not decodes:
        return "prefill"
    return "decode" if decodes == len(row.requests) else "mixed"


def sample_rows(
    rows: Sequence[StepRow], *, is_async: bool, origin_s: float, max_outside_frac: float | None = None
) -> list[dict[str, Any]]:
    """Return one sample per consecutive step of one engine; seconds count from `origin_s`.

    The phase is the row's, or what the step computes where the row has none. Left out are steps that the work
    outside swallowed (a duration of zero or less) and those of whose duration it was more than
    `max_outside_frac`.
    """
    return [
        _sample(row, span.begin_s - origin_s, span.step_s)
        for row, span in zip(rows, step_spans(rows, is_async=is_async), strict=True)
        if span.step_s > 0 and (max_outside_frac is None or row.outside_s <= max_outside_frac * span.step_s)
    ]


def steps_frame(samples: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return samples as a frame with the columns of `SCHEMA`."""
    return pd.DataFrame(list(samples), columns=SCHEMA.names)


def _sample(row: StepRow, t_s: float, step_s: float) -> dict[str, Any]:
    prefills = [request for request in row.requests if not request.is_decode]
    return {
        "t_s": t_s,
        "step_s": step_s,
        "phase": row.phase or regime(row),
        "prefill_tokens": [request.num_tokens for request in prefills],
        "prefill_context_tokens": [request.num_computed_tokens for request in prefills],
        "decode_context_tokens": [
            request.num_computed_tokens for request in row.requests if request.is_decode
        ],
    }
