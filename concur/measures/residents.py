"""The ledger of resident agents: whose history the KV cache has to keep, in tokens, from `usage` alone.

A prefix that a group of agents shares is in the cache once, and is counted once (ours; ThunderAgent,
arXiv:2602.13692, counts it once per agent).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from concur.signals import AgentView


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the agents that hold a slot, or have lent it to a descendant, keep in the cache.

    `num_agents` hold one, `num_in_step` of them are in a step, with `num_calls` in the engine now.
    `private_tokens`: sum of the contexts of all, those who lend included, without the shared prefixes, each
    with the half block that its last, partly filled block wastes on average. `shared_tokens`: one prefix per
    group. `in_step_tokens`: the private tokens of those in a step. `oldest_steps`: steps done by the furthest
    of them.
    """

    num_agents: int
    num_in_step: int
    num_calls: int
    private_tokens: float
    shared_tokens: int
    in_step_tokens: float
    oldest_steps: int


class History(Protocol):
    """What has a history in the cache: an `AgentView`, or a member of the gate."""

    @property
    def context_tokens(self) -> int:
        """Its length."""
        ...

    @property
    def prefix_group(self) -> str | None:
        """Who shares its beginning."""
        ...

    @property
    def shared_prefix_tokens(self) -> int:
        """How long that is."""
        ...


def private_tokens(agent: History) -> int:
    """Return the tokens of the agent's history that nobody shares."""
    return max(0, agent.context_tokens - prefix_tokens(agent))


def prefix_tokens(agent: History) -> int:
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
    """Add up the agents that hold a slot or lend it."""
    keepers = [agent for agent in agents if agent.holds_slot or agent.lends_slot]
    num_agents = num_in_step = num_calls = oldest_steps = 0
    private = in_step = 0.0
    for agent in keepers:
        num_agents += agent.holds_slot
        own_tokens = private_tokens(agent) + block_size / 2
        private += own_tokens
        oldest_steps = max(oldest_steps, agent.steps_done)
        if agent.is_in_step:
            num_in_step += 1
            num_calls += max(1, agent.num_calls)
            in_step += own_tokens
    return Ledger(num_agents, num_in_step, num_calls, private, shared_tokens(keepers), in_step, oldest_steps)
