"""Guards around any controller. A guard is a wrapper with a name, never a flag inside a law."""

from concur.controllers.base import Controller, LogValue
from concur.signals import Snapshot


class AppLimited:
    """Refuse growth while fewer than half of the window is in use.

    Without it a window grows for ever while agents are few, and protects nothing when load comes back.
    The rule is that of Netflix's concurrency-limits (`AIMDLimit`: grow only if inflight * 2 >= limit);
    it is not part of CONCUR's law, so a guarded law is a variant of its own.
    """

    __slots__ = ("_controller",)

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @property
    def reads_agents(self) -> bool:
        """Whether the wrapped law looks at `Snapshot.agents`."""
        return self._controller.reads_agents

    @property
    def window(self) -> int:
        """Window in force."""
        return self._controller.window

    @window.setter
    def window(self, window: int) -> None:
        self._controller.window = window

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the wrapped decision, or the old window where that one would grow unused."""
        before = self._controller.window
        if self._controller.update(snapshot, active=active) > before and 2 * active < before:
            self._controller.window = before
        return self._controller.window

    def log_state(self) -> dict[str, LogValue]:
        """Return the wrapped controller's state."""
        return self._controller.log_state()
