"""The gate of a fleet: the events of a gate, and behind them engines, a router, and one gate or several.

Three kinds. `GlobalGate`: one gate for all, and a router that is asked when a call begins. `EngineGates`: one
gate an engine, and a router that is asked when a call is wanted; an agent whose call goes to another engine
moves there. `PlacedGates` (`concur.gate.placement`): one gate an engine, and no router: who has to wait may
move to where there is room.

Each of an engine's gates has a law of its own, so a fleet is as many admission controls as it has gates.

An agent stays in the books of one gate at a time; it moves between two calls only, and with it goes all that
is known of it (`concur.gate.moving`). A descendant has its ancestor's slot, if it comes to that, where both
are at one gate; at another one it queues as any other agent, and its ancestor's slot comes free by its lease
at the latest.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from concur.errors import GateError, require
from concur.gate.base import Gate
from concur.routing.base import EngineLoad, RoutedCall, Router, those_up
from concur.signals import UNLIMITED, AgentView, Prefix, TokenBudget, Usage

EVERYWHERE: Final = 0
"""The number of the one gate of a fleet that has but one."""


class FleetGate(ABC):
    """What every gate of a fleet has: where agents are, what is in flight, who moved.

    Every event returns the ids of the agents that may begin a call now, in wake order, wherever they are;
    `take_engine` then says on which engine. `loads` are what the router sees. `num_moves`: how often an
    agent that had called before changed its engine.
    """

    def __init__(self, gates: Sequence[Gate], num_engines: int) -> None:
        require(num_engines >= 1, "num_engines", num_engines, "at least 1")
        self.gates = tuple(gates)
        self.loads = [EngineLoad() for _ in range(num_engines)]
        self.num_moves = 0
        self._gate_of: dict[str, int] = {}
        self._families: dict[str, str | None] = {}  # of everybody here: who started it
        self._granted: dict[str, deque[int]] = {}  # engines of calls that may begin, by agent
        self._in_flight: dict[str, deque[tuple[RoutedCall, int]]] = {}
        self._last_engine: dict[str, int] = {}

    # What a gate shows.

    @property
    def active(self) -> int:
        """Number of slots that are taken, everywhere."""
        return sum([gate.active for gate in self.gates])

    @property
    def paused(self) -> int:
        """Number of agents that were admitted before and hold no slot now, nor lend one."""
        return sum([gate.paused for gate in self.gates])

    @property
    def waiting(self) -> int:
        """Number of agents that were never admitted."""
        return sum([gate.waiting for gate in self.gates])

    @property
    def lent(self) -> int:
        """Number of agents whose slot is with a descendant."""
        return sum([gate.lent for gate in self.gates])

    @property
    def window(self) -> int:
        """The sum of the windows."""
        return min(UNLIMITED, sum([gate.window for gate in self.gates]))

    @property
    def budget(self) -> TokenBudget:
        """The sum of the budgets; a newcomer counts as where it counts most."""
        budgets = [gate.budget for gate in self.gates]
        return TokenBudget(
            sum([each.admit_tokens for each in budgets]),
            sum([each.pause_tokens for each in budgets]),
            max([each.newcomer_tokens for each in budgets]),
        )

    @property
    def num_expired(self) -> int:
        """Slots that were taken from silent agents."""
        return sum([gate.num_expired for gate in self.gates])

    @property
    def next_lease_s(self) -> float:
        """Time before which `expire` need not be called; infinite while nothing is due."""
        return min([gate.next_lease_s for gate in self.gates])

    @property
    def num_nowhere(self) -> int:
        """Number of agents that are here and at no gate: they wait for whichever has room first."""
        return 0

    def num_pauses(self, agent_id: str) -> int:
        """Return how often the agent lost its slot; it must not have left."""
        return self._gate(agent_id).num_pauses(agent_id)

    def admitted_s(self, agent_id: str) -> float | None:
        """Return when the agent got its first slot, or `None`; it must not have left."""
        return self._gate(agent_id).admitted_s(agent_id)

    def context_tokens(self, agent_id: str) -> int:
        """Return the length of the agent's history, in tokens; it must not have left."""
        return self._gate(agent_id).context_tokens(agent_id)

    def is_here(self, agent_id: str) -> bool:
        """Tell whether the agent has arrived and not left."""
        return agent_id in self._gate_of

    def views(self) -> Iterator[AgentView]:
        """Yield every agent that has arrived and not left, gate by gate."""
        return chain.from_iterable(gate.views() for gate in self.gates)

    def gate_of(self, agent_id: str) -> int:
        """Return the number of the gate that the agent is at."""
        self._gate(agent_id)
        return self._gate_of[agent_id]

    # Events.

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
        """Register an agent; see `Gate.arrive`."""
        number = self._gate_for_newcomer(parent)
        self.gates[number].arrive(
            agent_id,
            time_s=time_s,
            parent=self._parent_at(number, parent),
            prefix_group=prefix_group,
            shared_prefix_tokens=shared_prefix_tokens,
            outer_prefixes=outer_prefixes,
            fork=fork,
        )
        self._gate_of[agent_id] = number
        self._families[agent_id] = parent

    @abstractmethod
    def request_step(self, agent_id: str, *, time_s: float, call: RoutedCall | None = None) -> list[str]:
        """Ask for a call of the agent; `call` is what the router is told of it, by default its name alone."""

    def take_engine(self, agent_id: str) -> int:
        """Return the engine of a call that has been granted, the oldest one first."""
        return self._granted[agent_id].popleft()

    def step_done(
        self, agent_id: str, *, time_s: float, context_tokens: int | None = None, usage: Usage | None = None
    ) -> list[str]:
        """Report the end of a call, of several that overlap the oldest; see `Gate.step_done`."""
        gate = self._gate(agent_id)
        granted = gate.step_done(agent_id, time_s=time_s, context_tokens=context_tokens, usage=usage)
        self._call_ended(agent_id)
        return self._begin(granted, self._gate_of[agent_id], time_s)

    def abandon_step(self, agent_id: str, *, time_s: float) -> list[str]:
        """Give back a call that was granted and has not begun."""
        granted = self._gate(agent_id).abandon_step(agent_id, time_s=time_s)
        self._call_ended(agent_id)
        self._granted[agent_id].clear()
        return self._begin(granted, self._gate_of[agent_id], time_s)

    def withdraw(self, agent_id: str, *, time_s: float) -> list[str]:
        """Take back one request for a call: whoever made it gave up waiting."""
        granted = self._gate(agent_id).withdraw(agent_id, time_s=time_s)
        self._call_withdrawn(agent_id)
        return self._begin(granted, self._gate_of[agent_id], time_s)

    def leave(
        self, agent_id: str, *, time_s: float, context_tokens: int | None = None, usage: Usage | None = None
    ) -> list[str]:
        """Let the agent go; see `Gate.leave`."""
        number = self._gate_of.get(agent_id, 0)
        granted = self._gate(agent_id).leave(
            agent_id, time_s=time_s, context_tokens=context_tokens, usage=usage
        )
        while self._in_flight.get(agent_id):
            self._call_ended(agent_id)
        for books in (self._gate_of, self._families, self._granted, self._in_flight, self._last_engine):
            books.pop(agent_id, None)
        self._forget(agent_id)
        return self._begin(granted, number, time_s)

    def expire(self, *, time_s: float) -> list[str]:
        """Do what is due: take slots back from agents that have been silent for too long."""
        granted: list[str] = []
        for number, gate in enumerate(self.gates):
            if gate.next_lease_s <= time_s:
                granted += self._begin(gate.expire(time_s=time_s), number, time_s)
        return granted

    def resize(self, number: int, window: int, *, time_s: float, budget: TokenBudget) -> list[str]:
        """Set the window of one gate, and what those in it may keep."""
        granted = self.gates[number].resize(window, time_s=time_s, budget=budget)
        return self._begin(granted, number, time_s)

    def set_up(self, engine: int, *, is_up: bool, time_s: float) -> list[str]:
        """Take note that an engine has died, or is back; those who wait at its gate go elsewhere at once.

        Who has calls in flight there keeps them, for their ends are told as any other's; its next one goes to
        an engine that is up.
        """
        self.loads[engine].is_up = is_up
        if not is_up:
            self._tell_lost(engine)
        return []

    # For the kinds of gates.

    def _gate(self, agent_id: str) -> Gate:
        number = self._gate_of.get(agent_id)
        if number is None:
            raise GateError(f"agent {agent_id!r} is not at the gate; it must arrive first")
        return self.gates[number]

    def _gate_for_newcomer(self, parent: str | None) -> int:
        """Return the number of the gate where an agent arrives."""
        return self._gate_of[parent] if parent is not None else EVERYWHERE

    @abstractmethod
    def _forget(self, agent_id: str) -> None:
        """Strike who has left off what a kind keeps of it."""

    @abstractmethod
    def _call_withdrawn(self, agent_id: str) -> None:
        """Take note that an agent asks no longer."""

    def _after(self, number: int, time_s: float) -> list[str]:
        """Do what an event at one gate has made possible."""
        return []

    @abstractmethod
    def _engine_for(self, agent_id: str, time_s: float) -> tuple[RoutedCall, int]:
        """Return a call that begins now, and its engine."""

    def _begin(self, granted: list[str], number: int, time_s: float) -> list[str]:
        """Let calls begin that a gate has granted, and then whatever else may."""
        for agent_id in granted:
            call, engine = self._engine_for(agent_id, time_s)
            self._granted.setdefault(agent_id, deque()).append(engine)
            self._in_flight.setdefault(agent_id, deque()).append((call, engine))
            before = self._last_engine.get(agent_id)
            self.num_moves += before is not None and before != engine
            self._last_engine[agent_id] = engine
        return granted + self._after(number, time_s)

    def _call_ended(self, agent_id: str) -> None:
        call, engine = self._in_flight[agent_id].popleft()
        self.loads[engine].num_in_flight -= 1
        self._tell_end(call, engine)

    @abstractmethod
    def _tell_lost(self, engine: int) -> None:
        """Tell the router, if there is one, that an engine's cache is gone."""

    @abstractmethod
    def _tell_end(self, call: RoutedCall, engine: int) -> None:
        """Tell the router, if there is one."""

    def _parent_at(self, number: int, parent: str | None) -> str | None:
        """Return the nearest ancestor that is at that gate."""
        while parent is not None and self._gate_of.get(parent) != number:
            parent = self._families.get(parent)
        return parent

    def _move(self, agent_id: str, to: int, *, time_s: float) -> list[str]:
        """Move an agent that makes no call and asks for none; return who begins where it was."""
        source = self._gate_of[agent_id]
        moved, granted = self.gates[source].move_out(agent_id, time_s=time_s)
        parent = self._parent_at(to, self._families[agent_id])
        self.gates[to].move_in(moved, parent=parent, time_s=time_s)
        self._gate_of[agent_id] = to
        return self._begin(granted, source, time_s)


