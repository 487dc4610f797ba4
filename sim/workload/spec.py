"""One agent as data: the calls it will make and the waits between them. Shared by both worlds.

A workload that no engine could run is refused when it is put together, whoever does so.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from math import isfinite

from concur.sim.errors import ScenarioError


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One model call and the wait after it.

    `kept_tokens` leading tokens of the previous prompt + output open the new prompt; for the first call it
    is the shared prefix. `new_prompt_tokens` tokens that no one has sent before follow.
    """

    kept_tokens: int
    new_prompt_tokens: int
    output_tokens: int
    tool_latency_s: float

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return self.kept_tokens + self.new_prompt_tokens

    @property
    def context_tokens(self) -> int:
        """Length of the history after this call: prompt + output."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent: its identity, when it arrives, and its steps in order.

    Indices need not follow one another, but they order agents that are ready at the same time. Without a
    `prefix_group` the first `shared_prefix_tokens` are the agent's own.
    """

    agent_id: str
    index: int
    prefix_group: str | None
    shared_prefix_tokens: int
    arrival_s: float
    steps: tuple[StepSpec, ...]

    def __post_init__(self) -> None:
        if not self.agent_id:
            raise ScenarioError(f"agent with index {self.index}: agent_id is empty; give each agent a name")
        if self.index < 0:
            raise ScenarioError(f"agent {self.agent_id}: index = {self.index} but must be at least 0")
        if self.prefix_group == "":
            raise ScenarioError(
                f"agent {self.agent_id}: prefix_group is empty; name the group, or give None for no group"
            )
        if self.shared_prefix_tokens < 0:
            raise ScenarioError(
                f"agent {self.agent_id}: shared_prefix_tokens = {self.shared_prefix_tokens} but must be at "
                "least 0"
            )
        if not (isfinite(self.arrival_s) and self.arrival_s >= 0):
            raise ScenarioError(
                f"agent {self.agent_id}: arrival_s = {self.arrival_s} but must be finite and at least 0"
            )
        if not self.steps:
            raise ScenarioError(f"agent {self.agent_id} has no steps; leave it out")

    @property
    def peak_context_tokens(self) -> int:
        """Length of the longest history that the agent ever has."""
        return max(step.context_tokens for step in self.steps)


@dataclass(frozen=True, slots=True)
class Workload:
    """The agents of one run, how many were left out, and what to say of all that was lost on the way here."""

    agents: tuple[AgentSpec, ...]
    num_agents_skipped: int = 0
    source: str = ""
    sha256: str | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what in ("agent_id", "index"):
            again = _first_double(getattr(agent, what) for agent in self.agents)
            if again is not None:
                raise ScenarioError(
                    f"{self.source or 'workload'}: two agents have {what} {again!r}; give each its own"
                )


def _first_double(values: Iterable[Hashable]) -> Hashable | None:
    return next((value for value, number in Counter(values).items() if number > 1), None)
