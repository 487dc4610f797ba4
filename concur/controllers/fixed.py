"""The windows that never move: no control, a static cap on agents, a static cap on calls.

They are the baselines that every adaptive law has to beat.
"""

from dataclasses import dataclass

from concur.controllers.base import DEFAULT_INTERVAL_S, ControllerParams, LogValue
from concur.errors import require
from concur.signals import UNLIMITED, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParams(ControllerParams):
    """Parameters of `none`: nothing to choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapParams(ControllerParams):
    """Parameters of a static cap: at most `cap` slots."""

    cap: int

    def __post_init__(self) -> None:
        ControllerParams.__post_init__(self)
        require(1 <= self.cap <= UNLIMITED, "cap", self.cap, f"between 1 and {UNLIMITED}")


class Fixed:
    """Keep one window for ever."""

    __slots__ = ("_interval_s", "window")
    reads_agents = False

    def __init__(self, window: int, *, interval_s: float = DEFAULT_INTERVAL_S) -> None:
        self.window = window
        self._interval_s = interval_s

    @property
    def interval_s(self) -> float:
        """Seconds between two readings, for the record: there is nothing to decide."""
        return self._interval_s

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the window, whatever the engine says."""
        return self.window

    def log_state(self) -> dict[str, LogValue]:
        """Return nothing: a constant has no state."""
        return {}


def no_control(params: NoParams) -> Fixed:
    """Build the window that never binds: every agent runs, as without an admission layer."""
    return Fixed(UNLIMITED, interval_s=params.interval_s)


def static_cap(params: CapParams) -> Fixed:
    """Build a constant window of `params.cap`."""
    return Fixed(params.cap, interval_s=params.interval_s)