class GlobalGate(FleetGate):
    """One gate for the fleet; where a call goes is asked when it begins."""

    def __init__(self, gate: Gate, router: Router, num_engines: int) -> None:
        super().__init__([gate], num_engines)
        self._router = router
        self._asked: dict[str, deque[RoutedCall]] = {}

    def request_step(self, agent_id: str, *, time_s: float, call: RoutedCall | None = None) -> list[str]:
        """Ask for a call of the agent."""
        self._asked.setdefault(agent_id, deque()).append(call or RoutedCall(agent_id, agent_id, 0))
        return self._begin(self._gate(agent_id).request_step(agent_id, time_s=time_s), EVERYWHERE, time_s)

    def _engine_for(self, agent_id: str, time_s: float) -> tuple[RoutedCall, int]:
        call = self._asked[agent_id].popleft()
        engine = self._router.route(call, self.loads, time_s=time_s)
        self.loads[engine].num_in_flight += 1
        return call, engine

    def _call_withdrawn(self, agent_id: str) -> None:
        self._asked[agent_id].pop()

    def _forget(self, agent_id: str) -> None:
        self._asked.pop(agent_id, None)

    def _tell_end(self, call: RoutedCall, engine: int) -> None:
        self._router.ended(call, engine)

    def _tell_lost(self, engine: int) -> None:
        self._router.lost(engine)


