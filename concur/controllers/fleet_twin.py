"""Ours: `twin` for a fleet. One plan of the whole batch, and a budget in tokens for each engine.

In front of one gate it is `twin`. In front of several, one for each engine, what is learned is learned once
for all of them: the calls and the lives of the batch, wherever they were seen; an agent that goes from one
engine to another has not ended its life. What an engine's steps cost, what strangers hold there and how many
misses are reloaded stays its own.

The plan runs all agents forward, each from the engine where its history is, with the agents that may go
elsewhere (`concur.twin.fleet_model`), and takes the budgets under which the whole batch ends soonest
(`concur.twin.fleet_plan`). Between two plans every gate is paced as `twin` paces its own.

An engine whose readings have stopped, because it is down, is left out of the plans. Who is at no gate while
it waits (`placement = "most_room"`) is seen by no law, and in no plan.
"""

from collections.abc import Sequence
from typing import Final

from concur.controllers.twin import Twin, TwinParams, next_plan_s
from concur.measures.residents import Ledger
from concur.signals import Snapshot
from concur.twin.batch import Batch
from concur.twin.fleet_plan import FleetPlanner, Part
from concur.twin.plan import Planned

_SILENT_S: Final = 30.0  # without a reading for so long an engine is in no plan


class FleetTwin(Twin):
    """The law of one of several gates; see the module docstring."""

    def __init__(self, params: TwinParams, council: "Council", gate: int) -> None:
        super().__init__(params, council.batch, gate)
        self._council = council
        self._num_taken = 0

    def _look_ahead(self, snapshot: Snapshot, ledger: Ledger, pool_tokens: float, active: int) -> None:
        """Tell what is known here, plan for all if it is time to, and take what the last plan says."""
        part = Part(
            snapshot.agents,
            self._policy,
            self._costs.costs,
            pool_tokens,
            ledger.tokens / pool_tokens,
            self._misses.recomputed_frac,
        )
        planned = self._council.advise(self._gate, part, time_s=snapshot.time_s)
        if planned is not None:
            self._take(*planned)


class Council:
    """What the laws of a fleet share: the batch, and the plan."""

    def __init__(self, params: TwinParams, num_gates: int, move_after_s: float | None) -> None:
        self.batch = Batch(num_gates)
        self._planner = FleetPlanner(params.seed, move_after_s=move_after_s)
        self._plan_every_s = params.plan_every_s
        self._next_plan_s = 0.0
        self._parts: dict[int, tuple[float, Part]] = {}
        self._planned: dict[int, tuple[Planned, float]] = {}

    def advise(self, gate: int, part: Part, *, time_s: float) -> tuple[Planned, float] | None:
        """Take what a gate's law knows; return what has been planned for it since, and when."""
        self._parts[gate] = time_s, part
        if time_s >= self._next_plan_s:
            self._plan(time_s)
        return self._planned.pop(gate, None)

    def _plan(self, time_s: float) -> None:
        here = {gate: part for gate, (at_s, part) in self._parts.items() if time_s - at_s <= _SILENT_S}
        num_agents = sum(len(part.agents) for part in here.values())
        if num_agents < 2 or not any(part.active for part in here.values()):
            return
        self._next_plan_s = next_plan_s(time_s, self._plan_every_s)
        gates = sorted(here)
        calls, lives = self.batch.calls, self.batch.lives
        planned = self._planner.plan(time_s, [here[gate] for gate in gates], calls, lives)
        self._planned |= {gate: (each, time_s) for gate, each in zip(gates, planned, strict=True)}


def twins(params: TwinParams, num_gates: int, move_after_s: float | None) -> Sequence[Twin]:
    """Return a law for each gate, which plan together; for one gate `twin`.

    `move_after_s`: after which wait agents go to another engine, `None` where they stay.
    """
    if num_gates == 1:
        return [Twin(params)]
    council = Council(params, num_gates, move_after_s)
    return [FleetTwin(params, council, gate) for gate in range(num_gates)]
