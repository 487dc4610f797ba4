"""One agent as data: the calls it will make and the waits between them. Shared by both worlds."""

from dataclasses import dataclass


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
    """One agent: its identity, when it arrives, and its steps in order."""

    agent_id: str
    index: int
    prefix_group: str | None
    shared_prefix_tokens: int
    arrival_s: float
    steps: tuple[StepSpec, ...]

    @property
    def peak_context_tokens(self) -> int:
        """Length of the longest history that the agent ever has."""
        return max(step.context_tokens for step in self.steps)


@dataclass(frozen=True, slots=True)
class Workload:
    """The agents of one run and how many were left out because they could not fit."""

    agents: tuple[AgentSpec, ...]
    num_agents_skipped: int = 0
    source: str = ""
    sha256: str | None = None
