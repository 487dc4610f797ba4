"""Who goes first: orders as key functions over `AgentView`; the smallest key goes first.

An order never decides *how many* (that is the controller's window), only *who*. Keys are taken when an
agent enters a queue, and end with the agent's index so that every order is total.
"""

from collections.abc import Callable, Mapping
from typing import Final

from concur.errors import ParameterError
from concur.signals import AgentView

OrderKey = tuple[float, int]
Order = Callable[[AgentView], OrderKey]


def longest_waiting(agent: AgentView) -> OrderKey:
    """Put first whoever has been asking for a step the longest (first come, first served)."""
    return (agent.waiting_since_s if agent.waiting_since_s is not None else agent.arrived_s, agent.index)


def oldest(agent: AgentView) -> OrderKey:
    """Put first whoever was admitted first: it is nearest to its end and has the most to lose."""
    return (agent.admitted_s if agent.admitted_s is not None else agent.arrived_s, agent.index)


def youngest(agent: AgentView) -> OrderKey:
    """Put first whoever was admitted last: the least history to recompute later."""
    return (-(agent.admitted_s if agent.admitted_s is not None else agent.arrived_s), -agent.index)


def largest(agent: AgentView) -> OrderKey:
    """Put first the longest context: its pause frees the most blocks."""
    return (-float(agent.context_tokens), agent.index)


def smallest(agent: AgentView) -> OrderKey:
    """Put first the shortest context: the cheapest to bring back."""
    return (float(agent.context_tokens), agent.index)


ORDERS: Final[Mapping[str, Order]] = {
    order.__name__: order for order in (longest_waiting, oldest, youngest, largest, smallest)
}


def order_named(name: str) -> Order:
    """Return the order called `name`.

    Raises
    ------
    ParameterError
        If there is no such order.
    """
    if name not in ORDERS:
        raise ParameterError(f"order = {name!r} but must be one of {', '.join(sorted(ORDERS))}")
    return ORDERS[name]
