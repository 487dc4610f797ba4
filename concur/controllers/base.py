"""The contract of every controller: how many agents may be active, and how many tokens they may keep."""

import math
from dataclasses import dataclass
from typing import Final, Protocol

from concur.errors import require
from concur.signals import UNBOUNDED, Snapshot, TokenBudget

LogValue = float | int | str | None
DEFAULT_INTERVAL_S: Final = 5.0  # ours; the paper does not say, re-implementations use 0.1, 5 and 30 s


class Law(Protocol):
    """Decide the window: how many agents may hold a slot.

    `window` is the window in force, from construction on. A wrapper may set it to overrule a decision. A law
    that bounds tokens too has a `budget`, a `TokenBudget`, in force with it. One that wants to decide again
    before its interval is over, for now, has `hurry_s`, the seconds until then.
    `reads_agents` says whether decisions look at `Snapshot.agents`; the tuple is left empty if not, because
    it costs one view per agent and tick. One that needs `Snapshot.calls` too has `reads_calls`. Decisions
    are a function of the snapshots alone: no clock, no randomness.
    """

    window: int

    @property
    def reads_agents(self) -> bool:
        """Whether `update` looks at `Snapshot.agents`."""
        ...

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Take one reading, with `active` agents holding slots, and return the new window (at least 1)."""
        ...

    def log_state(self) -> dict[str, LogValue]:
        """Return what the last decision was based on, one tick's columns."""
        ...


class Controller(Law, Protocol):
    """A law that says how often it wants to decide: every law of the catalog, and every guard around one."""

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions; the shell that owns the clock keeps it."""
        ...


def budget_of(law: Law) -> TokenBudget:
    """Return the bound in tokens that a law has set beside its window; most set none."""
    budget: TokenBudget = getattr(law, "budget", UNBOUNDED)
    return budget


def hurry_of(law: Law) -> float:
    """Return the seconds after which a law wants to decide again, its interval apart; most do not hurry."""
    return float(getattr(law, "hurry_s", math.inf))


def does_read_calls(law: Law) -> bool:
    """Tell whether a law needs prompt and output of each call apart; most add up contexts."""
    return bool(getattr(law, "reads_calls", False))


def interval_of(law: Law, otherwise_s: float) -> float:
    """Return the interval of a law, `otherwise_s` if it has none to say: a law from outside need not."""
    return float(getattr(law, "interval_s", otherwise_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerParams:
    """Parameters that every controller has.

    `interval_s`: seconds between two decisions, see `DEFAULT_INTERVAL_S`.
    """

    interval_s: float = DEFAULT_INTERVAL_S

    def __post_init__(self) -> None:
        require(1e-3 <= self.interval_s <= 1e9, "interval_s", self.interval_s, "between 1e-3 and 1e9 s")