class EngineGates(FleetGate):
    """One gate an engine; where a call goes is asked when it is wanted, and there the agent waits.

    Calls count as in flight for the router from then on, as with a router in front of admission.
    """

    def __init__(self, gates: Sequence[Gate], router: Router) -> None:
        super().__init__(gates, len(gates))
        self._router = router
        self._routed: dict[str, deque[tuple[RoutedCall, int]]] = {}

    def request_step(self, agent_id: str, *, time_s: float, call: RoutedCall | None = None) -> list[str]:
        """Ask for a call of the agent at the engine that the router names."""
        self._gate(agent_id)
        call = call or RoutedCall(agent_id, agent_id, 0)
        engine, granted = self._router.route(call, self.loads, time_s=time_s), list[str]()
        if engine != self._gate_of[agent_id]:
            if self._routed.get(agent_id) or self._in_flight.get(agent_id):
                engine = self._gate_of[agent_id]  # beside calls that overlap it stays where they are
            else:
                granted = self._move(agent_id, engine, time_s=time_s)
        self.loads[engine].num_in_flight += 1
        self._routed.setdefault(agent_id, deque()).append((call, engine))
        asked = self.gates[engine].request_step(agent_id, time_s=time_s)
        return granted + self._begin(asked, engine, time_s)

    def set_up(self, engine: int, *, is_up: bool, time_s: float) -> list[str]:
        """Take note that an engine has died, or is back; those who wait at its gate are routed again."""
        super().set_up(engine, is_up=is_up, time_s=time_s)
        granted: list[str] = []
        if is_up or not any(load.is_up for load in self.loads):
            return granted
        for agent_id in [each for each in self._routed if self._gate_of[each] == engine]:
            if self._in_flight.get(agent_id) or not self._routed.get(agent_id):
                continue
            calls = [call for call, _ in self._routed[agent_id]]
            for _ in calls:
                granted += self.withdraw(agent_id, time_s=time_s)
            for call in calls:
                granted += self.request_step(agent_id, time_s=time_s, call=call)
        return granted

    def _gate_for_newcomer(self, parent: str | None) -> int:
        """Return the gate of its parent, else the first engine's that is up: the first call moves it."""
        return self._gate_of[parent] if parent is not None else those_up(self.loads)[0]

    def _engine_for(self, agent_id: str, time_s: float) -> tuple[RoutedCall, int]:
        return self._routed[agent_id].popleft()

    def _call_withdrawn(self, agent_id: str) -> None:
        call, engine = self._routed[agent_id].pop()
        self.loads[engine].num_in_flight -= 1
        self._router.ended(call, engine)

    def _forget(self, agent_id: str) -> None:
        for call, engine in self._routed.pop(agent_id, ()):
            self.loads[engine].num_in_flight -= 1
            self._router.ended(call, engine)

    def _tell_end(self, call: RoutedCall, engine: int) -> None:
        self._router.ended(call, engine)

    def _tell_lost(self, engine: int) -> None:
        self._router.lost(engine)
