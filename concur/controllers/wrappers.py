"""Guards around any controller. A guard is a wrapper with a name, never a flag inside a law."""

import math

from concur.controllers.base import (
    Controller,
    LogValue,
    budget_of,
    does_read_calls,
    hurry_of,
    interval_of,
)
from concur.measures.flows import Freshness
from concur.signals import Snapshot, TokenBudget


class _Guard:
    """A controller around another one, in everything but `update` the same."""

    __slots__ = ("_controller",)

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @property
    def reads_agents(self) -> bool:
        """Whether the wrapped law looks at `Snapshot.agents`."""
        return self._controller.reads_agents

    @property
    def reads_calls(self) -> bool:
        """Whether the wrapped law needs `Snapshot.calls`."""
        return does_read_calls(self._controller)

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions of the wrapped law."""
        return self._controller.interval_s

    @property
    def window(self) -> int:
        """Window in force."""
        return self._controller.window

    @window.setter
    def window(self, window: int) -> None:
        self._controller.window = window

    @property
    def budget(self) -> TokenBudget:
        """Bound in tokens of the wrapped law."""
        return budget_of(self._controller)

    @property
    def hurry_s(self) -> float:
        """Seconds after which the wrapped law wants to decide again."""
        return hurry_of(self._controller)

    def log_state(self) -> dict[str, LogValue]:
        """Return the wrapped controller's state."""
        return self._controller.log_state()


class AppLimited(_Guard):
    """Refuse growth while fewer than half of the window is in use.

    Without it a window grows for ever while agents are few, and protects nothing when load comes back.
    The rule is that of Netflix's concurrency-limits (`AIMDLimit`: grow only if inflight * 2 >= limit);
    it is not part of CONCUR's law, so a guarded law is a variant of its own.
    """

    __slots__ = ()

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the wrapped decision, or the old window where that one would grow unused."""
        before = self._controller.window
        if self._controller.update(snapshot, active=active) > before and 2 * active < before:
            self._controller.window = before
        return self._controller.window


class Fresh(_Guard):
    """Refuse growth on readings that show no engine at work (`Freshness`): a scrape outage, a restart.

    Ours. CONCUR's law takes a gauge that stands still for an engine at rest and grows by it.
    """

    __slots__ = ("_freshness",)

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self._freshness = Freshness(interval_of(controller, math.inf))  # none: no outage is too long

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the wrapped decision, or the old window where that one would grow on a stale reading."""
        before = self._controller.window
        is_stale = self._freshness.is_stale(snapshot)
        if self._controller.update(snapshot, active=active) > before and is_stale:
            self._controller.window = before
        return self._controller.window
