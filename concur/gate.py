"""The gate: who is in, and who goes next. How many may be in is the controller's business.

A gate is told of events and answers with the agents that may begin their step *now*. It has no clock:
`time_s` is an argument. It never touches a running step: it only says when the next one may begin.

Life of an agent at an `AgentGate`::

    arrive ──> waiting ──(slot)──> active ──(surplus, at a step boundary)──> paused ──(slot)──> active
                                     └──────────────── leave ──> gone

A slot is held for life, tool waits included, because what the slot stands for is the agent's history in
the KV cache (CONCUR, arXiv:2601.22705, Fig. 2b). Free slots go first to *overdue* agents, then to paused
agents that ask for a step, then to paused ones in a tool wait (they have their slot back when they ask), then
to new ones.

Starvation bound (ours): an agent that has waited for `max_wait_s` is overdue, and overdue agents take
every freed slot before anyone else, longest-waiting first. With the default orders nobody starves even
without that rule: the oldest active agent is never paused while the window is at least 1, so it ends,
and the next oldest takes its place.
"""

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from concur.errors import GateError, require
from concur.ledger import private_tokens
from concur.orders import Order, longest_waiting, oldest, youngest
from concur.signals import AgentView, Departures


class _Slot(Enum):
    WAITING = auto()  # never admitted
    ACTIVE = auto()  # holds a slot
    PAUSED = auto()  # admitted before, holds none


@dataclass(frozen=True, slots=True)
class GateOrders:
    """Choose who is admitted, resumed and paused first; every default is ours (the paper names none)."""

    admit: Order = longest_waiting
    resume: Order = oldest
    pause: Order = youngest


@dataclass(slots=True, eq=False)
class _Member:
    """One agent at the gate; mutable, private to the gate."""

    agent_id: str
    index: int
    arrived_s: float
    prefix_group: str | None
    shared_prefix_tokens: int
    slot: _Slot = _Slot.WAITING
    admitted_s: float | None = None
    waiting_since_s: float | None = None
    context_tokens: int = 0
    steps_done: int = 0
    call_tokens: int = 0  # private tokens after each call, summed over its calls
    is_in_step: bool = False
    num_pauses: int = 0
    ticket: int = 0  # of its valid entry in the queues; 0 when it has none

    def view(self) -> AgentView:
        return AgentView(
            agent_id=self.agent_id,
            index=self.index,
            arrived_s=self.arrived_s,
            admitted_s=self.admitted_s,
            waiting_since_s=self.waiting_since_s,
            context_tokens=self.context_tokens,
            steps_done=self.steps_done,
            prefix_group=self.prefix_group,
            shared_prefix_tokens=self.shared_prefix_tokens,
            is_in_step=self.is_in_step,
            holds_slot=self.slot is _Slot.ACTIVE,
        )


