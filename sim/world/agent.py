"""One SimPy process per agent, and the SimPy shell of the gate."""

import math
from collections.abc import Callable, Generator, Iterable
from typing import Generic, Protocol, TypeVar

import simpy

from concur.gate import Gate
from concur.gate.fleet import FleetGate
from concur.routing import RoutedCall
from concur.signals import Usage
from concur.sim.engine.request import Request
from concur.sim.record.publish import agent_row
from concur.sim.record.rows import AgentRow, RequestRow
from concur.sim.workload.spec import AgentSpec, StepSpec
from concur.sim.world.engine import Engine
from concur.sim.world.histories import FleetHistories

AnyGate = TypeVar("AnyGate", Gate, FleetGate)


class SimGate(Generic[AnyGate]):
    """The gate on the simulated clock: an agent's turn is an event, and so is the end of a lease.

    Without `are_ends_told` agents that end fall silent.
    """

    def __init__(self, env: simpy.Environment, gate: AnyGate, *, are_ends_told: bool = True) -> None:
        self.env = env
        self.gate: AnyGate = gate
        self.are_ends_told = are_ends_told
        self._turns: dict[str, simpy.Event] = {}
        self._lease_check_s = math.inf

    def turn(self, agent_id: str, call: RoutedCall | None = None) -> simpy.Event:
        """Ask for the agent's next step; the event fires when it may begin. A fleet may look at the call."""
        turn = self._turns[agent_id] = self.env.event()
        gate: Gate | FleetGate = self.gate
        if isinstance(gate, FleetGate):
            self.wake(gate.request_step(agent_id, time_s=self.env.now, call=call))
        else:
            self.wake(gate.request_step(agent_id, time_s=self.env.now))
        return turn

    def wake(self, agent_ids: Iterable[str]) -> None:
        """Let agents begin, in the order in which the gate named them."""
        for agent_id in agent_ids:
            self._turns.pop(agent_id).succeed()
        due_s = self.gate.next_lease_s
        if due_s < self._lease_check_s:
            self._lease_check_s = due_s
            self.env.timeout(due_s - self.env.now).callbacks.append(self._expire)

    def _expire(self, _: simpy.Event) -> None:
        self._lease_check_s = math.inf
        self.wake(self.gate.expire(time_s=self.env.now))


class Kin(Protocol):
    """What an agent asks of its family."""

    def is_forked(self, spec: AgentSpec) -> bool:
        """Tell whether others start with a part of its history."""
        ...

    def nearest_here(self, spec: AgentSpec, gate: FleetGate) -> str | None:
        """Return its nearest ancestor that has not left, if there is one."""
        ...

    def session(self, spec: AgentSpec) -> str:
        """Return the name of the tree that it belongs to."""
        ...

    def start_children(self, parent: "Agent", call_index: int) -> list[simpy.Process]:
        """Start the children that follow that call; return those that the parent waits for."""
        ...


class Place(Protocol):
    """Where agents call: gates and engines, and the names of what is written there."""

    shell: SimGate[FleetGate]
    engines: list[Engine]
    histories: FleetHistories
    is_routed: bool


