"""Agent-level admission control for LLM inference: the control layer.

The core of this package is standard library only and sans-I/O: no clock, no randomness, no sockets.
Time arrives as data (`Snapshot.time_s`, `time_s=` arguments), so the same controller and gate objects
drive a simulated engine and a live one.
"""

from concur.controllers import Controller, ControllerSpec, make_controller
from concur.errors import ConcurError, ParameterError
from concur.gate import AgentGate, Gate, RequestGate
from concur.signals import UNLIMITED, AgentView, Departures, Snapshot

__all__ = [
    "UNLIMITED",
    "AgentGate",
    "AgentView",
    "ConcurError",
    "Controller",
    "ControllerSpec",
    "Departures",
    "Gate",
    "ParameterError",
    "RequestGate",
    "Snapshot",
    "make_controller",
]
