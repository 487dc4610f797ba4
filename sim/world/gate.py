"""The gate of a scenario, the same in both worlds."""

from collections.abc import Sequence
from typing import Final

from concur.controllers import Controller, make_controllers, make_gate
from concur.gate import Gate, GateOrders
from concur.gate.fleet import EngineGates, FleetGate, GlobalGate
from concur.gate.placement import PlacedGates, PlacementRule
from concur.orders import order_named
from concur.routing import Router, make_router
from concur.sim.scenario.fleet import FleetConfig
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import GateConfig


def build_gate(scenario: Scenario, window: int) -> Gate:
    """Return the gate that `[gate]` describes, of the kind that the controller's windows apply to."""
    return gate_of(scenario.gate, scenario.controller.kind, window)


_ONE_ENGINE: Final = FleetConfig(num_engines=1)


def num_gates(scenario: Scenario) -> int:
    """Return how many gates, and so how many laws, stand in front of the scenario's engines."""
    fleet = scenario.fleet
    return 1 if fleet is None or fleet.gate == "global" else fleet.size


def build_controllers(scenario: Scenario) -> list[Controller]:
    """Return a law of `[controller]` for each gate that stands in front of the scenario's engines."""
    config, fleet = scenario.controller, scenario.fleet
    are_placed = fleet is not None and fleet.gate == "placement"
    return make_controllers(
        config.kind,
        num_gates(scenario),
        move_after_s=fleet.move_after_s if fleet is not None and are_placed else None,
        wrappers=config.wrappers,
        **config.parameters,
    )


def build_router(scenario: Scenario) -> Router | None:
    """Return the router of a fleet, its draws by the scenario's seed; `None` where gates place."""
    fleet = scenario.fleet or _ONE_ENGINE
    if fleet.gate == "placement":
        return None
    return make_router(fleet.routing, **({"seed": scenario.seed} | fleet.parameters))


def build_fleet_gate(scenario: Scenario, windows: Sequence[int], router: Router | None) -> FleetGate:
    """Return what stands in front of the scenario's engines, one `[gate]` for each of the windows."""
    fleet = scenario.fleet or _ONE_ENGINE
    gates = [build_gate(scenario, window) for window in windows]
    if router is None:
        rule = PlacementRule(fleet.move_after_s, is_most_room_first=fleet.placement == "most_room")
        return PlacedGates(gates, rule)
    return (
        EngineGates(gates, router) if fleet.gate == "per_engine" else GlobalGate(gates[0], router, fleet.size)
    )


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
