"""One agent as data: the calls it will make and the waits between them. Shared by both worlds.

A workload that no engine could run is refused when it is put together, whoever does so.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite

from concur.measures.prefixes import prefix_levels
from concur.signals import Prefix
from concur.sim.errors import ScenarioError


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One model call and the wait after it.

    `kept_tokens` leading tokens of the previous prompt + output open the new prompt; for the first call it
    is the shared prefix, or what a fork starts with. `new_prompt_tokens` tokens that no one has sent before
    follow. The output is known; `max_new_tokens` is the limit that the client sends, `None` for the output.
    """

    kept_tokens: int
    new_prompt_tokens: int
    output_tokens: int
    tool_latency_s: float
    max_new_tokens: int | None = None

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
    `prefix_group` the first `shared_prefix_tokens` are the agent's own. Of a group's, the first may be those
    of `outer_prefixes`, wider groups from the outermost in.

    With a `parent_step` it does not arrive by itself: it starts `spawn_delay_s` after that step of its
    parent, which waits until it has ended if it `joins`. A fork starts with `fork_tokens` of that history.

    Its calls have its `priority`; the least goes first where the engine's policy looks at it.
    """

    agent_id: str
    index: int
    prefix_group: str | None
    shared_prefix_tokens: int
    arrival_s: float
    steps: tuple[StepSpec, ...]
    outer_prefixes: tuple[Prefix, ...] = ()
    parent: str | None = None
    parent_step: int | None = None
    spawn_delay_s: float = 0.0
    joins: bool = True
    fork_tokens: int = 0
    priority: int = 0

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
        if self.outer_prefixes or self.parent_step is not None or self.fork_tokens or self.spawn_delay_s:
            check_relations(self)

    @property
    def starting_tokens(self) -> int:
        """Length of the history before the first call."""
        return self.shared_prefix_tokens + self.fork_tokens

    @property
    def levels(self) -> tuple[Prefix, ...]:
        """What it shares with groups, from the outermost in, each with its own tokens."""
        return prefix_levels(self.prefix_group, self.shared_prefix_tokens, self.outer_prefixes)

    @property
    def fork(self) -> Prefix | None:
        """What it has of whose history when it starts."""
        return Prefix(self.parent or "", self.fork_tokens) if self.fork_tokens else None

    @property
    def peak_context_tokens(self) -> int:
        """Length of the longest history that the agent ever has."""
        return max(step.context_tokens for step in self.steps)


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Keep `num_sessions` trees running, each ended one making room for the next, until `duration_s`.

    None starts later; those that run then run to their end.
    """

    num_sessions: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Workload:
    """The agents of one run, how many were left out, and what to say of all that was lost on the way here.

    `lost` has the counts by name, see `concur.sim.workload.losses.Losses`. In a `closed_loop` agents that
    arrive by themselves wait for one another, in their order, instead of for their `arrival_s`.
    """

    agents: tuple[AgentSpec, ...]
    num_agents_skipped: int = 0
    source: str = ""
    sha256: str | None = None
    warnings: tuple[str, ...] = ()
    lost: Mapping[str, float] = field(default_factory=dict)
    closed_loop: ClosedLoop | None = None

    def __post_init__(self) -> None:
        for what in ("agent_id", "index"):
            again = _first_double(getattr(agent, what) for agent in self.agents)
            if again is not None:
                raise ScenarioError(
                    f"{self.source or 'workload'}: two agents have {what} {again!r}; give each its own"
                )
        if any(agent.parent_step is not None for agent in self.agents):
            check_trees(self.agents)


def check_relations(agent: AgentSpec) -> None:
    """Check what one agent says of groups and of its parent.

    Raises
    ------
    ScenarioError
        If it contradicts itself.
    """
    name = f"agent {agent.agent_id}"
    outer_tokens = sum(prefix.tokens for prefix in agent.outer_prefixes)
    if any(not prefix.group or prefix.tokens < 1 for prefix in agent.outer_prefixes):
        raise ScenarioError(f"{name}: an outer prefix without a name or tokens; leave it out")
    if agent.outer_prefixes and (agent.prefix_group is None or agent.shared_prefix_tokens < outer_tokens):
        raise ScenarioError(
            f"{name}: outer prefixes of {outer_tokens} tokens but prefix_group {agent.prefix_group!r} shares "
            f"{agent.shared_prefix_tokens}; theirs are the first of the group's"
        )
    if not 0 <= agent.spawn_delay_s < inf:
        raise ScenarioError(
            f"{name}: spawn_delay_s = {agent.spawn_delay_s} but must be finite and at least 0"
        )
    if agent.parent_step is None and (agent.spawn_delay_s or agent.fork_tokens):
        raise ScenarioError(f"{name}: spawn_delay_s or fork_tokens without a parent_step; name the step")
    if agent.parent_step is not None and (agent.parent is None or agent.arrival_s):
        raise ScenarioError(f"{name}: parent_step needs a parent and no arrival_s; it starts with that step")
    if agent.fork_tokens < 0 or (agent.fork_tokens and agent.shared_prefix_tokens):
        raise ScenarioError(
            f"{name}: fork_tokens = {agent.fork_tokens} and shared_prefix_tokens = "
            f"{agent.shared_prefix_tokens}; a fork has its parent's prefix: give it 0, and at least 0 tokens"
        )


def check_trees(agents: Iterable[AgentSpec]) -> None:
    """Check that the agents that others start have their parents here, and nobody is its own ancestor.

    Raises
    ------
    ScenarioError
        At the first one that will never start.
    """
    by_id = {agent.agent_id: agent for agent in agents}
    for agent in by_id.values():
        above, seen = agent, {agent.agent_id}
        while above.parent_step is not None:
            parent = by_id.get(above.parent or "")
            if parent is None or parent.agent_id in seen or not 0 <= above.parent_step < len(parent.steps):
                raise ScenarioError(
                    f"agent {above.agent_id}: nobody starts it after step {above.parent_step} of "
                    f"{above.parent!r}; name a step of an agent that starts before it"
                )
            if above.fork_tokens > parent.steps[above.parent_step].context_tokens:
                raise ScenarioError(
                    f"agent {above.agent_id}: fork_tokens = {above.fork_tokens} but {parent.agent_id} has "
                    f"{parent.steps[above.parent_step].context_tokens} tokens of history after that step"
                )
            seen.add(parent.agent_id)
            above = parent


def _first_double(values: Iterable[Hashable]) -> Hashable | None:
    return next((value for value, number in Counter(values).items() if number > 1), None)