class _Queue:
    """Agents waiting for a slot, by order key; taking one out of turn is lazy. O(log n) per operation."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._heap: list[tuple[tuple[float, int], int, _Member]] = []

    def push(self, member: _Member) -> None:
        heapq.heappush(self._heap, (self._order(member.view()), member.ticket, member))

    def pop(self) -> _Member | None:
        while self._heap:
            _, ticket, member = heapq.heappop(self._heap)
            if member.ticket == ticket:
                return member
        return None


class Gate(ABC):
    """Hold slots and queues; subclasses say when a slot is taken and given back.

    Every event returns the ids of the agents that may begin their step now, in wake order.
    """

    def __init__(self, window: int, *, orders: GateOrders | None = None, max_wait_s: float = 1800.0) -> None:
        require(window >= 1, "window", window, "at least 1", "a window of 0 would admit nobody, ever")
        require(max_wait_s > 0, "max_wait_s", max_wait_s, "greater than 0 s")
        self.window = window
        self.max_wait_s = max_wait_s
        self._orders = orders or GateOrders()
        self._members: dict[str, _Member] = {}
        self._active: dict[str, _Member] = {}
        self._paused = _Queue(self._orders.resume)  # and asking for a step
        self._idle = _Queue(self._orders.resume)  # paused between two steps, not asking yet
        self._new = _Queue(self._orders.admit)
        self._by_wait: deque[tuple[int, float, _Member]] = deque()
        self._num_arrived = 0
        self._num_tickets = 0
        self._num_waiting = 0
        self._departed = Departures()

    @property
    def departed(self) -> Departures:
        """What the agents that have left after they held a slot did, all together."""
        return self._departed

    @property
    def active(self) -> int:
        """Number of agents that hold a slot."""
        return len(self._active)

    @property
    def paused(self) -> int:
        """Number of agents that were admitted before and hold no slot now."""
        return len(self._members) - len(self._active) - self._num_waiting

    @property
    def waiting(self) -> int:
        """Number of agents that have arrived and were never admitted."""
        return self._num_waiting

    def num_pauses(self, agent_id: str) -> int:
        """Return how often the agent lost its slot; it must not have left."""
        return self._member(agent_id).num_pauses

    def admitted_s(self, agent_id: str) -> float | None:
        """Return when the agent got its first slot, or `None`; it must not have left."""
        return self._member(agent_id).admitted_s

    def views(self) -> Iterator[AgentView]:
        """Yield every agent that has arrived and not left, in order of arrival."""
        return (member.view() for member in self._members.values())

    def arrive(
        self,
        agent_id: str,
        *,
        time_s: float,
        prefix_group: str | None = None,
        shared_prefix_tokens: int = 0,
    ) -> None:
        """Register an agent; it takes no slot before its first `request_step`.

        Raises
        ------
        GateError
            If the agent is already here.
        """
        if agent_id in self._members:
            raise GateError(f"agent {agent_id!r} arrived twice; agent ids must be unique")
        self._members[agent_id] = _Member(
            agent_id, self._num_arrived, time_s, prefix_group, shared_prefix_tokens
        )
        self._num_arrived += 1
        self._num_waiting += 1

    def request_step(self, agent_id: str, *, time_s: float) -> list[str]:
        """Ask for the agent's next step, at a step boundary."""
        member = self._member(agent_id)
        if member.is_in_step or member.waiting_since_s is not None:
            raise GateError(f"agent {agent_id!r} asked for a step before its last one ended")
        if member.slot is _Slot.ACTIVE:
            member.is_in_step = True
            return [agent_id]
        if len(self._active) < self.window and not self.paused:  # a free slot that nobody else has a claim to
            member.waiting_since_s = time_s
            self._take_slot(member, time_s)
            return [agent_id]
        self._enqueue(member, time_s)
        return self._fill(time_s)

    @abstractmethod
    def step_done(self, agent_id: str, *, time_s: float, context_tokens: int) -> list[str]:
        """Report the end of the agent's step and its context length, `usage` of the response."""

    @abstractmethod
    def resize(self, window: int, *, time_s: float) -> list[str]:
        """Set the window."""

    def withdraw(self, agent_id: str) -> None:
        """Take back the agent's request for a step: whoever made it gave up waiting.

        Raises
        ------
        GateError
            If the agent is not waiting.
        """
        member = self._member(agent_id)
        if member.waiting_since_s is None:
            raise GateError(f"agent {agent_id!r} took back a step that it is not waiting for")
        member.waiting_since_s = None
        member.ticket = 0  # its queue entries are stale from now on

    def leave(self, agent_id: str, *, time_s: float, context_tokens: int | None = None) -> list[str]:
        """Let the agent go, whether it ended well or failed; its slot passes on at once.

        `context_tokens` is `usage` of the call that it leaves in, if it leaves in one and that has answered.
        """
        member = self._member(agent_id)
        self._count_departure(member, context_tokens)
        del self._members[agent_id]
        self._active.pop(agent_id, None)
        self._num_waiting -= member.slot is _Slot.WAITING
        member.ticket = 0  # its queue entries are stale from now on
        return self._fill(time_s)

    def _member(self, agent_id: str) -> _Member:
        if agent_id not in self._members:
            raise GateError(f"agent {agent_id!r} is not at the gate; it must arrive first")
        return self._members[agent_id]

    def _end_step(self, agent_id: str, context_tokens: int) -> _Member:
        member = self._member(agent_id)
        if not member.is_in_step:
            raise GateError(f"agent {agent_id!r} ended a step that it had not begun")
        member.is_in_step = False
        member.steps_done += 1
        member.context_tokens = context_tokens
        member.call_tokens += private_tokens(member.view())
        return member

    def _count_departure(self, member: _Member, context_tokens: int | None) -> None:
        if member.admitted_s is None:
            return
        if context_tokens is not None:
            member.context_tokens = context_tokens
        tokens, last_calls, sums = private_tokens(member.view()), int(member.is_in_step), self._departed
        self._departed = Departures(
            agents=sums.agents + 1,
            calls=sums.calls + member.steps_done + last_calls,
            tokens=sums.tokens + tokens,
            call_tokens=sums.call_tokens + member.call_tokens + last_calls * tokens,
        )

    def _enqueue(self, member: _Member, time_s: float) -> None:
        self._give_ticket(member)
        member.waiting_since_s = time_s
        (self._new if member.slot is _Slot.WAITING else self._paused).push(member)
        self._by_wait.append((member.ticket, time_s, member))

    def _give_ticket(self, member: _Member) -> None:
        """Make every entry that the member has in a queue stale, and number the next one."""
        self._num_tickets += 1
        member.ticket = self._num_tickets

    def _release(self, member: _Member) -> None:
        member.slot = _Slot.PAUSED
        del self._active[member.agent_id]

    def _fill(self, time_s: float) -> list[str]:
        granted = []
        while len(self._active) < self.window:
            member = self._overdue(time_s) or self._paused.pop() or self._idle.pop() or self._new.pop()
            if member is None:
                break
            if self._take_slot(member, time_s):
                granted.append(member.agent_id)
        return granted

    def _take_slot(self, member: _Member, time_s: float) -> bool:
        """Give the agent a slot; `True` if it asked for a step, which then begins."""
        self._num_waiting -= member.slot is _Slot.WAITING
        member.slot = _Slot.ACTIVE
        if member.admitted_s is None:
            member.admitted_s = time_s
        self._active[member.agent_id] = member
        member.ticket = 0
        member.is_in_step = member.waiting_since_s is not None
        member.waiting_since_s = None
        return member.is_in_step

    def _overdue(self, time_s: float) -> _Member | None:
        queue = self._by_wait
        while queue and queue[0][2].ticket != queue[0][0]:
            queue.popleft()
        if queue and time_s - queue[0][1] >= self.max_wait_s:
            return queue.popleft()[2]
        return None


