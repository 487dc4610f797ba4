"""Token ids for agents that exist only as token counts.

vLLM names blocks by hashing token ids, so each token gets an id that is equal exactly where the tokens would
be: a position of a group's shared prefix has one id, everything else is new to the world. This is the
independent check of `concur.sim.kv.history`, which names blocks without tokens.
"""

from collections import defaultdict
from itertools import count

from concur.signals import Prefix
from concur.sim.workload.families import Families
from concur.sim.workload.spec import AgentSpec, Workload


class TokenBook:
    """The token histories of all agents of a run, written call by call."""

    def __init__(self, workload: Workload) -> None:
        self._families = Families(workload)
        self._agents = {agent.index: agent for agent in workload.agents}
        self._histories: dict[int, list[int]] = {}
        self._forks: dict[int, list[int]] = {}  # by child: what it starts with
        self._fresh = count(1)
        self._shared: defaultdict[tuple[Prefix | str, ...], list[int]] = defaultdict(list)

    def begin_call(self, agent_index: int, call_index: int) -> tuple[list[int], list[int]]:
        """Return the prompt's token ids and the ids that the call will generate, in order."""
        agent = self._agents[agent_index]
        step = agent.steps[call_index]
        history = self._histories[agent_index] if call_index else self._beginning(agent)
        prompt = history[: step.kept_tokens] + self._new(step.new_prompt_tokens)
        output = self._new(step.output_tokens)
        self._histories[agent_index] = prompt + output
        for child in self._families.started_after(agent.agent_id, call_index):
            self._forks[child.index] = (prompt + output)[: child.fork_tokens]
        return prompt, output

    def _beginning(self, agent: AgentSpec) -> list[int]:
        if agent.prefix_group is None:
            return self._forks.pop(agent.index, []) + self._new(agent.shared_prefix_tokens)
        beginning: list[int] = []
        for depth, level in enumerate(agent.levels):
            tokens = self._shared[(*agent.levels[:depth], level.group)]
            tokens += self._new(level.tokens - len(tokens))
            beginning += tokens[: level.tokens]
        return beginning

    def _new(self, num_tokens: int) -> list[int]:
        return [next(self._fresh) for _ in range(num_tokens)]
