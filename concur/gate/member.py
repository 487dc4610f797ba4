"""What the gate keeps of one agent, and the orders that choose among agents."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Self

from concur.errors import require
from concur.orders import Order, longest_waiting, oldest, youngest
from concur.signals import AgentView, Prefix

MOST_TOKENS: Final = 10**9
"""No context is longer: such a number is a mistake."""


class Slot(Enum):
    """Where an agent stands; see `concur.gate.agents` for how it gets from one to the other."""

    WAITING = auto()  # never admitted
    ACTIVE = auto()  # holds a slot
    LENT = auto()  # its slot is with a descendant
    PAUSED = auto()  # admitted before, holds none


@dataclass(frozen=True, slots=True)
class GateOrders:
    """Choose who is admitted, resumed and paused first; every default is ours (the paper names none)."""

    admit: Order = longest_waiting
    resume: Order = oldest
    pause: Order = youngest


@dataclass(slots=True, eq=False)
class Member:
    """One agent at the gate; mutable, private to the gate.

    `num_calls` are in flight, `num_asking` wait for their turn, the first of them since `waiting_since_s`.
    `idle_s` passed between the end of its last call and its next request. `heard_s`: when it last
    asked or ended a call. `gave_up`: (since when it had waited, when it gave up) until its next turn.
    `ticket` numbers its valid entry in the queues; 0 when it has none.
    """

    agent_id: str
    index: int
    arrived_s: float
    prefix_group: str | None
    shared_prefix_tokens: int
    parent: Self | None
    heard_s: float
    outer_prefixes: tuple[Prefix, ...] = ()
    fork: Prefix | None = None
    children: list[Self] = field(default_factory=list)
    slot: Slot = Slot.WAITING
    admitted_s: float | None = None
    waiting_since_s: float | None = None
    gave_up: tuple[float, float] | None = None
    context_tokens: int = 0
    steps_done: int = 0
    call_tokens: int = 0  # private tokens after each call, summed over its calls
    num_calls: int = 0
    num_asking: int = 0
    num_pauses: int = 0
    burst_tokens: int = 0
    idle_s: float | None = None
    must_pause: bool = False
    held_tokens: float = 0.0  # that the gate has booked for it
    borrowed_from: Self | None = None
    lent_to: Self | None = None
    ticket: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether it neither makes a call nor asks for one."""
        return not self.num_calls and not self.num_asking

    @property
    def is_of_admitted_tree(self) -> bool:
        """Whether it or an ancestor has been admitted."""
        member: Member | None = self
        while member is not None:
            if member.admitted_s is not None:
                return True
            member = member.parent
        return False

    def ask(self, *, time_s: float, ask_again_s: float) -> float:
        """Ask for one more call, and return since when it counts as asked for.

        Who gave up less than `ask_again_s` ago has waited all along.
        """
        since_s = time_s
        if self.gave_up is not None and time_s - self.gave_up[1] <= ask_again_s:
            since_s = self.gave_up[0]
        if self.waiting_since_s is None or since_s < self.waiting_since_s:
            self.waiting_since_s = since_s
        if self.is_idle and self.steps_done:
            self.idle_s = time_s - self.heard_s
        self.num_asking += 1
        self.heard_s = time_s
        return since_s

    def give_up(self, *, time_s: float) -> None:
        """Take back one of the calls that it asks for."""
        self.num_asking -= 1
        self.heard_s = time_s
        if not self.num_asking:
            assert self.waiting_since_s is not None
            self.gave_up = (self.waiting_since_s, time_s)
            self.waiting_since_s = None

    def begin_call(self) -> None:
        """Begin one of the calls that it asks for."""
        if not self.num_calls:
            self.burst_tokens = 0
        self.num_asking -= 1
        self.num_calls += 1
        self.gave_up = None
        if not self.num_asking:
            self.waiting_since_s = None

    def end_call(self, context_tokens: int | None) -> None:
        """End a call; of calls that overlap the longest counts, and `None` leaves the context as it was.

        A short call beside the main one (a title, a sub-query) must not make the history look short.
        """
        tokens = self.context_tokens if context_tokens is None else context_tokens
        self.num_calls -= 1
        self.burst_tokens = max(self.burst_tokens, tokens)
        self.context_tokens = max(self.context_tokens, tokens) if self.num_calls else self.burst_tokens

    def last_heard_s(self, time_s: float) -> float:
        """Return when it or a descendant was last heard of; `time_s` if one of them calls or asks now."""
        if not self.is_idle:
            return time_s
        return max([self.heard_s, *(child.last_heard_s(time_s) for child in self.children)])

    def view(self) -> AgentView:
        """Return what others may know of it."""
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
            is_in_step=self.num_calls > 0,
            holds_slot=self.slot is Slot.ACTIVE,
            num_calls=self.num_calls,
            parent=self.parent.agent_id if self.parent is not None else None,
            lends_slot=self.slot is Slot.LENT,
            outer_prefixes=self.outer_prefixes,
            fork=self.fork,
            heard_s=self.heard_s,
        )


def check_tokens(name: str, value: object) -> int:
    """Return a count of tokens as it came in; `bool` and `float` are none.

    Raises
    ------
    ParameterError
        If it is not a whole number from 0 to `MOST_TOKENS`.
    """
    is_whole = hasattr(value, "__index__") and not isinstance(value, bool)
    require(
        is_whole and 0 <= value.__index__() <= MOST_TOKENS,  # type: ignore[attr-defined]
        name,
        value,
        f"a whole number of tokens, 0 to {MOST_TOKENS:,}",
        "give prompt + output of the answer, `usage.total_tokens`; when streaming, ask for "
        'stream_options={"include_usage": true}',
    )
    return int(value.__index__())  # type: ignore[attr-defined]
