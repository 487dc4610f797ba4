"""The ledger of resident agents: whose history the KV cache has to keep, in tokens, from `usage` alone.

A prefix that a group of agents shares is in the cache once, and is counted once (ours; ThunderAgent,
arXiv:2602.13692, counts it once per agent).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from concur.signals import AgentView


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the agents that hold a slot keep in the cache.

    `private_tokens`: sum of their contexts without the shared prefixes, each with the half block that its
    last, partly filled block wastes on average. `shared_tokens`: one prefix per group. `in_step_tokens`:
    the private tokens of those whose call is in the engine now. `oldest_steps`: steps done by the furthest
    of them.
    """

    num_agents: int
    num_in_step: int
    private_tokens: float
    shared_tokens: int
    in_step_tokens: float
    oldest_steps: int


def private_tokens(agent: AgentView) -> int:
    """Return the tokens of the agent's history that nobody shares."""
    return max(0, agent.context_tokens - prefix_tokens(agent))


def prefix_tokens(agent: AgentView) -> int:
    """Return the length of the prefix that the agent shares, 0 without a group."""
    return agent.shared_prefix_tokens if agent.prefix_group is not None else 0


def shared_tokens(agents: Iterable[AgentView]) -> int:
    """Return the tokens of the agents' shared prefixes: one per group, as long as its longest."""
    groups: dict[str, int] = {}
    for agent in agents:
        if agent.prefix_group is not None:
            groups[agent.prefix_group] = max(groups.get(agent.prefix_group, 0), agent.shared_prefix_tokens)
    return sum(groups.values())


def read_ledger(agents: Iterable[AgentView], block_size: int) -> Ledger:
    """Add up the agents that hold a slot."""
    holders = [agent for agent in agents if agent.holds_slot]
    num_in_step = oldest_steps = 0
    private = in_step = 0.0
    for agent in holders:
        own_tokens = private_tokens(agent) + block_size / 2
        private += own_tokens
        oldest_steps = max(oldest_steps, agent.steps_done)
        if agent.is_in_step:
            num_in_step += 1
            in_step += own_tokens
    return Ledger(len(holders), num_in_step, private, shared_tokens(holders), in_step, oldest_steps)
