"""Slots belong to agents, for life: the gate of agent-level control.

::

    arrive ──> waiting ──(slot)──> active ──(surplus, at a step boundary; lease)──> paused ──(slot)──> active
                                   │    ^
                            (lends)v    │(given back)             leave, from anywhere ──> gone
                                   lent ┘

A slot is held for life, tool waits included, because what the slot stands for is the agent's history in
the KV cache (CONCUR, arXiv:2601.22705, Fig. 2b). Free slots go first to *overdue* agents, then to paused
agents that ask for a call, then to paused ones in a tool wait (they have their slot back when they ask), then
to new ones.

**Surplus.** Who has to pause is chosen when the window shrinks, and stands: each of them pauses at its next
step boundary, the moment at which no call of it is in flight; until then it begins no further call.

**Sub-agents.** While an agent makes no call, a descendant that asks may have its slot: the agent *lends* it.
The slot comes back when the descendant leaves or falls silent, and at its next step boundary if the lender
asks. (A sub-make of GNU make runs in its parent's job slot in the same way.) So no window dead-locks parents
against children. Whoever asks in vain meets slots that are in use: by calls, which end; by agents in tool
waits of their own, which end too, or fall silent; or by agents that wait for children. Of those children none
asks, or it would have been lent the slot; so each makes a call, or waits for a tool, or for children of its
own, and the last of that line does not wait for the gate. Descendants of an admitted agent queue with the
paused agents, for they are part of its work.

**Tokens.** A law may bound, beside the number of slots, the tokens that their agents keep in the cache
(`TokenBudget`). Slots are then free only for whom the budget has room, in the same order: who does not fit
is waited for, not passed over, and comes in at the latest when nobody else is in. Over the budget the surplus
pauses as under a smaller window. Loans to sub-agents do not ask the budget, or trees could dead-lock; what
they bring counts like all else.

**Leases.** An agent is *silent* while neither it nor a descendant makes a call or asks for one. After
`lease_s` its slot goes to others; its history stays in the books while it is here, for it may still be
resident. If it comes back it queues as a paused agent. A running call is never silent.

**Starvation bound** (ours): an agent that has waited for `max_wait_s` is overdue, and overdue agents take
every freed slot before anyone else, longest-waiting first. With the default orders nobody starves even
without that rule: the oldest active agent is never paused while the window is at least 1, so it ends,
and the next oldest takes its place.
"""

import heapq
import math
from typing import Final

from concur.errors import require
from concur.gate.base import Gate
from concur.gate.books import Books
from concur.gate.lending import asking_lender, close_loan, descendants, holder
from concur.gate.member import GateOrders, Member, Slot
from concur.gate.queues import Queue
from concur.orders import OrderKey
from concur.signals import Usage

LEASE_S: Final = 600.0
"""Default lease, ours: tools rarely take ten minutes, and under load no cache keeps a history so long."""


