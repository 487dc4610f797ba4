"""One ledger an engine, and no router: an agent is served where its history is, or where there is room.

An agent that holds a slot is served by that slot's engine, whatever happens elsewhere. Who has to wait, and
has been served before, waits at its origin, where its history may still be. If another engine has room for
it and it has waited there for `move_after_s`, it moves, and is computed anew there. 0: at once; a very long
time: never ("origin only").

With `is_most_room_first` who waits is nowhere: it waits for whichever engine has room first, and of several
takes the one with the most, as ThunderAgent places over several back ends (arXiv 2602.13692). Those who were
paused in a tool wait still have the first claim to the room of their origin until they ask.

Who has not been served yet goes to the engine with the most room at its arrival, and moves freely.

Room is measured in what the engine's law grants: the share of its window, or of its budget in tokens, that is
free (`Gate.room_frac`). Nobody moves past those who wait at an engine: where one waits there is no room.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from concur.errors import require
from concur.gate.base import Gate
from concur.gate.fleet import FleetGate
from concur.gate.moving import Moved
from concur.routing.base import RoutedCall, those_up
from concur.signals import Usage


@dataclass(frozen=True, slots=True)
class PlacementRule:
    """When an agent that waits leaves its origin."""

    move_after_s: float
    is_most_room_first: bool = False

    def __post_init__(self) -> None:
        require(self.move_after_s >= 0, "move_after_s", self.move_after_s, "at least 0 s")


@dataclass(slots=True)
class _Wish:
    """What an agent that waits asks for, and from when on it may move."""

    calls: deque[RoutedCall]
    due_s: float


class PlacedGates(FleetGate):
    """Origin first, and room decides where else."""

    def __init__(self, gates: Sequence[Gate], rule: PlacementRule) -> None:
        super().__init__(gates, len(gates))
        self._rule = rule
        self._wishes: dict[str, _Wish] = {}  # in the order in which they were made
        self._next_due_s = math.inf
        self._nowhere: dict[str, Moved] = {}  # of those who wait, those who wait at no gate

    @property
    def paused(self) -> int:
        """Number of agents that were admitted before and hold no slot now, nor lend one."""
        return super().paused + sum([each.admitted_s is not None for each in self._nowhere.values()])

    @property
    def waiting(self) -> int:
        """Number of agents that were never admitted."""
        return super().waiting + sum([each.admitted_s is None for each in self._nowhere.values()])

    @property
    def num_nowhere(self) -> int:
        """Number of agents that are here and at no gate: they wait for whichever has room first."""
        return len(self._nowhere)

    @property
    def next_lease_s(self) -> float:
        """Time before which `expire` need not be called: for a lease, or for who may move then."""
        return min(super().next_lease_s, self._next_due_s)

    def request_step(self, agent_id: str, *, time_s: float, call: RoutedCall | None = None) -> list[str]:
        """Ask for a call of the agent where it is, or where there is room."""
        gate, call = self._gate(agent_id), call or RoutedCall(agent_id, agent_id, 0)
        wish = self._wishes.get(agent_id)
        if wish is not None:
            wish.calls.append(call)
            return [] if agent_id in self._nowhere else self._ask(agent_id, time_s)
        is_new = agent_id not in self._last_engine
        is_free = is_new or self._rule.is_most_room_first
        due_s = time_s if is_free else time_s + self._rule.move_after_s
        granted: list[str] = []
        is_rooted = gate.holds_slot(agent_id) and self._is_up(agent_id)
        if not is_rooted and (is_new or self._rule.is_most_room_first or not self._is_up(agent_id)):
            best = self._roomiest(agent_id)
            if best is None and not self._is_up(agent_id):
                best = self._least_full()
            if best is not None and best != self._gate_of[agent_id] and not self._in_flight.get(agent_id):
                granted = self._move(agent_id, best, time_s=time_s)
        self._wishes[agent_id] = _Wish(deque([call]), due_s)
        granted += self._ask(agent_id, time_s)
        if self._rule.is_most_room_first and agent_id in self._wishes:
            return granted + self._take_out(agent_id, time_s)
        if agent_id in self._wishes and due_s < self._next_due_s:
            self._next_due_s = due_s
        return granted

    def expire(self, *, time_s: float) -> list[str]:
        """Do what is due: leases, and moves of those who have waited long enough."""
        granted = super().expire(time_s=time_s)
        if self._next_due_s <= time_s:
            granted += self._move_those_due(range(len(self.gates)), time_s)
        return granted

    def set_up(self, engine: int, *, is_up: bool, time_s: float) -> list[str]:
        """Take note that an engine has died, or is back; those who wait at its gate go elsewhere at once."""
        super().set_up(engine, is_up=is_up, time_s=time_s)
        granted: list[str] = []
        if is_up:
            return self._move_those_due([engine], time_s)
        if not any(load.is_up for load in self.loads):
            return granted
        for agent_id in [each for each in self._wishes if self._gate_of[each] == engine]:
            if agent_id in self._wishes and not self._in_flight.get(agent_id):
                granted += self._move_waiting(agent_id, self._least_full(), time_s)
        return granted

    def withdraw(self, agent_id: str, *, time_s: float) -> list[str]:
        """Take back one request for a call: whoever made it gave up waiting."""
        if agent_id not in self._nowhere:
            return super().withdraw(agent_id, time_s=time_s)
        self._put_back(agent_id, time_s)
        del self._wishes[agent_id]
        return []

    def leave(
        self, agent_id: str, *, time_s: float, context_tokens: int | None = None, usage: Usage | None = None
    ) -> list[str]:
        """Let the agent go; see `Gate.leave`."""
        if agent_id in self._nowhere:
            self._put_back(agent_id, time_s)
        return super().leave(agent_id, time_s=time_s, context_tokens=context_tokens, usage=usage)

    def _take_out(self, agent_id: str, time_s: float) -> list[str]:
        """Let an agent that asks wait at no gate: it has no claim to the room of any."""
        number = self._gate_of[agent_id]
        gate, granted = self.gates[number], list[str]()
        if gate.holds_slot(agent_id) or self._in_flight.get(agent_id):
            return granted
        for _ in self._wishes[agent_id].calls:
            granted += gate.withdraw(agent_id, time_s=time_s)
        moved, others = gate.move_out(agent_id, time_s=time_s)
        self._nowhere[agent_id] = moved
        granted += others
        return self._begin(granted, number, time_s) if granted else granted

    def _put_back(self, agent_id: str, time_s: float, to: int | None = None) -> None:
        """Let an agent that was at no gate arrive at one, by default where it was last."""
        number = self._gate_of[agent_id] if to is None else to
        parent = self._parent_at(number, self._families[agent_id])
        while parent is not None and not self.gates[number].is_here(parent):
            parent = self._parent_at(number, self._families.get(parent))
        self._gate_of[agent_id] = number
        self.gates[number].move_in(self._nowhere.pop(agent_id), parent=parent, time_s=time_s)

    def _gate_for_newcomer(self, parent: str | None) -> int:
        """Return the gate of its parent, else the one with the most room, of equal ones the emptiest."""
        return self._gate_of[parent] if parent is not None else self._least_full()

    def _least_full(self) -> int:
        gates = self.gates
        return max(
            those_up(self.loads),
            key=lambda each: (max(0.0, gates[each].room_frac), -gates[each].num_members, -each),
        )

    def _ask(self, agent_id: str, time_s: float) -> list[str]:
        number = self._gate_of[agent_id]
        return self._begin(self.gates[number].request_step(agent_id, time_s=time_s), number, time_s)

    def _engine_for(self, agent_id: str, time_s: float) -> tuple[RoutedCall, int]:
        wish, engine = self._wishes[agent_id], self._gate_of[agent_id]
        call = wish.calls.popleft()
        if not wish.calls:
            del self._wishes[agent_id]
        self.loads[engine].num_in_flight += 1
        return call, engine

    def _call_withdrawn(self, agent_id: str) -> None:
        wish = self._wishes[agent_id]
        wish.calls.pop()
        if not wish.calls:
            del self._wishes[agent_id]

    def _forget(self, agent_id: str) -> None:
        self._wishes.pop(agent_id, None)

    def _tell_end(self, call: RoutedCall, engine: int) -> None:
        """Tell nobody: there is no router."""

    def _tell_lost(self, engine: int) -> None:
        """Tell nobody."""

    def _after(self, number: int, time_s: float) -> list[str]:
        """Let those move to a gate that may, if it has room now."""
        if not self._wishes or not self._may_take(number, 0.0):
            return []
        return self._move_those_due([number], time_s)

    def _move_those_due(self, numbers: Sequence[int], time_s: float) -> list[str]:
        granted: list[str] = []
        for agent_id in list(self._wishes):
            wish = self._wishes.get(agent_id)
            if wish is None or wish.due_s > time_s or self._in_flight.get(agent_id):
                continue
            open_gates = [each for each in numbers if self._may_take(each, 0.0)]
            if not open_gates:
                break
            best = self._roomiest(agent_id, open_gates)
            if best is not None and (best != self._gate_of[agent_id] or agent_id in self._nowhere):
                granted += self._move_waiting(agent_id, best, time_s)
        later = [wish.due_s for wish in self._wishes.values() if wish.due_s > time_s]
        self._next_due_s = min(later, default=math.inf)
        return granted

    def _move_waiting(self, agent_id: str, to: int, time_s: float) -> list[str]:
        """Move an agent that asks, with what it asks for; nobody else's move may meet it on its way."""
        wish, source = self._wishes.pop(agent_id), self._gate_of[agent_id]
        granted: list[str] = []
        if agent_id in self._nowhere:
            self._put_back(agent_id, time_s, to)
            self._wishes[agent_id] = wish
            for _ in range(len(wish.calls)):
                granted += self._ask(agent_id, time_s)
            return granted
        for _ in wish.calls:
            granted += self.gates[source].withdraw(agent_id, time_s=time_s)
        granted = self._begin(granted, source, time_s) if granted else granted
        granted += self._move(agent_id, to, time_s=time_s)
        self._wishes[agent_id] = wish
        for _ in range(len(wish.calls)):
            granted += self._ask(agent_id, time_s)
        return granted

    def _roomiest(self, agent_id: str, numbers: Sequence[int] | None = None) -> int | None:
        """Return the gate with the most room that would let the agent begin at once, if one would."""
        moved = self._nowhere.get(agent_id)
        tokens = float(moved.context_tokens if moved else self._gate(agent_id).context_tokens(agent_id))
        able = [each for each in numbers or range(len(self.gates)) if self._may_take(each, tokens)]
        return max(able, key=lambda each: (self.gates[each].room_frac, -each), default=None)

    def _may_take(self, number: int, tokens: float) -> bool:
        return self.loads[number].is_up and self.gates[number].has_room(tokens)

    def _is_up(self, agent_id: str) -> bool:
        return self.loads[self._gate_of[agent_id]].is_up
