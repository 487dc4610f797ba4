"""The contract of every controller: one number, how many agents may be active."""

from dataclasses import dataclass
from typing import Protocol

from concur.errors import require
from concur.signals import Snapshot

LogValue = float | int | str | None


class Controller(Protocol):
    """Decide the window: how many agents may hold a slot.

    `window` is the window in force, from construction on. A wrapper may set it to overrule a decision.
    `reads_agents` says whether decisions look at `Snapshot.agents`; the tuple is left empty if not, because
    it costs one view per agent and tick. Decisions are a function of the snapshots alone: no clock, no
    randomness.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerParams:
    """Parameters that every controller has.

    `interval_s`: seconds between two decisions. Not in the paper; 5 s is ours (re-implementations use 0.1,
    5 and 30 s). The shell that owns the clock keeps it.
    """

    interval_s: float = 5.0

    def __post_init__(self) -> None:
        require(1e-3 <= self.interval_s <= 1e9, "interval_s", self.interval_s, "between 1e-3 and 1e9 s")
