"""ThunderAgent's law: a capacity ledger without engine feedback (arXiv:2602.13692 and its public code).

Every tick::

    used     = sum(tokens of agents in a call) + w * sum(tokens of agents in tools) + 100 per agent
    capacity = block_size * num_gpu_blocks

While used > capacity, agents in tools are paused, then those in a call (they stop at its end), smallest
first. Else waiting agents are let in while they fit: those past their first step, then new ones, smallest
first. After 1800 s an agent is let in regardless. This law answers with a number; who it is that pauses or
comes back is the gate's order (`pause = "smallest"`, `resume = "smallest"` are ThunderAgent's).

Optional there and here: what agents in tools keep counts for 2^-(`half_lives_per_s` * t) when room for others
is sought, t seconds after their last call ("acting decay").

Known defects, off by default and turned on by `faithful = 1`: a prefix that agents share is counted once per
agent, and an overflow, however small, marks every candidate of the first kind that overflows instead of as
many as are needed. Its third one, large agents that starve, comes from the order and is not the window's.

Signals: `usage` of each agent's last answer and the gate's own state; nothing of the engine but its capacity.
While answers come without `usage` (ours), the window stays as it is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from concur.controllers.base import ControllerParams, LogValue
from concur.errors import require
from concur.measures.flows import Freshness
from concur.measures.residents import prefix_tokens, private_tokens, shared_tokens
from concur.measures.usage import calls_without_usage
from concur.signals import UNLIMITED, AgentView, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerParams(ControllerParams):
    """Parameters of `ledger`; defaults are ThunderAgent's.

    `tool_weight` is w, `buffer_tokens` the 100 per agent, `max_wait_s` the forced resume. `faithful` = 1
    keeps its defects. `half_lives_per_s`: no decay, 1 is theirs. `initial_window`: no bound before the first
    tick.
    """

    tool_weight: float = 1.0
    buffer_tokens: int = 100
    max_wait_s: float = 1800.0
    initial_window: int = UNLIMITED
    faithful: int = 0
    half_lives_per_s: float = 0.0

    def __post_init__(self) -> None:
        ControllerParams.__post_init__(self)
        require(0 <= self.tool_weight <= 1, "tool_weight", self.tool_weight, "between 0 and 1")
        require(self.buffer_tokens >= 0, "buffer_tokens", self.buffer_tokens, "at least 0 tokens")
        require(self.max_wait_s > 0, "max_wait_s", self.max_wait_s, "greater than 0 s")
        require(self.faithful in (0, 1), "faithful", self.faithful, "0 or 1")
        rate = self.half_lives_per_s
        require(0 <= rate < math.inf, "half_lives_per_s", rate, "at least 0")
        require(
            1 <= self.initial_window <= UNLIMITED,
            "initial_window",
            self.initial_window,
            f"between 1 and {UNLIMITED}",
        )


class LedgerLaw:
    """Apply the law of the module docstring once per reading."""

    __slots__ = ("_freshness", "_state", "params", "window")
    reads_agents = True

    def __init__(self, params: LedgerParams) -> None:
        self.params = params
        self.window = params.initial_window
        self._freshness = Freshness(params.interval_s)
        self._state: dict[str, LogValue] = {"used_tokens": 0.0}

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions."""
        return self.params.interval_s

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return how many fit by the ledger."""
        capacity = snapshot.total_tokens
        if self._freshness.is_stale(snapshot) or capacity == 0:
            return self.window
        holders = [agent for agent in snapshot.agents if agent.holds_slot]
        keepers = [agent for agent in snapshot.agents if agent.keeps_history]
        if calls_without_usage(snapshot):
            self._state = {"has_usage": 0}
            return self.window
        used = self._shared(keepers) + sum(sorted(map(self._tokens, keepers)))  # in any order the same
        self._state = {"used_tokens": used}
        if used > capacity:
            window = len(holders) - self._num_pauses(holders, used - capacity)
        else:
            decayed = sum(sorted(self._decayed_tokens(agent, snapshot.time_s) for agent in keepers))
            window = len(holders) + self._num_resumes(snapshot, capacity - used + decayed)
        self.window = min(max(window, 1), UNLIMITED)
        return self.window

    def log_state(self) -> dict[str, LogValue]:
        """Return the tokens in the ledger; `has_usage` = 0 if answers come without the tokens it adds up."""
        return self._state

    def _shared(self, holders: Iterable[AgentView]) -> int:
        return 0 if self.params.faithful else shared_tokens(holders)

    def _tokens(self, agent: AgentView) -> float:
        p = self.params
        own = max(agent.context_tokens, prefix_tokens(agent)) if p.faithful else private_tokens(agent)
        is_in_tool = agent.keeps_history and not agent.is_in_step
        return own * (p.tool_weight if is_in_tool else 1.0) + p.buffer_tokens

    def _decayed_tokens(self, agent: AgentView, time_s: float) -> float:
        """Return what an agent in a tool no longer counts for."""
        if agent.is_in_step:
            return 0.0
        kept_frac = math.exp2(self.params.half_lives_per_s * (agent.heard_s - time_s))
        return self._tokens(agent) * (1.0 - kept_frac)

    def _num_pauses(self, holders: Sequence[AgentView], excess_tokens: float) -> int:
        """Count the agents to pause: in tools first, then in a call, smallest first."""
        num_pauses = 0
        for is_in_step in (False, True):
            tokens = sorted(self._tokens(agent) for agent in holders if agent.is_in_step == is_in_step)
            if self.params.faithful and tokens and excess_tokens > 0:
                excess_tokens -= sum(tokens)
                num_pauses += len(tokens)
                continue
            for own_tokens in tokens:
                if excess_tokens <= 0:
                    return num_pauses
                excess_tokens -= own_tokens
                num_pauses += 1
        return num_pauses

    def _num_resumes(self, snapshot: Snapshot, free_tokens: float) -> int:
        """Count the agents without a slot that fit, or have waited too long."""
        outside = sorted(
            (
                agent.steps_done == 0,
                agent.context_tokens,
                agent.index,
                self._tokens(agent),
                snapshot.time_s if agent.waiting_since_s is None else agent.waiting_since_s,
            )
            for agent in snapshot.agents
            if not agent.keeps_history
        )
        num_resumes = 0
        for *_, tokens, since_s in outside:
            if free_tokens < tokens and snapshot.time_s - since_s < self.params.max_wait_s:
                continue
            free_tokens -= tokens
            num_resumes += 1
        return num_resumes
