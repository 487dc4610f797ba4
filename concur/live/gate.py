"""The gate on asyncio: the shell by which any agent loop waits its turn.

::

    gate = AsyncGate(AgentGate(window=8))
    async with gate.agent("a-17", prefix_group="coder", shared_prefix_tokens=2048) as agent:
        while not done:
            async with agent.step() as step:
                answer = await call_the_model(...)
                step.context_tokens = answer.usage.total_tokens
            await run_the_tool(...)

Who is in and who goes next is decided by the very `concur.gate.Gate` of the simulator; this shell turns an
agent's turn into a future and owns the clock. Futures are resolved in the order in which the gate names the
agents, and asyncio runs them in that order.

A sub-agent names its parent, so that the two can never wait for each other's slots::

    async with gate.agent("a-17/search", parent=agent) as sub:
        ...

See `concur.gate.agents` for the rule. An agent may make several calls at once; each has a `step` of its own.

Slots cannot leak: an agent that fails, or is cancelled, gives back what it holds on the way out of the
`async with`, whether it was waiting at the gate, in a step or in a tool wait; and one whose tool never
returns loses its slot after the gate's lease. One event loop only, the first that uses the gate: a call from
another loop or thread is an error at once. For agents on threads there is `concur.live.threads`.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from concur.errors import GateError
from concur.gate import Gate
from concur.gate.member import check_tokens
from concur.live.errors import ControlError
from concur.routing import RoutedCall
from concur.signals import UNBOUNDED, Prefix, TokenBudget, Usage


class Step:
    """One step of an agent, from its turn to its end.

    Set `context_tokens` to prompt + output of the answer (`usage.total_tokens`) before the step ends, or
    `usage`, which has them apart and says more; a step that fails leaves the agent's context as it was.
    `began_s`: when its turn came; `engine`: which one of a fleet serves it.
    """

    __slots__ = ("_context_tokens", "_usage", "began_s", "engine")

    def __init__(self, began_s: float, engine: int | None = None) -> None:
        self.began_s = began_s
        self.engine = engine
        self._context_tokens: int | None = None
        self._usage: Usage | None = None

    @property
    def context_tokens(self) -> int | None:
        """What was reported, `None` before.

        Raises
        ------
        ParameterError
            On setting it to anything but a count of tokens.
        """
        return self._context_tokens

    @context_tokens.setter
    def context_tokens(self, tokens: int) -> None:
        self._context_tokens = check_tokens("context_tokens", tokens)

    @property
    def usage(self) -> Usage | None:
        """What was reported of the call, `None` before."""
        return self._usage

    @usage.setter
    def usage(self, usage: Usage) -> None:
        self.context_tokens = usage.context_tokens
        self._usage = usage


class AsyncGate:
    """Hold agents at the gate until it is their turn.

    `clock` returns seconds that never go backwards; default is the running loop's clock. Give the same clock
    to the control loop. `num_steps` counts the steps that ended well, `num_contexts` those that told their
    context, `num_usages` those that told prompt and output apart.
    """

    def __init__(self, gate: Gate, *, clock: Callable[[], float] | None = None) -> None:
        self.gate = gate
        self.num_steps = 0
        self.num_contexts = 0
        self.num_usages = 0
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._agents: dict[str, LiveAgent] = {}
        self._failure: BaseException | None = None
        self._lease_timer: asyncio.TimerHandle | None = None
        self._lease_timer_s = math.inf

    def now_s(self) -> float:
        """Return the clock's reading, in seconds."""
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()

    @asynccontextmanager
    async def agent(
        self,
        agent_id: str,
        *,
        parent: "str | LiveAgent | None" = None,
        prefix_group: str | None = None,
        shared_prefix_tokens: int = 0,
        outer_prefixes: Sequence[Prefix] = (),
        fork: Prefix | None = None,
    ) -> AsyncIterator["LiveAgent"]:
        """Let an agent arrive, and leave at the end of the block, however that ends.

        `parent`: the agent, or its id, that started this one and may wait for it. One that has left in the
        meantime is no error: whoever started it takes its place. What the history shares with others': see
        `concur.signals.AgentView`.

        Raises
        ------
        GateError
            If an agent of that name is here already, its parent is not, or this is not the gate's event loop.
        ParameterError
            If `shared_prefix_tokens` is no count of tokens.
        """
        self.check_loop()
        if isinstance(parent, LiveAgent):
            above = parent.nearest_here()
            parent = above.agent_id if above is not None else None
        self.gate.arrive(
            agent_id,
            time_s=self.now_s(),
            parent=parent,
            prefix_group=prefix_group,
            shared_prefix_tokens=shared_prefix_tokens,
            outer_prefixes=outer_prefixes,
            fork=fork,
        )
        agent = LiveAgent(self, agent_id, self._agents[parent] if parent is not None else None)
        self._agents[agent_id] = agent
        try:
            yield agent
        finally:
            agent.leave()

    def ask(self, agent_id: str, call: RoutedCall | None) -> list[str]:
        """Ask the gate for a step; a fleet's looks at the call too. Return who may begin."""
        return self.gate.request_step(agent_id, time_s=self.now_s())

    def engine_of(self, agent_id: str) -> int | None:
        """Return the engine of a step that begins now; `None` where there is no fleet."""
        return None

    def resize(self, window: int, budget: TokenBudget = UNBOUNDED) -> None:
        """Set the window, and what those in it may keep, and let those begin who may.

        Raises
        ------
        ParameterError
            If the window is below 1, or the budget is none.
        """
        self.check_loop()
        self.wake(self.gate.resize(window, time_s=self.now_s(), budget=budget))

    def wake(self, agent_ids: Iterable[str]) -> None:
        """Let agents begin, in the order in which the gate named them, and watch the leases."""
        for agent_id in agent_ids:
            self._agents[agent_id].wake()
        due_s = self.gate.next_lease_s
        if due_s < self._lease_timer_s:
            if self._lease_timer is not None:
                self._lease_timer.cancel()
            self._lease_timer_s = due_s
            delay_s = max(0.0, due_s - self.now_s())
            self._lease_timer = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def fail(self, cause: BaseException) -> None:
        """End the gate's service: steps that wait, or are asked for later, raise `ControlError`."""
        self._failure = self._failure or cause
        for agent in self._agents.values():
            agent.refuse(self.failure())

    def failure(self) -> ControlError:
        """Return the error of a gate that has failed."""
        error = ControlError(
            f"the gate is no longer controlled: {type(self._failure).__name__}: {self._failure}"
        )
        error.__cause__ = self._failure
        return error

    def check_loop(self) -> None:
        """Refuse a call from anywhere but the gate's event loop.

        Raises
        ------
        GateError
            If this is another event loop or thread.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise GateError(
                "the gate was called outside of an event loop; call it from its own, or from threads through "
                "concur.live.threads.ThreadGate"
            ) from None
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise GateError(
                "the gate was called from another event loop than the one that it serves; make one gate for "
                "each loop, or call it from other threads through concur.live.threads.ThreadGate"
            )

    def forget(self, agent_id: str, context_tokens: int | None, usage: Usage | None) -> None:
        """Let the agent go at the gate and others begin who may; see `Gate.leave`."""
        del self._agents[agent_id]
        time_s = self.now_s()
        self.wake(self.gate.leave(agent_id, time_s=time_s, context_tokens=context_tokens, usage=usage))

    def check_control(self) -> None:
        """Refuse a step once the gate has failed.

        Raises
        ------
        ControlError
            If it has.
        """
        if self._failure is not None:
            raise self.failure()

    def _expire(self) -> None:
        self._lease_timer, self._lease_timer_s = None, math.inf
        try:
            self.wake(self.gate.expire(time_s=self.now_s()))
        except Exception as error:
            self.fail(error)


class LiveAgent:
    """An agent that is at the gate. Life: arrived -> (waits -> in a step -> in a tool wait) ... -> gone.

    `context_tokens` is the length of its history as the gate knows it. `admitted_s` (its first slot, `None`
    if it had none), `left_s` and `num_pauses` are there once it is gone.
    """

    def __init__(self, gate: AsyncGate, agent_id: str, parent: "LiveAgent | None" = None) -> None:
        self.agent_id = agent_id
        self.parent = parent
        self.context_tokens = 0
        self.admitted_s: float | None = None
        self.left_s = 0.0
        self.num_pauses = 0
        self._gate = gate
        self._turns: deque[asyncio.Future[None]] = deque()
        self._is_here = True

    def nearest_here(self) -> "LiveAgent | None":
        """Return this agent, or the nearest of its ancestors that has not left."""
        agent: LiveAgent | None = self
        while agent is not None and not agent._is_here:
            agent = agent.parent
        return agent

    @asynccontextmanager
    async def step(self, call: RoutedCall | None = None) -> AsyncIterator[Step]:
        """Wait for the agent's turn, and end its step at the end of the block, however that ends.

        `call`: what the router of a fleet is told of it.

        Raises
        ------
        GateError
            If the agent has left, or this is not the gate's event loop.
        ControlError
            If whatever controls the gate has failed.
        """
        step = await self._begin(call)
        try:
            yield step
            self._count(step)
        finally:
            if self._is_here:
                self._end(step)

    @asynccontextmanager
    async def last_step(self) -> AsyncIterator[Step]:
        """Take a step after which the agent leaves at once: its slot passes on without a pause."""
        step = await self._begin()
        try:
            yield step
            self._count(step)
        finally:
            self._leave(step)

    def leave(self) -> None:
        """Leave the gate; leaving twice is no error. A task that still waits for its turn gets one."""
        self._leave(None)

    def _leave(self, step: Step | None) -> None:
        if not self._is_here:
            return
        self._is_here = False
        self.refuse(GateError(f"agent {self.agent_id!r} left while it waited for its turn"))
        self.left_s = self._gate.now_s()
        gate = self._gate.gate
        self.admitted_s, self.num_pauses = gate.admitted_s(self.agent_id), gate.num_pauses(self.agent_id)
        told_tokens = None if step is None else step.context_tokens
        self.context_tokens = gate.context_tokens(self.agent_id) if told_tokens is None else told_tokens
        self._gate.forget(self.agent_id, told_tokens, None if step is None else step.usage)

    def wake(self) -> None:
        """Begin the step that has waited the longest."""
        turn = self._turns.popleft()
        if not turn.done():  # done: cancelled in this very turn of the loop; `_give_up` gives the call back
            turn.set_result(None)

    def refuse(self, error: Exception) -> None:
        """Raise an error wherever the agent waits for its turn."""
        for turn in self._turns:
            if not turn.done():
                turn.set_exception(error)

    async def _begin(self, call: RoutedCall | None = None) -> Step:
        gate = self._gate
        gate.check_loop()
        gate.check_control()
        if not self._is_here:
            raise GateError(f"agent {self.agent_id!r} asked for a step after it had left")
        granted = gate.ask(self.agent_id, call)
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        gate.wake(granted)
        try:
            await turn
        except BaseException:  # cancelled, or refused
            self._give_up(turn)
            raise
        return Step(gate.now_s(), gate.engine_of(self.agent_id))

    def _give_up(self, turn: "asyncio.Future[None]") -> None:
        """Take the request back, or give back the step that had just been granted."""
        gate, time_s = self._gate, self._gate.now_s()
        if not self._is_here:
            return
        if turn in self._turns:
            self._turns.remove(turn)
            gate.wake(gate.gate.withdraw(self.agent_id, time_s=time_s))
        else:
            gate.wake(gate.gate.abandon_step(self.agent_id, time_s=time_s))

    def _count(self, step: Step) -> None:
        self._gate.num_steps += 1
        self._gate.num_contexts += step.context_tokens is not None
        self._gate.num_usages += step.usage is not None

    def _end(self, step: Step) -> None:
        gate = self._gate
        granted = gate.gate.step_done(
            self.agent_id, time_s=gate.now_s(), context_tokens=step.context_tokens, usage=step.usage
        )
        self.context_tokens = gate.gate.context_tokens(self.agent_id)
        gate.wake(granted)
