"""The gate: who is in, and who goes next. How many may be in is the controller's business.

A gate is told of events and answers with the agents that may begin a call *now*, once per call. It has no
clock: `time_s` is an argument. It never touches a running call: it only says when the next one may begin.
"""

from concur.gate.agents import AgentGate
from concur.gate.base import Gate
from concur.gate.member import GateOrders
from concur.gate.requests import RequestGate

__all__ = ["AgentGate", "Gate", "GateOrders", "RequestGate"]