class AgentGate(Gate):
    """Hold slots for agents; see the module docstring for the rules."""

    def __init__(
        self,
        window: int,
        *,
        orders: GateOrders | None = None,
        max_wait_s: float = 1800.0,
        ask_again_s: float = 60.0,
        lease_s: float = LEASE_S,
    ) -> None:
        super().__init__(window, max_wait_s=max_wait_s, ask_again_s=ask_again_s)
        require(lease_s > 0, "lease_s", lease_s, "greater than 0 s", "inf takes no slot back, ever")
        self.lease_s = lease_s
        self._orders = orders or GateOrders()
        self._active: dict[str, Member] = {}
        self._must_pause: dict[str, Member] = {}  # of the active ones, the surplus
        self._num_lent = 0
        self._is_over = False  # the budget, since it was exceeded
        self._books = Books()
        self._num_tickets = 0
        self._paused = Queue(self._resume_key)  # asking, and admitted before or of an admitted tree
        self._idle = Queue(self._resume_key)  # paused in a tool wait
        self._new = Queue(lambda member: self._orders.admit(member.view()))
        self._by_wait = Queue(_waiting_key)
        self._lease_check_s = math.inf
        self._unserved: list[Member] = []  # who asks since this event, and got nothing yet

    @property
    def active(self) -> int:
        """Number of agents that hold a slot."""
        return len(self._active)

    @property
    def paused(self) -> int:
        """Number of agents that were admitted before and hold no slot now, nor lend one."""
        return len(self._members) - len(self._active) - self._num_waiting - self._num_lent

    @property
    def lent(self) -> int:
        """Number of agents whose slot is with a descendant."""
        return self._num_lent

    @property
    def next_lease_s(self) -> float:
        """Time before which no lease runs out, so that `expire` need not be called."""
        return self._lease_check_s

    @property
    def room_frac(self) -> float:
        """Share of what it may let in that is free: of the slots or of the tokens, whichever is less."""
        return min(super().room_frac, 1.0 - self._books.tokens / self.budget.admit_tokens)

    def has_room(self, tokens: float) -> bool:
        """Tell whether somebody with so many private tokens who came and asked would begin at once."""
        claims = self._paused.first() or self._idle.first() or self._new.first()
        if len(self._active) >= self.window or claims is not None:
            return False
        kept = max(tokens, self.budget.newcomer_tokens)
        return not self._active or self._books.tokens + kept <= self.budget.admit_tokens

    def request_step(self, agent_id: str, *, time_s: float) -> list[str]:
        """Ask for a call of the agent, its next one or one beside those in flight."""
        was_asking = self._member(agent_id).num_asking > 0
        member, _ = self._ask(agent_id, time_s)
        if member.slot is Slot.ACTIVE:
            return self._resume(member)
        is_free = len(self._active) < self.window and not self.paused  # and nobody else has a claim to it
        if is_free and self._has_room(member):
            return self._take_slot(member, time_s)
        if not was_asking:
            self._enqueue(member)
        return self._settle(time_s)

    def withdraw(self, agent_id: str, *, time_s: float) -> list[str]:
        """Take back one request for a call; a paused agent is as in a tool wait again."""
        member = self._take_back(agent_id, time_s)
        if member.num_asking or member.slot is Slot.ACTIVE:
            return []
        member.ticket = 0
        if member.slot is Slot.PAUSED:
            self._queue_idle(member)
        return self._resume(holder(member)) if member.slot is Slot.LENT else []

    def leave(
        self, agent_id: str, *, time_s: float, context_tokens: int | None = None, usage: Usage | None = None
    ) -> list[str]:
        """Let the agent go, whether it ended well or failed; its slot passes on at once."""
        member = self._remove(agent_id, time_s=time_s, context_tokens=context_tokens, usage=usage)
        granted: list[str] = []
        if member.slot is Slot.WAITING:
            self._num_waiting -= 1
        elif member.slot is Slot.LENT:
            self._num_lent -= 1
            self._books.strike(member)
            granted = self._resume(close_loan(member))
        elif member.slot is Slot.ACTIVE:
            granted = self._hand_back(member, time_s)
        return granted + self._settle(time_s)

    def expire(self, *, time_s: float) -> list[str]:
        """Take back the slots of agents that have been silent for `lease_s`."""
        if time_s < self._lease_check_s:
            return []
        self._lease_check_s = math.inf
        granted: list[str] = []
        for member in list(self._active.values()):
            granted += self._expire(member, time_s)
        return granted + self._settle(time_s)

    # Slots.

    def _take_slot(self, member: Member, time_s: float) -> list[str]:
        """Give the agent a slot; its calls begin, or, if it asks for none, a descendant's may."""
        borrower = None
        if member.slot is Slot.WAITING:
            self._num_waiting -= 1
        elif member.slot is Slot.LENT:
            self._num_lent -= 1
            borrower = close_loan(member) if member.lent_to is not None else None
        member.slot = Slot.ACTIVE
        if member.admitted_s is None:
            member.admitted_s = time_s
        member.ticket = 0
        self._active[member.agent_id] = member
        self._books.enter(member)
        granted = self._resume(member) if member.num_asking else self._lend_or_keep(member, time_s)
        return granted + self._resume(borrower) if borrower is not None else granted

    def _resume(self, member: Member) -> list[str]:
        """Let every call begin that an active agent asks for and may make."""
        if member.num_calls and (member.must_pause or asking_lender(member) is not None):
            return []  # not before its step boundary
        granted = [member.agent_id] * member.num_asking
        for _ in granted:
            member.begin_call()
        return granted

    def _end_slot(self, member: Member) -> None:
        """Take an active agent off the list of slots."""
        del self._active[member.agent_id]
        self._must_pause.pop(member.agent_id, None)
        member.must_pause = False

    def _pause(self, member: Member, *, below: Member | None = None) -> None:
        """Pause an active agent, and the lenders of its slot, but `below`, who gets it, and those above."""
        self._end_slot(member)
        self._pause_line(member, below)

    def _pause_line(self, member: Member | None, below: Member | None) -> None:
        while member is not None and member is not below:
            lender = member.borrowed_from
            if lender is not None:
                lender.lent_to = member.borrowed_from = None
            self._num_lent -= member.slot is Slot.LENT
            member.slot = Slot.PAUSED
            self._books.strike(member)
            member.num_pauses += 1
            if member.num_asking:
                self._enqueue(member)
            else:
                self._queue_idle(member)
            member = lender

    def _hand_back(self, member: Member, time_s: float) -> list[str]:
        """Pass the slot of an active agent that has left to its lender, unless it is surplus."""
        lender, is_surplus = member.borrowed_from, member.must_pause
        self._end_slot(member)
        self._books.strike(member)
        if lender is None:
            return []
        lender.lent_to = None
        if not is_surplus:
            return self._take_slot(lender, time_s)
        self._pause_line(lender, None)
        return []

    # Step boundaries.

    def _after_call(self, member: Member, time_s: float) -> list[str]:
        """Decide at a step boundary: the agent has no other call in flight."""
        if member.slot is Slot.ACTIVE or member.slot is Slot.LENT:
            self._books.enter(member)
        granted = self._at_boundary(member, time_s) if not member.num_calls else []
        return granted + self._settle(time_s)

    def _at_boundary(self, member: Member, time_s: float) -> list[str]:
        """Decide what becomes of the slot of an active agent that has no call in flight."""
        if member.must_pause:
            self._pause(member)
            return []
        lender = asking_lender(member)
        if lender is None:
            return self._resume(member) if member.num_asking else self._lend_or_keep(member, time_s)
        self._pause(member, below=lender)
        return self._take_slot(lender, time_s)

    def _settle(self, time_s: float) -> list[str]:
        """Bring slots and window together, after every event: surplus, free slots, families."""
        self._books.newcomer_tokens = self.budget.newcomer_tokens
        granted = self._mark_surplus(time_s)
        while len(self._active) < self.window:
            member = self._next(time_s)
            if member is None:
                break
            granted += self._take_slot(member, time_s)
        while self._unserved:
            granted += self._ask_the_family(self._unserved.pop(), time_s)
        return granted

    def _mark_surplus(self, time_s: float) -> list[str]:
        """Have exactly the surplus marked to pause; those without a call in flight pause at once.

        Marks stand once they are made: under an order whose keys change from step to step, agents could
        otherwise hand their marks around for ever.
        """
        granted: list[str] = []
        missing = self._num_missing()
        if missing > 0:
            others = (member for member in self._active.values() if not member.must_pause)
            for member in heapq.nsmallest(missing, others, key=self._pause_key):
                member.must_pause = True
                self._must_pause[member.agent_id] = member
                if not member.num_calls:
                    self._at_boundary(member, time_s)
        elif missing < 0:
            for member in heapq.nlargest(-missing, self._must_pause.values(), key=self._pause_key):
                member.must_pause = False
                del self._must_pause[member.agent_id]
                granted += self._resume(member)
        return granted

    def _num_missing(self) -> int:
        """Return how many more have to be marked, or, below zero, how many marks are to be taken back."""
        surplus = max(0, len(self._active) - self.window, self._token_surplus())
        return surplus - len(self._must_pause)

    def _token_surplus(self) -> int:
        """Return how many must pause for the rest to fit, once the budget is exceeded and until all fit."""
        budget, books = self.budget, self._books
        self._is_over = books.tokens > (budget.admit_tokens if self._is_over else budget.pause_tokens)
        if not self._is_over:
            return 0
        by_pause = sorted(
            self._active.values(), key=lambda member: (not member.must_pause, self._pause_key(member))
        )
        return books.num_to_strike(by_pause[:-1], budget.admit_tokens)

    def _next(self, time_s: float) -> Member | None:
        """Take whoever comes next off its queue; nobody passes one for whom the budget has no room."""
        if (member := self._overdue(time_s)) is not None:
            queue = self._by_wait
        elif (member := self._paused.pop()) is not None:
            queue = self._paused
        elif (member := self._pop_idle(time_s)) is not None:
            queue = self._idle
        else:
            member, queue = self._new.pop(), self._new
        if member is None or queue is self._by_wait or self._has_room(member):
            return member
        queue.push(member)
        return None

    def _has_room(self, member: Member) -> bool:
        """Tell whether a member may come in: the budget has room for it, or nobody else is in."""
        return not self._active or self._books.tokens_with(member) <= self.budget.admit_tokens

    # Families.

    def _ask_the_family(self, member: Member, time_s: float) -> list[str]:
        """Find an agent that asks a slot in its family: the one it lent, or the nearest ancestor's."""
        if not member.num_asking or member.slot is Slot.ACTIVE:
            return []
        if member.slot is Slot.LENT and not holder(member).num_calls:
            return self._at_boundary(holder(member), time_s)
        above = member.parent
        while above is not None:
            if above.slot is Slot.ACTIVE and above.is_idle:
                return self._lend(above, member, time_s)
            above = above.parent
        return []

    def _lend_or_keep(self, member: Member, time_s: float) -> list[str]:
        """Lend the slot of an idle agent to the first of its descendants that asks; else it keeps it."""
        asking = (each for each in descendants(member) if each.num_asking and each.slot is not Slot.ACTIVE)
        borrower = min(asking, key=self._resume_key, default=None) if member.children else None
        if borrower is not None:
            return self._lend(member, borrower, time_s)
        self._lease_check_s = min(self._lease_check_s, max(time_s, self._due_s(member, time_s)))
        return []

    def _lend(self, lender: Member, borrower: Member, time_s: float) -> list[str]:
        self._end_slot(lender)
        lender.slot = Slot.LENT
        self._num_lent += 1
        granted = self._take_slot(borrower, time_s)
        lender.lent_to = borrower
        borrower.borrowed_from = lender
        return granted

    def _expire(self, member: Member, time_s: float) -> list[str]:
        """Take the slot of an active agent back if it has been silent for too long, then of who lent it."""
        if member.slot is not Slot.ACTIVE or not member.is_idle:
            return []
        due_s = self._due_s(member, time_s)
        if time_s < due_s:
            self._lease_check_s = min(self._lease_check_s, due_s)
            return []
        lender = member.borrowed_from
        self.num_expired += 1
        self._pause(member, below=lender)
        if lender is None:
            return []
        return self._take_slot(lender, time_s) + self._expire(lender, time_s)

    def _due_s(self, member: Member, time_s: float) -> float:
        """Return when the agent is silent; one sum for all, or rounding would take and give for ever."""
        return member.last_heard_s(time_s) + self.lease_s

    # Queues.

    def _enqueue(self, member: Member) -> None:
        """Queue an agent that asks; its earlier entries become stale."""
        self._give_ticket(member)
        is_new = member.slot is Slot.WAITING and not member.is_of_admitted_tree
        (self._new if is_new else self._paused).push(member)
        self._by_wait.push(member)
        self._unserved.append(member)

    def _queue_idle(self, member: Member) -> None:
        """Queue a paused agent that does not ask."""
        self._give_ticket(member)
        self._idle.push(member)

    def _give_ticket(self, member: Member) -> None:
        self._num_tickets += 1
        member.ticket = self._num_tickets

    def _pop_idle(self, time_s: float) -> Member | None:
        """Take the first paused agent in a tool wait that is not silent; a slot would be lost on those."""
        while (member := self._idle.pop()) is not None:
            if time_s < self._due_s(member, time_s):
                return member
            member.ticket = 0
        return None

    def _overdue(self, time_s: float) -> Member | None:
        member = self._by_wait.first()
        is_overdue = member is not None and time_s - _waiting_key(member)[0] >= self.max_wait_s
        return self._by_wait.pop() if is_overdue else None

    def _resume_key(self, member: Member) -> OrderKey:
        return self._orders.resume(member.view())

    def _pause_key(self, member: Member) -> OrderKey:
        return self._orders.pause(member.view())


def _waiting_key(member: Member) -> OrderKey:
    assert member.waiting_since_s is not None
    return (member.waiting_since_s, member.index)
