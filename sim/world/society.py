"""All agents of a run on the simulated clock: who arrives by itself, and who is started by whom."""

from collections.abc import Callable

import simpy

from concur.gate.fleet import FleetGate
from concur.sim.record.rows import AgentRow, RequestRow
from concur.sim.workload.families import Families
from concur.sim.workload.spec import AgentSpec, Workload
from concur.sim.workload.turns import Turns
from concur.sim.world.agent import Agent, Place


class Society:
    """The families of a workload; it starts those that arrive by themselves, and agents start the rest."""

    def __init__(
        self,
        workload: Workload,
        place: Place,
        *,
        on_call: Callable[[RequestRow], None],
        on_leave: Callable[[AgentRow], None],
    ) -> None:
        self._families = Families(workload)
        self.turns = Turns(workload, self._families)
        self._env = place.shell.env
        self.all_ended = self._env.event()
        self._place = place
        self._on_call = on_call
        self._on_leave = on_leave
        for spec in self.turns.first():
            self._start(spec, None, spec.arrival_s)

    def is_forked(self, spec: AgentSpec) -> bool:
        """Tell whether others start with a part of its history."""
        return self._families.is_forked(spec.agent_id)

    def nearest_here(self, spec: AgentSpec, gate: FleetGate) -> str | None:
        """Return its nearest ancestor that has not left, if there is one."""
        return self._families.nearest(spec, gate.is_here)

    def session(self, spec: AgentSpec) -> str:
        """Return the name of the tree that it belongs to: that of its root."""
        return self._families.root(spec).agent_id

    def start_children(self, parent: Agent, call_index: int) -> list[simpy.Process]:
        """Start the children that follow that call; return those that the parent waits for."""
        children = self._families.started_after(parent.spec.agent_id, call_index)
        started = [(spec, self._start(spec, parent, spec.spawn_delay_s)) for spec in children]
        return [process for spec, process in started if spec.joins]

    def _left(self, spec: AgentSpec, row: AgentRow) -> None:
        self._on_leave(row)
        successor = self.turns.ended(spec, time_s=self._env.now)
        if successor is not None:
            self._start(successor, None, 0.0)
        elif self.turns.is_over:
            self.all_ended.succeed()

    def _start(self, spec: AgentSpec, parent: Agent | None, delay_s: float) -> simpy.Process:
        agent = Agent(
            spec,
            self._place,
            on_call=self._on_call,
            on_leave=self._left,
            kin=self,
        )
        self.turns.began(spec)
        if spec.fork_tokens and parent is not None:
            agent.fork(parent)
        return self._env.process(agent.living(delay_s))