class AgentGate(Gate):
    """Slots belong to agents, for life: the gate of agent-level control."""

    def step_done(self, agent_id: str, *, time_s: float, context_tokens: int) -> list[str]:
        """Report the end of the agent's step; the agent pauses here if it is in surplus."""
        member = self._end_step(agent_id, context_tokens)
        if member in self._surplus():
            self._pause(member)
        return self._fill(time_s)

    def resize(self, window: int, *, time_s: float) -> list[str]:
        """Set the window; surplus agents between two steps pause now, the others when their step ends."""
        require(window >= 1, "window", window, "at least 1")
        self.window = window
        for member in self._surplus():
            if not member.is_in_step:
                self._pause(member)
        return self._fill(time_s)

    def withdraw(self, agent_id: str) -> None:
        """Take back the agent's request for a step; a paused agent is as in a tool wait again."""
        super().withdraw(agent_id)
        member = self._member(agent_id)
        if member.slot is _Slot.PAUSED:
            self._give_ticket(member)
            self._idle.push(member)

    def _surplus(self) -> list[_Member]:
        surplus = len(self._active) - self.window
        if surplus <= 0:
            return []
        return heapq.nsmallest(
            surplus, self._active.values(), key=lambda member: self._orders.pause(member.view())
        )

    def _pause(self, member: _Member) -> None:
        self._release(member)
        member.num_pauses += 1
        self._give_ticket(member)
        self._idle.push(member)


class RequestGate(Gate):
    """Slots belong to calls: the request-level baseline, first come, first served.

    An agent in a tool wait holds no slot, so other agents' calls go through in the meantime and evict its
    history: that is what agent-level control avoids. `paused` counts agents between two calls.
    """

    def __init__(self, window: int, *, max_wait_s: float = 1800.0) -> None:
        super().__init__(window, orders=GateOrders(longest_waiting, longest_waiting), max_wait_s=max_wait_s)
        self._new = self._paused  # one queue: a call is a call

    def step_done(self, agent_id: str, *, time_s: float, context_tokens: int) -> list[str]:
        """Report the end of the call; its slot passes on."""
        self._release(self._end_step(agent_id, context_tokens))
        return self._fill(time_s)

    def resize(self, window: int, *, time_s: float) -> list[str]:
        """Set the window; calls that run are left to end."""
        require(window >= 1, "window", window, "at least 1")
        self.window = window
        return self._fill(time_s)
