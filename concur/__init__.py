"""Agent-level admission control for LLM inference: the control layer.

The core of this package is standard library only and sans-I/O: no clock, no randomness, no sockets.
Time arrives as data (`Snapshot.time_s`, `time_s=` arguments), so the same controller and gate objects
drive a simulated engine and a live one. What runs on asyncio is loaded when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from concur.controllers import Controller, ControllerSpec, make_controller, make_gate
from concur.errors import ConcurError, GateError, ParameterError
from concur.gate import AgentGate, Gate, RequestGate
from concur.signals import UNLIMITED, AgentView, Departures, Snapshot, Usage

if TYPE_CHECKING:
    from concur.live.controlling import ControlledGate
    from concur.live.gate import AsyncGate

    __version__: str

__all__ = [
    "UNLIMITED",
    "AgentGate",
    "AgentView",
    "AsyncGate",
    "ConcurError",
    "ControlledGate",
    "Controller",
    "ControllerSpec",
    "Departures",
    "Gate",
    "GateError",
    "ParameterError",
    "RequestGate",
    "Snapshot",
    "Usage",
    "__version__",
    "make_controller",
    "make_gate",
]
_SHELLS: Final = {"AsyncGate": "concur.live.gate", "ControlledGate": "concur.live.controlling"}


def __getattr__(name: str) -> Any:
    """Load a shell, or look the version up, at first use: a law needs neither."""
    if name == "__version__":
        return import_module("importlib.metadata").version("concur-admission")
    if name in _SHELLS:
        return getattr(import_module(_SHELLS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
