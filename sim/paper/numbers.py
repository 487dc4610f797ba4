"""What the CONCUR paper (arXiv:2601.22705) prints, as far as it is recovered, and how surely.

Grades: **A** the primary text, or two careful readers agree; **B** one careful reader; **C** arithmetic on
those. What is not recovered (most cells of Table 1, the columns of A.1) is not here.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["speed_up", "rate", "amount"]
"""`speed_up`: a quotient of times, 1 is no difference. `rate`: 0 to 1. `amount`: seconds, bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """One printed number. `is_input`: ours is set from it, so that agreement says nothing."""

    key: str
    where: str
    value: float
    kind: Kind
    grade: Literal["A", "B", "C"]
    is_input: bool = False


NUMBERS: Final = (
    Printed(key="fig1.deepseek_bytes", where="Fig. 1", value=17e9, kind="amount", grade="B", is_input=True),
    Printed(key="fig1.qwen_bytes", where="Fig. 1", value=1.5e9, kind="amount", grade="B", is_input=True),
    Printed(key="fig1.request_bytes", where="Fig. 1c", value=6.67e9, kind="amount", grade="B"),
    Printed(key="fig1.reload_s", where="Fig. 1c", value=1.1, kind="amount", grade="B", is_input=True),
    Printed(key="fig1.recompute_s", where="Fig. 1c", value=0.6, kind="amount", grade="B"),
    Printed(key="fig3.warm_up_hits", where="Fig. 3", value=0.9, kind="rate", grade="A"),
    Printed(key="fig3.middle", where="Fig. 3", value=0.9, kind="rate", grade="A"),
    Printed(key="fig3.recompute", where="Fig. 3", value=0.491, kind="rate", grade="A"),
    Printed(key="table1.qwen_tp8.none_s", where="Table 1", value=1480, kind="amount", grade="B"),
    Printed(key="table1.qwen_tp8.concur_s", where="Table 1", value=362, kind="amount", grade="B"),
    Printed(key="table1.qwen_tp8.concur", where="Table 1", value=4.09, kind="speed_up", grade="A"),
    Printed(key="table1.deepseek_tp16_40.none_s", where="Table 1", value=3877, kind="amount", grade="B"),
    Printed(key="table1.deepseek_tp16_40.concur_s", where="Table 1", value=2043, kind="amount", grade="B"),
    Printed(key="table1.deepseek_tp16_40.concur", where="Table 1", value=1.90, kind="speed_up", grade="A"),
    Printed(key="table1.deepseek_tp16_40.hicache", where="Table 1", value=0.34, kind="speed_up", grade="B"),
    Printed(key="table1.fastest", where="Table 1", value=5 / 6, kind="rate", grade="B"),
    Printed(key="table2.none.16", where="Table 2", value=0.804, kind="rate", grade="A"),
    Printed(key="table2.none.32", where="Table 2", value=0.777, kind="rate", grade="A"),
    Printed(key="table2.none.40", where="Table 2", value=0.354, kind="rate", grade="A"),
    Printed(key="table2.request_cap.40", where="Table 2", value=0.322, kind="rate", grade="B"),
    Printed(key="table2.hicache.40", where="Table 2", value=0.961, kind="rate", grade="B"),
    Printed(key="table2.concur.40", where="Table 2", value=0.734, kind="rate", grade="B"),
    Printed(key="fig6.none_s", where="Fig. 6", value=2527, kind="amount", grade="B"),
    Printed(key="fig6.agent_cap_64_s", where="Fig. 6", value=1605, kind="amount", grade="B"),
    Printed(key="fig6.concur_s", where="Fig. 6", value=846, kind="amount", grade="B"),
    Printed(key="fig6.agent_cap_64", where="Fig. 6", value=1.57, kind="speed_up", grade="C"),
    Printed(key="fig6.concur", where="Fig. 6", value=2.99, kind="speed_up", grade="C"),
    Printed(key="a1.u_high_06", where="A.1", value=1.0, kind="speed_up", grade="A"),
    Printed(key="a1.u_high_08", where="A.1", value=1 / 4.5, kind="speed_up", grade="A"),
)
"""In bytes, seconds, fractions and quotients. A.1 says "nearly free" (taken as 1) and "4-5x slower" (4.5)."""

_BY_KEY: Final = {number.key: number for number in NUMBERS}

PAPER_KV_BYTES_PER_TOKEN: Final = 61 * 7168 * 2 * 2
"""DeepSeek-V3's KV as the paper counts it: layers x hidden size x 2 (K, V) x 2 bytes = 1,748,992.

4,096 tokens of it are 6.67 GiB, the printed "6.67 GB" of Fig. 1c to its last digit. The engine's latent
attention (MLA) stores 61 x 576 x 2 bytes = 70,272, a 25th of that.
"""

RELOAD_TOKENS: Final = 4096
RELOAD_CONCURRENCY: Final = 8
"""Fig. 1c: requests of that length, so many at once."""


def printed(key: str) -> Printed:
    """Return a printed number by its key."""
    return _BY_KEY[key]


def find_printed(key: str) -> Printed | None:
    """Return a printed number, `None` if the paper's is not known."""
    return _BY_KEY.get(key)
