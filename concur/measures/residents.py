"""The ledger of resident agents: whose history the KV cache has to keep, in tokens, from `usage` alone.

A prefix that a group of agents shares is in the cache once, and is counted once (ours; ThunderAgent,
arXiv:2602.13692, counts it once per agent); so is what a fork shares with its parent.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from concur.measures.prefixes import prefix_levels, warm_up
from concur.signals import AgentView, Prefix, Snapshot


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the agents that hold a slot, or have lent it to a descendant, keep in the cache.

    `num_agents` hold one, `num_in_step` of them are in a step, with `num_calls` in the engine now.
    `private_tokens`: sum of the contexts of all, those who lend included, without the shared prefixes, each
    with the half block that its last, partly filled block wastes on average. `shared_tokens`: one prefix per
    group, and what forks share with a parent that is not among them. `in_step_tokens`: the private tokens of
    those in a step. `oldest_steps`: steps done by the furthest of them.
    """

    num_agents: int
    num_in_step: int
    num_calls: int
    private_tokens: float
    shared_tokens: int
    in_step_tokens: float
    oldest_steps: int

    @property
    def tokens(self) -> float:
        """What they keep in all."""
        return self.private_tokens + self.shared_tokens


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

    @property
    def fork(self) -> Prefix | None:
        """What it has of whose history."""
        ...


def private_tokens(agent: History) -> int:
    """Return the tokens of the agent's history that nobody shares."""
    return max(0, agent.context_tokens - prefix_tokens(agent))


def prefix_tokens(agent: History) -> int:
    """Return the length of what the agent shares with its group or its parent, 0 with neither."""
    if agent.fork is not None:
        return agent.fork.tokens
    return agent.shared_prefix_tokens if agent.prefix_group is not None else 0


def shared_tokens(agents: Iterable[AgentView]) -> int:
    """Return the tokens that the agents share: one prefix per group, as long as its longest.

    What a fork has of its parent is among the parent's own tokens if that is one of the agents; else it
    counts here, once for all forks of one parent.
    """
    groups: dict[str, int] = {}
    forks: dict[str, int] = {}
    ids = set()
    for agent in agents:
        ids.add(agent.agent_id)
        if agent.fork is not None:
            forks[agent.fork.group] = max(forks.get(agent.fork.group, 0), agent.fork.tokens)
        warm_up(prefix_levels(agent.prefix_group, agent.shared_prefix_tokens, agent.outer_prefixes), groups)
    return sum(groups.values()) + sum(tokens for parent, tokens in forks.items() if parent not in ids)


def stranger_tokens(snapshot: Snapshot, ledger: Ledger, *, growth_tokens: float) -> float:
    """Return what callers hold that pass no gate: blocks that requests reference, less those of our agents.

    Each call in flight has added `growth_tokens` to what its agent's ledger says, in the mean.
    """
    referenced = snapshot.kv_cache_usage_frac * snapshot.pool_tokens
    in_call = growth_tokens * ledger.num_calls
    return max(0.0, referenced - ledger.in_step_tokens - in_call - ledger.shared_tokens)


def read_ledger(agents: Iterable[AgentView], block_size: int) -> Ledger:
    """Add up the agents that hold a slot or lend it."""
    keepers = [agent for agent in agents if agent.keeps_history]
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
