"""Parents and children under every law and order: nobody is locked out for ever, nothing is left behind."""

from itertools import cycle
from typing import Any

import pytest

from concur.controllers import CATALOG, make_controller
from concur.gate import AgentGate, Gate, GateOrders, RequestGate
from concur.orders import ORDERS
from tests.laws.families import run_families
from tests.live.helpers import run_jumping

PARAMS: dict[str, dict[str, Any]] = {"request_cap": {"cap": 3}, "agent_cap": {"cap": 2}}
LEASE_S = 120.0
GENERATIONS = 4


def build(kind: str, order: str) -> tuple[Any, Gate]:
    params = PARAMS.get(kind, {} if kind in ("none", "ledger") else {"initial_window": 2})
    controller = make_controller(kind, interval_s=5.0, **params)
    if CATALOG[kind].gate is RequestGate:
        return controller, RequestGate(controller.window, max_wait_s=300.0)
    orders = GateOrders(*[ORDERS[order]] * 3)
    return controller, AgentGate(controller.window, orders=orders, max_wait_s=300.0, lease_s=LEASE_S)


@pytest.mark.parametrize("kind", CATALOG)
def test_no_law_window_or_order_locks_parents_against_children(kind: str) -> None:
    """Over all laws these are more than 100,000 events, with families, leases, withdrawals and failures."""
    num_events = num_lent = num_lapses = 0
    for seed, order in enumerate(cycle(ORDERS)):
        if num_events > 11_200 and seed > 2 * len(ORDERS):
            break
        num_hanging = 2 * (seed % 2)
        world, watch = run_jumping(
            run_families(*build(kind, order), seed=seed, num_roots=9, num_hanging=num_hanging)
        )
        assert world.num_begun > 9, "there are families"
        assert world.num_ended == world.num_begun or num_hanging
        # Whenever someone waits someone works, or is silent: one that hangs, or an ancestor waiting for it.
        assert world.max_wait_s <= world.work_s + num_hanging * GENERATIONS * LEASE_S
        num_events += watch.num_events
        num_lent += watch.num_lent
        num_lapses += watch.num_lapses
    if kind == "agent_cap":
        assert num_lent > 0
        assert num_lapses > 0
