"""The gate of a scenario, the same in both worlds."""

from concur.controllers import make_gate
from concur.gate import Gate, GateOrders
from concur.orders import order_named
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import GateConfig


def build_gate(scenario: Scenario, window: int) -> Gate:
    """Return the gate that `[gate]` describes, of the kind that the controller's windows apply to."""
    return gate_of(scenario.gate, scenario.controller.kind, window)


def gate_of(config: GateConfig, kind: str, window: int) -> Gate:
    """Return the gate that a section describes, for the windows of a law by name."""
    orders = GateOrders(order_named(config.admit), order_named(config.resume), order_named(config.pause))
    return make_gate(
        kind,
        window,
        orders=orders,
        max_wait_s=config.max_wait_s,
        lease_s=config.lease_s,
    )
