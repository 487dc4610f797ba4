"""One decision of a controller on a gate: the same in the simulated and the live world."""

import json
from dataclasses import dataclass, replace

from concur.controllers import Law, budget_of
from concur.gate import Gate
from concur.signals import Snapshot, TokenBudget


@dataclass(frozen=True, slots=True)
class Tick:
    """One decision: the snapshot in, the window out; `state` is the controller's, as JSON.

    `active` agents held a slot when it was taken.
    """

    snapshot: Snapshot
    active: int
    window_before: int
    window: int
    budget: TokenBudget
    state: str

    def is_in_force(self, gate: Gate) -> bool:
        """Tell whether the gate has these bounds already."""
        return gate.window == self.window and gate.budget == self.budget


def decide(controller: Law, gate: Gate, engine: Snapshot) -> Tick:
    """Take one decision on a reading of the engine, completed by what the gate knows.

    To put it in force is the caller's: `gate.resize` names who may begin, and how to tell them so differs
    from world to world.
    """
    snapshot = replace(
        engine,
        agents_paused=gate.paused,
        agents_waiting=gate.waiting,
        agents=tuple(gate.views()) if controller.reads_agents else (),
        departed=gate.departed,
        calls=gate.take_calls() if controller.reads_agents else (),
    )
    window_before, active = controller.window, gate.active
    window = controller.update(snapshot, active=active)
    state = json.dumps(controller.log_state())
    return Tick(snapshot, active, window_before, window, budget_of(controller), state)
