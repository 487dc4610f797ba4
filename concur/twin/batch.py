"""What is known of a batch: its calls and its lives, as one gate has seen them or several have."""

from dataclasses import dataclass
from typing import Final

from concur.measures.residents import prefix_tokens
from concur.signals import AgentView, Snapshot
from concur.twin.calls import CallPool
from concur.twin.lives import Lives

_SILENT_S: Final = 30.0  # a gate that nobody has read for so long has an engine that is down


@dataclass(slots=True)
class _Gone:
    """An agent that a gate has no more: after how many calls, and in which reading that was noticed."""

    num_calls: int
    noticed: int


class Batch:
    """Calls and lives of all agents. An agent that goes from one gate to another has not ended its life."""

    def __init__(self, num_gates: int = 1) -> None:
        self.calls = CallPool()
        self.lives = Lives()
        self._here: list[dict[str, AgentView]] = [{} for _ in range(num_gates)]
        self._read_s = [0.0] * num_gates
        self._read = [0] * num_gates  # by gate: the number of its last reading
        self._num_read = 0
        self._gone: dict[str, _Gone] = {}

    def observe(self, snapshot: Snapshot, gate: int = 0) -> int:
        """Take in the calls that have ended and the agents that have left; return how many calls."""
        here = {agent.agent_id: agent for agent in snapshot.agents}
        known = self._here[gate] | here
        for call in snapshot.calls:
            agent = known.get(call.agent_id)
            self.calls.add(call, prefix_tokens(agent) if agent is not None else 0)
        calls_made = {call.agent_id: call.call_index + 1 for call in snapshot.calls}
        self._num_read += 1
        self._read[gate], self._read_s[gate] = self._num_read, snapshot.time_s
        for agent_id in (self._here[gate].keys() | calls_made.keys()) - here.keys():
            was = self._here[gate].get(agent_id)
            num_calls = max(calls_made.get(agent_id, 0), was.steps_done if was is not None else 0)
            self._gone[agent_id] = _Gone(num_calls, self._num_read)
        self._here[gate] = here
        self._bury(snapshot.time_s)
        ages = [agent.steps_done for number in self._heard(snapshot.time_s) for agent in self._at(number)]
        self.lives.see(ages)
        return len(snapshot.calls)

    def _at(self, gate: int) -> list[AgentView]:
        return list(self._here[gate].values())

    def _heard(self, time_s: float) -> list[int]:
        """Return the gates whose last readings still say something."""
        return [gate for gate, read_s in enumerate(self._read_s) if time_s - read_s <= _SILENT_S]

    def _bury(self, time_s: float) -> None:
        """End the lives of those whom no gate has seen since one of them missed them."""
        heard = self._heard(time_s)
        for agent_id in sorted(self._gone):
            gone = self._gone[agent_id]
            if any(agent_id in self._here[number] for number in heard):
                del self._gone[agent_id]
            elif all(self._read[number] >= gone.noticed for number in heard):
                del self._gone[agent_id]
                if gone.num_calls:
                    self.lives.ended(gone.num_calls)
                self.calls.left(agent_id)
