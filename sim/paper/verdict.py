"""How near is near: the one rule by which our number is held against the printed one."""

from typing import Final

from concur.sim.paper.numbers import Kind, Printed
from concur.sim.runs.intervals import Interval

TOLERANCE: Final = 0.15
SAME_ORDER: Final = 10**0.5
REPRODUCED: Final = "reproduced"
RIGHT_TREND: Final = "right trend"
NOT_REPRODUCED: Final = "not reproduced"
INPUT: Final = "input"

VERDICTS: Final = (REPRODUCED, RIGHT_TREND, NOT_REPRODUCED, INPUT)

RULE: Final = (
    "`reproduced`: our mean is within 15 % of the printed number. Else `right trend`: it is within a factor "
    "of 3.16 (half an order of magnitude) and, with its whole 95 % interval, on the same side of 1 if it is "
    "a speed-up, of 1/2 if a rate. Else `not reproduced`. `input`: ours was set from the printed number, so "
    "agreement says nothing."
)
_BORDERS: Final[dict[Kind, float]] = {"speed_up": 1.0, "rate": 0.5}


def judge(printed: Printed, ours: Interval) -> str:
    """Return the verdict on `ours`, in the printed number's unit, by `RULE`."""
    if printed.is_input:
        return INPUT
    ratio = ours.mean / printed.value
    if abs(ratio - 1) <= TOLERANCE:
        return REPRODUCED
    border = _BORDERS.get(printed.kind)
    is_same_side = border is None or _same_side(printed.value, ours, border)
    return RIGHT_TREND if is_same_side and 1 / SAME_ORDER <= ratio <= SAME_ORDER else NOT_REPRODUCED


def _same_side(value: float, ours: Interval, border: float) -> bool:
    half_width = ours.half_width or 0.0
    if value > border:
        return ours.mean - half_width > border
    return value < border and ours.mean + half_width < border
