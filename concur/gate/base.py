"""What every gate has: its books, its agents' asking and ending, and what it shows of them."""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from concur.errors import GateError, require
from concur.gate.member import Member, Slot, check_tokens
from concur.gate.moving import Moved
from concur.measures.residents import prefix_tokens, private_tokens
from concur.signals import UNBOUNDED, AgentView, CallView, Departures, Prefix, TokenBudget, Usage

_MOST_CALLS: Final = 10_000  # that are kept for the next decision; more only where nobody decides


class Gate(ABC):
    """Hold slots and queues; subclasses say when a slot is taken and given back.

    Every event returns the ids of the agents that may begin a call now, in wake order, an id as often as that
    agent may begin one. An agent may ask for several calls at once.

    `num_expired`: slots that were taken from silent agents.

    `max_wait_s`: who has waited that long is overdue and comes first. `ask_again_s`: who gives up waiting and
    asks again within that time, even if it left in between, has waited all along.

    Nothing here grows with the number of events: the books hold the agents that are here, and for
    `ask_again_s` those that left while they waited.
    """

    def __init__(self, window: int, *, max_wait_s: float = 1800.0, ask_again_s: float = 60.0) -> None:
        require(window >= 1, "window", window, "at least 1", "a window of 0 would admit nobody, ever")
        require(max_wait_s > 0, "max_wait_s", max_wait_s, "greater than 0 s")
        require(ask_again_s >= 0, "ask_again_s", ask_again_s, "at least 0 s")
        self.window = window
        self.budget = UNBOUNDED
        self.max_wait_s = max_wait_s
        self.ask_again_s = ask_again_s
        self._members: dict[str, Member] = {}
        self._left_waiting: dict[
            str, tuple[float, float]
        ] = {}  # by id, in order of leaving: `Member.gave_up`
        self._num_arrived = 0
        self._num_waiting = 0
        self._departed = Departures()
        self.num_expired = 0
        self._calls: deque[CallView] = deque(maxlen=_MOST_CALLS)

    @property
    def departed(self) -> Departures:
        """What the agents that have left after they held a slot did, all together."""
        return self._departed

    @property
    @abstractmethod
    def active(self) -> int:
        """Number of slots that are taken."""

    @property
    @abstractmethod
    def paused(self) -> int:
        """Number of agents that were admitted before and hold no slot now, nor lend one."""

    @property
    def waiting(self) -> int:
        """Number of agents that have arrived and were never admitted."""
        return self._num_waiting

    @property
    def lent(self) -> int:
        """Number of agents whose slot is with a descendant."""
        return 0

    @property
    def next_lease_s(self) -> float:
        """Time before which `expire` need not be called; infinite while no lease runs."""
        return math.inf

    def num_pauses(self, agent_id: str) -> int:
        """Return how often the agent lost its slot; it must not have left."""
        return self._member(agent_id).num_pauses

    def admitted_s(self, agent_id: str) -> float | None:
        """Return when the agent got its first slot, or `None`; it must not have left."""
        return self._member(agent_id).admitted_s

    def context_tokens(self, agent_id: str) -> int:
        """Return the length of the agent's history, in tokens; it must not have left."""
        return self._member(agent_id).context_tokens

    def holds_slot(self, agent_id: str) -> bool:
        """Tell whether the agent has a slot now; it must not have left."""
        return self._member(agent_id).slot is Slot.ACTIVE

    @property
    def num_members(self) -> int:
        """Number of agents that have arrived and not left."""
        return len(self._members)

    def is_here(self, agent_id: str) -> bool:
        """Tell whether the agent has arrived and not left."""
        return agent_id in self._members

    def views(self) -> Iterator[AgentView]:
        """Yield every agent that has arrived and not left, in order of arrival."""
        return (member.view() for member in self._members.values())

    def arrive(
        self,
        agent_id: str,
        *,
        time_s: float,
        parent: str | None = None,
        prefix_group: str | None = None,
        shared_prefix_tokens: int = 0,
        outer_prefixes: Sequence[Prefix] = (),
        fork: Prefix | None = None,
    ) -> None:
        """Register an agent; it takes no slot before its first `request_step`.

        `parent` is the agent that started it and may wait for it: a sub-agent's. What its history shares with
        others': see `concur.signals.AgentView`.

        Raises
        ------
        GateError
            If the agent is already here, or its parent is not.
        """
        if agent_id in self._members:
            raise GateError(f"agent {agent_id!r} arrived twice; agent ids must be unique")
        check_tokens("shared_prefix_tokens", shared_prefix_tokens)
        for prefix in (*outer_prefixes, *([fork] if fork is not None else [])):
            check_tokens("tokens of a prefix", prefix.tokens)
        above = self._member(parent) if parent is not None else None
        member = Member(
            agent_id,
            self._num_arrived,
            time_s,
            prefix_group,
            shared_prefix_tokens,
            above,
            heard_s=time_s,
            outer_prefixes=tuple(outer_prefixes),
            fork=fork,
        )
        member.gave_up = self._left_waiting.pop(agent_id, None)
        if above is not None:
            above.children.append(member)
        self._members[agent_id] = member
        self._num_arrived += 1
        self._num_waiting += 1

    @abstractmethod
    def request_step(self, agent_id: str, *, time_s: float) -> list[str]:
        """Ask for a call of the agent, its next one or one beside those in flight."""

    def step_done(
        self, agent_id: str, *, time_s: float, context_tokens: int | None = None, usage: Usage | None = None
    ) -> list[str]:
        """Report the end of a call and the context length, `usage` of the response; `None` if it has none.

        `usage` says more, and has the context length too.
        """
        if context_tokens is not None:
            context_tokens = check_tokens("context_tokens", context_tokens)
        if usage is not None:
            context_tokens = self._log_call(self._member(agent_id), usage, time_s)
        member = self._end_call(agent_id, time_s=time_s, context_tokens=context_tokens)
        member.steps_done += 1
        member.call_tokens += private_tokens(member)
        return self._after_call(member, time_s)

    def move_out(self, agent_id: str, *, time_s: float) -> tuple[Moved, list[str]]:
        """Let an agent go to another gate, with all that is known of it; it is no departure.

        Raises
        ------
        GateError
            If a call of it is in flight, or it asks for one.
        """
        member = self._member(agent_id)
        if member.num_calls or member.num_asking:
            raise GateError(
                f"agent {agent_id!r} moves while it calls or asks; end or withdraw its calls before that"
            )
        moved, departed = Moved.of(member), self._departed
        granted = self.leave(agent_id, time_s=time_s)
        self._departed = departed
        self._left_waiting.pop(agent_id, None)
        return moved, granted

    def move_in(self, moved: Moved, *, parent: str | None, time_s: float) -> None:
        """Let an agent arrive from another gate; it takes no slot before its first `request_step` here.

        Whoever was admitted there queues with those who were paused here; who waited there has waited all
        along.

        Raises
        ------
        GateError
            If it is already here, or its parent is not.
        """
        self.arrive(
            moved.agent_id,
            time_s=time_s,
            parent=parent,
            prefix_group=moved.prefix_group,
            shared_prefix_tokens=moved.shared_prefix_tokens,
            outer_prefixes=moved.outer_prefixes,
            fork=moved.fork,
        )
        moved.hand_to(self._members[moved.agent_id])

    def has_room(self, tokens: float) -> bool:
        """Tell whether somebody with so many private tokens who came and asked would begin at once."""
        return self.active < self.window

    @property
    def room_frac(self) -> float:
        """Share of what it may let in that is free, 0 to 1; below 0 while there is a surplus."""
        return 1.0 - self.active / self.window

    def take_calls(self) -> tuple[CallView, ...]:
        """Return the calls that have ended since the last time, the latest few thousand at most."""
        calls = tuple(self._calls)
        self._calls.clear()
        return calls

    def abandon_step(self, agent_id: str, *, time_s: float) -> list[str]:
        """Give back a call that was granted and has not begun: nobody was there to make it."""
        return self._after_call(self._end_call(agent_id, time_s=time_s, context_tokens=None), time_s)

    def resize(self, window: int, *, time_s: float, budget: TokenBudget = UNBOUNDED) -> list[str]:
        """Set the window, and what those in it may keep; no running call is touched."""
        require(window >= 1, "window", window, "at least 1")
        require(0 < budget.admit_tokens <= budget.pause_tokens, "budget", budget, "0 < admit <= pause tokens")
        require(budget.newcomer_tokens >= 0, "newcomer_tokens", budget.newcomer_tokens, "at least 0")
        self.window = window
        self.budget = budget
        return self._settle(time_s)

    @abstractmethod
    def withdraw(self, agent_id: str, *, time_s: float) -> list[str]:
        """Take back one request for a call: whoever made it gave up waiting.

        Raises
        ------
        GateError
            If the agent is not waiting.
        """

    @abstractmethod
    def leave(
        self, agent_id: str, *, time_s: float, context_tokens: int | None = None, usage: Usage | None = None
    ) -> list[str]:
        """Let the agent go, whether it ended well or failed; what it held passes on at once.

        `context_tokens` or `usage` are those of the call that it leaves in, if it leaves in one and that has
        answered.
        """

    def expire(self, *, time_s: float) -> list[str]:
        """Take back the slots of agents that have been silent for too long."""
        return []

    @abstractmethod
    def _after_call(self, member: Member, time_s: float) -> list[str]:
        """Decide what becomes of the slot of a call that has ended."""

    @abstractmethod
    def _settle(self, time_s: float) -> list[str]:
        """Bring slots and window together."""

    def _member(self, agent_id: str) -> Member:
        if agent_id not in self._members:
            raise GateError(f"agent {agent_id!r} is not at the gate; it must arrive first")
        return self._members[agent_id]

    def _ask(self, agent_id: str, time_s: float) -> tuple[Member, float]:
        member = self._member(agent_id)
        return member, member.ask(time_s=time_s, ask_again_s=self.ask_again_s)

    def _log_call(self, member: Member, usage: Usage, time_s: float) -> int:
        """Keep a call for the next decision; return the context length after it."""
        for name in ("prompt_tokens", "output_tokens", "cached_tokens", "kept_tokens"):
            if (tokens := getattr(usage, name)) is not None:
                check_tokens(name, tokens)
        before = member.context_tokens if member.steps_done else prefix_tokens(member)
        kept = usage.prompt_tokens if usage.kept_tokens is None else usage.kept_tokens
        self._calls.append(
            CallView(
                member.agent_id,
                member.steps_done,
                time_s,
                member.idle_s,
                usage.prompt_tokens,
                usage.output_tokens,
                min(kept, before, usage.prompt_tokens),
                usage.cached_tokens,
            )
        )
        return usage.context_tokens

    def _take_back(self, agent_id: str, time_s: float) -> Member:
        member = self._member(agent_id)
        if not member.num_asking:
            raise GateError(f"agent {agent_id!r} took back a step that it is not waiting for")
        member.give_up(time_s=time_s)
        return member

    def _end_call(self, agent_id: str, *, time_s: float, context_tokens: int | None) -> Member:
        member = self._member(agent_id)
        if not member.num_calls:
            raise GateError(f"agent {agent_id!r} ended a step that it had not begun")
        member.end_call(context_tokens)
        member.heard_s = time_s
        return member

    def _remove(
        self, agent_id: str, *, time_s: float, context_tokens: int | None, usage: Usage | None
    ) -> Member:
        """Strike a member off the books; its children are its parent's from now on."""
        member = self._member(agent_id)
        if usage is not None:
            context_tokens = self._log_call(member, usage, time_s)
        if context_tokens is not None:
            member.context_tokens = check_tokens("context_tokens", context_tokens)
        self._count_departure(member)
        del self._members[agent_id]
        above = member.parent
        for child in member.children:
            child.parent = above
        if above is not None:
            above.children.remove(member)
            above.children += member.children
            above.heard_s = time_s
        self._remember(member, time_s)
        member.ticket = 0  # its entries in the queues are stale from now on
        return member

    def _count_departure(self, member: Member) -> None:
        if member.admitted_s is None:
            return
        sums, tokens = self._departed, private_tokens(member)
        self._departed = Departures(
            agents=sums.agents + 1,
            calls=sums.calls + member.steps_done + member.num_calls,
            tokens=sums.tokens + tokens,
            call_tokens=sums.call_tokens + member.call_tokens + member.num_calls * tokens,
        )

    def _remember(self, member: Member, time_s: float) -> None:
        """Keep the age of an agent that leaves while it waits, for it may come again."""
        left = self._left_waiting
        while left and time_s - next(iter(left.values()))[1] > self.ask_again_s:
            del left[next(iter(left))]
        if member.waiting_since_s is not None:
            left[member.agent_id] = (member.waiting_since_s, time_s)
        elif member.gave_up is not None and time_s - member.gave_up[1] <= self.ask_again_s:
            left[member.agent_id] = member.gave_up
