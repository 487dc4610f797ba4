"""Who starts whom in a workload."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from concur.sim.workload.spec import AgentSpec, Workload


class Families:
    """The trees of a workload, by agent id; whoever arrives by itself is the root of one."""

    def __init__(self, workload: Workload) -> None:
        self._by_id = {agent.agent_id: agent for agent in workload.agents}
        started: defaultdict[tuple[str, int], list[AgentSpec]] = defaultdict(list)
        for agent in workload.agents:
            if agent.parent_step is not None:
                started[agent.parent or "", agent.parent_step].append(agent)
        self._started: Mapping[tuple[str, int], list[AgentSpec]] = dict(started)
        self._forked = {agent.parent for agent in workload.agents if agent.fork_tokens}

    def roots(self) -> Iterator[AgentSpec]:
        """Yield the agents that arrive by themselves."""
        return (agent for agent in self._by_id.values() if agent.parent_step is None)

    def started_after(self, agent_id: str, call_index: int) -> list[AgentSpec]:
        """Return the children that start after that call of an agent, in the order of the workload."""
        return self._started.get((agent_id, call_index), [])

    def parent(self, agent: AgentSpec) -> AgentSpec | None:
        """Return the agent that starts this one, if one does."""
        return self._by_id[agent.parent or ""] if agent.parent_step is not None else None

    def root(self, agent: AgentSpec) -> AgentSpec:
        """Return the agent that its tree began with: itself if it arrives by itself."""
        *_, root = (agent, *self.ancestors(agent))
        return root

    def ancestors(self, agent: AgentSpec) -> Iterator[AgentSpec]:
        """Yield parent, grandparent, and so on."""
        above = self.parent(agent)
        while above is not None:
            yield above
            above = self.parent(above)

    def nearest(self, agent: AgentSpec, is_here: Callable[[str], bool]) -> str | None:
        """Return the id of the nearest ancestor that is here, if there is one."""
        above = (ancestor.agent_id for ancestor in self.ancestors(agent))
        return next((agent_id for agent_id in above if is_here(agent_id)), None)

    def is_forked(self, agent_id: str) -> bool:
        """Tell whether others start with a part of the agent's history."""
        return agent_id in self._forked