class Agent:
    """Life: arrive -> (turn at the gate -> call -> tool wait) for each step -> leave.

    `kin` knows the family: after each step the agent starts its children, and it waits for those that join.
    Reports one `RequestRow` per call to `on_call` and one `AgentRow` at the end to `on_leave`.
    """

    def __init__(
        self,
        spec: AgentSpec,
        place: Place,
        *,
        on_call: Callable[[RequestRow], None],
        on_leave: Callable[[AgentSpec, AgentRow], None],
        kin: Kin,
    ) -> None:
        self.spec = spec
        self.known_tokens = 0
        self.history = place.histories.begin(spec.levels)
        self._kin = kin
        self._place = place
        self._gate = place.shell
        self._env = place.shell.env
        self._is_forked = kin.is_forked(spec)
        self._gate_wait_s = 0.0
        self._usage: Usage | None = None
        self._arrived_s = spec.arrival_s
        self._on_call = on_call
        self._on_leave = on_leave

    def fork(self, parent: "Agent") -> None:
        """Begin with what the parent's history is now."""
        self.history, self.known_tokens = parent.history, parent.known_tokens

    def living(self, delay_s: float) -> Generator[simpy.Event, object, None]:
        """Arrive after that delay and make every call of the spec, one after the other."""
        env, spec, gate = self._env, self.spec, self._gate.gate
        if delay_s > 0:
            yield env.timeout(delay_s)
        self._arrived_s = env.now
        self._arrive()
        last = len(spec.steps) - 1
        for call_index, step in enumerate(spec.steps):
            yield from self._calling(call_index, step)
            joined = self._kin.start_children(self, call_index)
            if call_index == last and not joined:
                break
            self._gate.wake(gate.step_done(spec.agent_id, time_s=env.now, usage=self._usage))
            if step.tool_latency_s > 0 and call_index < last:
                yield env.timeout(step.tool_latency_s)
            for child in joined:
                if not child.processed:
                    yield child
        self._leave(is_in_call=not joined)

    def _arrive(self) -> None:
        spec = self.spec
        self._gate.gate.arrive(
            spec.agent_id,
            time_s=self._env.now,
            parent=self._kin.nearest_here(spec, self._gate.gate),
            prefix_group=spec.prefix_group,
            shared_prefix_tokens=spec.shared_prefix_tokens,
            outer_prefixes=spec.outer_prefixes,
            fork=spec.fork,
        )

    def _calling(self, call_index: int, step: StepSpec) -> Generator[simpy.Event, object, None]:
        env, agent_id = self._env, self.spec.agent_id
        ready_s = env.now
        call = self._routed(step) if self._place.is_routed else None
        is_written, is_answered = call is not None, False
        while not is_answered:
            asked_s = env.now
            yield self._gate.turn(agent_id, call)
            self._gate_wait_s += env.now - asked_s
            if not is_written:
                self._write(step)
                is_written = True
            engine_index = self._gate.gate.take_engine(agent_id)
            request = self._request(call_index, step, engine_index)
            is_answered = bool((yield self._place.engines[engine_index].submit(request)))
            if not is_answered:  # its engine has died: the call is asked for again
                self._gate.wake(self._gate.gate.step_done(agent_id, time_s=env.now))
        self.known_tokens = request.num_tokens - 1  # the last sampled token was not computed
        self._usage = Usage(
            step.prompt_tokens, step.output_tokens, request.num_cached_tokens, step.kept_tokens
        )
        self._on_call(_request_row(request, step, ready_s, engine_index))

    def _write(self, step: StepSpec) -> None:
        """Write the history on to the end of the step."""
        self.history = self._place.histories.call(
            self.history,
            kept_tokens=step.kept_tokens,
            context_tokens=step.context_tokens,
            is_shared=self._is_forked,
        )

    def _routed(self, step: StepSpec) -> RoutedCall:
        """Write the history, and return what a router is told of the call."""
        self._write(step)
        parts = self._place.histories.parts(self.history, step.prompt_tokens)
        session = self._kin.session(self.spec)
        return RoutedCall(self.spec.agent_id, session, step.prompt_tokens, parts)

    def _request(self, call_index: int, step: StepSpec, engine_index: int) -> Request:
        return Request(
            request_id=f"{self.spec.agent_id}/{call_index}",
            agent_index=self.spec.index,
            call_index=call_index,
            num_prompt_tokens=step.prompt_tokens,
            max_tokens=step.output_tokens,
            history=self._place.histories.on(self.history, engine_index),
            known_tokens=min(self.known_tokens, step.kept_tokens),
            arrival_s=self._env.now,
            max_new_tokens=step.max_new_tokens,
            priority=self.spec.priority,
        )

    def _leave(self, *, is_in_call: bool) -> None:
        spec, gate = self.spec, self._gate.gate
        row = agent_row(
            spec,
            arrived_s=self._arrived_s,
            admitted_s=gate.admitted_s(spec.agent_id),
            finished_s=self._env.now,
            gate_wait_s=self._gate_wait_s,
            num_pauses=gate.num_pauses(spec.agent_id),
        )
        usage = self._usage if is_in_call else None
        if self._gate.are_ends_told:
            self._gate.wake(gate.leave(spec.agent_id, time_s=self._env.now, usage=usage))
        elif is_in_call:
            self._gate.wake(gate.step_done(spec.agent_id, time_s=self._env.now, usage=usage))
        self._on_leave(spec, row)


def _request_row(request: Request, step: StepSpec, ready_s: float, engine_index: int) -> RequestRow:
    assert request.scheduled_s is not None
    assert request.first_token_s is not None
    assert request.finished_s is not None
    return RequestRow(
        agent_index=request.agent_index,
        call_index=request.call_index,
        ready_s=ready_s,
        submitted_s=request.arrival_s,
        scheduled_s=request.scheduled_s,
        first_token_s=request.first_token_s,
        finished_s=request.finished_s,
        prompt_tokens=request.num_prompt_tokens,
        kept_tokens=step.kept_tokens,
        cached_tokens=request.num_cached_tokens,
        host_tokens=request.num_host_tokens,
        recomputed_tokens=request.num_recomputed_tokens,
        output_tokens=request.num_output_tokens,
        num_preemptions=request.num_preemptions,
        engine_index=engine_index,
    )
