"""Slots belong to calls: the request-level baseline, longest waiting first.

An agent in a tool wait holds no slot, so other agents' calls go through in the meantime and evict its
history: that is what agent-level control avoids. A call never waits for another one, so families cannot
dead-lock here, and a slot is never idle, so there are no leases.
"""

import heapq
from collections import defaultdict

from concur.gate.base import Gate
from concur.gate.member import Member, Slot
from concur.signals import Usage


class RequestGate(Gate):
    """Hold slots for calls. `paused` counts admitted agents without a call in flight."""

    def __init__(self, window: int, *, max_wait_s: float = 1800.0, ask_again_s: float = 60.0) -> None:
        super().__init__(window, max_wait_s=max_wait_s, ask_again_s=ask_again_s)
        self._num_calls = 0
        self._num_holding = 0
        self._last_number = 0
        self._num_asks = 0
        self._heap: list[tuple[float, int, int, Member]] = []  # since when, then by arrival, then by number
        self._asks: defaultdict[str, list[int]] = defaultdict(list)  # of each agent that asks: their numbers

    @property
    def active(self) -> int:
        """Number of calls in flight."""
        return self._num_calls

    @property
    def paused(self) -> int:
        """Number of agents that were admitted before and make no call now."""
        return len(self._members) - self._num_holding - self._num_waiting

    def request_step(self, agent_id: str, *, time_s: float) -> list[str]:
        """Ask for a call of the agent, its next one or one beside those in flight."""
        member, since_s = self._ask(agent_id, time_s)
        self._num_asks += 1
        self._last_number += 1
        self._asks[agent_id].append(self._last_number)
        heapq.heappush(self._heap, (since_s, member.index, self._last_number, member))
        return self._settle(time_s)

    def withdraw(self, agent_id: str, *, time_s: float) -> list[str]:
        """Take back one request for a call, the last one made."""
        self._take_back(agent_id, time_s)
        self._asks[agent_id].pop()
        self._num_asks -= 1
        self._drop_stale()
        return []

    def leave(
        self, agent_id: str, *, time_s: float, context_tokens: int | None = None, usage: Usage | None = None
    ) -> list[str]:
        """Let the agent go; the slots of its calls pass on at once."""
        member = self._remove(agent_id, time_s=time_s, context_tokens=context_tokens, usage=usage)
        self._num_waiting -= member.slot is Slot.WAITING
        self._num_holding -= member.num_calls > 0
        self._num_calls -= member.num_calls
        self._num_asks -= len(self._asks.pop(agent_id, ()))
        self._drop_stale()
        return self._settle(time_s)

    def _after_call(self, member: Member, time_s: float) -> list[str]:
        """Let the call's slot pass on."""
        self._num_calls -= 1
        if not member.num_calls:
            self._num_holding -= 1
            member.slot = Slot.PAUSED
        return self._settle(time_s)

    def _settle(self, time_s: float) -> list[str]:
        """Let those begin who have waited the longest, as far as there are slots."""
        granted: list[str] = []
        while self._heap and self._num_calls < self.window:
            *_, number, member = heapq.heappop(self._heap)
            if number in self._asks.get(member.agent_id, ()):
                self._asks[member.agent_id].remove(number)
                self._num_asks -= 1
                self._take_slot(member, time_s)
                granted.append(member.agent_id)
        return granted

    def _take_slot(self, member: Member, time_s: float) -> None:
        self._num_waiting -= member.slot is Slot.WAITING
        if not member.num_calls:
            self._num_holding += 1
        member.slot = Slot.ACTIVE
        if member.admitted_s is None:
            member.admitted_s = time_s
        self._num_calls += 1
        member.begin_call()

    def _drop_stale(self) -> None:
        """Clean up what nobody waits for any more, once it is more than half of the queue."""
        if len(self._heap) > 2 * self._num_asks + 64:
            self._heap = [ask for ask in self._heap if ask[2] in self._asks.get(ask[3].agent_id, ())]
            heapq.heapify(self._heap)
