"""A gate with an observer: after every event, what must hold of it does hold, or the test ends there."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from concur.gate import AgentGate, Gate, RequestGate
from concur.gate.lending import asking_lender
from concur.gate.member import Member, Slot
from concur.measures.residents import private_tokens, read_ledger
from concur.signals import UNBOUNDED

EVENTS = ("request_step", "step_done", "abandon_step", "withdraw", "leave", "resize", "expire")


class Watch:
    """Hand events on to a gate, keep books of its own, and compare.

    `num_events` counts them; `passed` holds the active agents that have been at a step boundary since the
    window was last set. The books are compared after every `check_every`-th event, the grants after each.
    """

    def __init__(self, gate: Gate, *, check_every: int = 1) -> None:
        self.gate = gate
        self.check_every = check_every
        self.num_events = 0
        self.num_lent = 0
        self.num_lapses = 0
        self.here: set[str] = set()
        self.asking: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.passed: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.gate, name)
        return self._watched(name, value) if name in (*EVENTS, "arrive") else value

    def _watched(self, name: str, event: Callable[..., Any]) -> Callable[..., Any]:
        def play(*args: Any, **kwargs: Any) -> Any:
            num_paused = self.gate.paused
            granted = event(*args, **kwargs)
            self.num_events += 1
            self.num_lapses += name == "expire" and self.gate.paused > num_paused
            self._book(name, args[0] if args else None)
            self._check(granted or [])
            return granted

        return play

    def _book(self, name: str, agent: Any) -> None:
        if name == "arrive":
            self.here.add(agent)
        elif name == "request_step":
            self.asking[agent] += 1
        elif name in ("step_done", "abandon_step"):
            self.calls[agent] -= 1
            if not self.calls[agent]:
                self.passed.add(agent)
        elif name == "withdraw":
            self.asking[agent] -= 1
        elif name == "leave":
            self.here.discard(agent)
            for books in (self.asking, self.calls):
                del books[agent]
            self.passed.discard(agent)
        elif name == "resize":
            self.passed = {agent for agent in self.here if not self.calls[agent]}

    def _check(self, granted: list[str]) -> None:
        gate = self.gate
        for agent in granted:
            assert self.asking[agent] > 0, f"{agent} may begin a call that it did not ask for"
            self.asking[agent] -= 1
            self.calls[agent] += 1
        is_full = gate.active >= gate.window or (gate.active > 0 and gate.budget != UNBOUNDED)
        assert is_full or not self.num_asking, "no slot is free while someone asks"
        if self.num_events % self.check_every:
            return
        assert {view.agent_id for view in gate.views()} == self.here
        assert all(view.num_calls == self.calls[view.agent_id] for view in gate.views())
        if isinstance(gate, AgentGate):
            self._check_agents(gate)
        else:
            assert isinstance(gate, RequestGate)
            assert gate.active == sum(self.calls.values())

    @property
    def num_asking(self) -> int:
        """Calls that are asked for."""
        return self.asking.total()

    def _check_agents(self, gate: AgentGate) -> None:
        members = gate._members
        active = {name for name, member in members.items() if member.slot is Slot.ACTIVE}
        assert gate.active == len(active)
        assert gate.active + gate.paused + gate.waiting + gate.lent == len(self.here)
        assert {name for name in self.here if self.calls[name]} <= active, "a call needs a slot"
        assert len(active & self.passed) <= gate.window, "L9: the surplus pauses at its next step boundary"
        self._check_tokens(gate)
        for member in members.values():
            check_family(member)
            check_loan(member)
        for queue in (gate._paused, gate._idle, gate._new, gate._by_wait):
            assert len(queue) <= 2 * len(members) + 2 * 64, "queues hold who is here"
        self.num_lent += gate.lent

    def _check_tokens(self, gate: AgentGate) -> None:
        """The books of tokens are right, and some slot holder may go on."""
        holders = [m for m in gate._members.values() if m.slot in (Slot.ACTIVE, Slot.LENT)]
        ledger = read_ledger([member.view() for member in holders], block_size=0)
        newcomers = sum(member.held_tokens for member in holders if not member.steps_done)
        seen = sum(private_tokens(member) for member in holders if member.steps_done)
        assert gate._books.tokens == pytest.approx(seen + newcomers + ledger.shared_tokens, abs=1e-6)
        assert all(not m.held_tokens for m in gate._members.values() if m not in holders)
        assert len(gate._must_pause) < max(1, gate.active), "someone always stays"

    def check_empty(self) -> None:
        """Nothing is held when nobody is here."""
        gate = self.gate
        assert (gate.active, gate.paused, gate.waiting, gate.lent) == (0, 0, 0, 0)
        assert not gate._members
        if isinstance(gate, AgentGate):
            assert not gate._active
            assert not gate._must_pause
            assert not gate._unserved
            assert gate._books.tokens == pytest.approx(0.0, abs=1e-6)
        else:
            assert isinstance(gate, RequestGate)
            assert not any(gate._asks.values())


def check_family(member: Member) -> None:
    """Nobody sits idle on a slot while a descendant asks for one."""
    if member.slot is Slot.ACTIVE and member.is_idle:
        assert not any(asks(child) for child in member.children), f"{member.agent_id} keeps its family out"
    assert all(child.parent is member for child in member.children)


def asks(member: Member) -> bool:
    """Whether it or a descendant waits for a slot."""
    waits = member.num_asking > 0 and member.slot is not Slot.ACTIVE
    return waits or any(asks(child) for child in member.children)


def check_loan(member: Member) -> None:
    """Who lends has a borrower, and the line ends at who has the slot."""
    assert (member.slot is Slot.LENT) == (member.lent_to is not None)
    if member.lent_to is not None:
        assert member.lent_to.borrowed_from is member
        assert member.lent_to.slot in (Slot.ACTIVE, Slot.LENT)
    if member.borrowed_from is not None:
        assert member.borrowed_from.lent_to is member
    assert not (member.must_pause and member.slot is not Slot.ACTIVE)
    if member.slot is Slot.ACTIVE and member.num_asking:
        assert member.must_pause or asking_lender(member), "it may begin the call that it asks for"
