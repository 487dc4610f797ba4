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

Slots cannot leak: an agent that fails, or is cancelled, gives back what it holds on the way out of the
`async with`, whether it was waiting at the gate, in a step or in a tool wait. One event loop only: nothing
here is thread-safe.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from concur.errors import GateError
from concur.gate import Gate


@dataclass(slots=True)
class Step:
    """One step of an agent, from its turn to its end.

    Set `context_tokens` to prompt + output of the answer (`usage.total_tokens`) before the step ends; a step
    that fails leaves it as it was.
    """

    context_tokens: int
    began_s: float


class AsyncGate:
    """Hold agents at the gate until it is their turn.

    `clock` returns seconds that never go backwards; default is the running loop's clock. Give the same clock
    to the control loop.
    """

    def __init__(self, gate: Gate, *, clock: Callable[[], float] | None = None) -> None:
        self.gate = gate
        self._clock = clock
        self._turns: dict[str, asyncio.Future[None]] = {}

    def now_s(self) -> float:
        """Return the clock's reading, in seconds."""
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()

    @asynccontextmanager
    async def agent(
        self, agent_id: str, *, prefix_group: str | None = None, shared_prefix_tokens: int = 0
    ) -> AsyncIterator["LiveAgent"]:
        """Let an agent arrive, and leave at the end of the block, however that ends.

        Raises
        ------
        GateError
            If an agent of that name is here already.
        """
        self.gate.arrive(
            agent_id,
            time_s=self.now_s(),
            prefix_group=prefix_group,
            shared_prefix_tokens=shared_prefix_tokens,
        )
        agent = LiveAgent(self, agent_id)
        try:
            yield agent
        finally:
            agent.leave()

    def resize(self, window: int) -> None:
        """Set the window and let those begin who may.

        Raises
        ------
        ParameterError
            If the window is below 1.
        """
        self.wake(self.gate.resize(window, time_s=self.now_s()))

    def wake(self, agent_ids: Iterable[str]) -> None:
        """Let agents begin, in the order in which the gate named them."""
        for agent_id in agent_ids:
            turn = self._turns.pop(agent_id)
            if not turn.done():  # done: cancelled in this very turn of the loop; `take_turn` cleans up
                turn.set_result(None)

    async def take_turn(self, agent_id: str, context_tokens: int) -> float:
        """Wait until the agent may begin its step; return when that was, in seconds.

        A cancelled wait takes the request back, or ends the step that had just been granted.

        Raises
        ------
        GateError
            If the agent is not here, or has not ended its last step.
        """
        granted = self.gate.request_step(agent_id, time_s=self.now_s())
        turn = self._turns[agent_id] = asyncio.get_running_loop().create_future()
        self.wake(granted)
        try:
            await turn
        except asyncio.CancelledError:
            if self._turns.pop(agent_id, None) is None:  # its turn had come in the meantime
                self.end_step(agent_id, context_tokens)
            else:
                self.gate.withdraw(agent_id)
            raise
        return self.now_s()

    def leave(self, agent_id: str, context_tokens: int | None = None) -> None:
        """Let the agent go and others begin who may; a task that still waits for its turn gets an error.

        `context_tokens`: `usage` of the call that it leaves in, see `Gate.leave`.
        """
        turn = self._turns.pop(agent_id, None)
        if turn is not None and not turn.done():
            turn.set_exception(GateError(f"agent {agent_id!r} left while it waited for its turn"))
        self.wake(self.gate.leave(agent_id, time_s=self.now_s(), context_tokens=context_tokens))

    def end_step(self, agent_id: str, context_tokens: int) -> None:
        """End the agent's step and let others begin who may."""
        self.wake(self.gate.step_done(agent_id, time_s=self.now_s(), context_tokens=context_tokens))


class LiveAgent:
    """An agent that is at the gate. Life: arrived -> (waits -> in a step -> in a tool wait) ... -> gone.

    `admitted_s` (its first slot, `None` if it had none), `left_s` and `num_pauses` are there once it is gone.
    """

    def __init__(self, gate: AsyncGate, agent_id: str) -> None:
        self.agent_id = agent_id
        self.context_tokens = 0
        self.admitted_s: float | None = None
        self.left_s = 0.0
        self.num_pauses = 0
        self._gate = gate
        self._is_here = True

    @asynccontextmanager
    async def step(self) -> AsyncIterator[Step]:
        """Wait for the agent's turn, and end its step at the end of the block, however that ends."""
        step = await self._begin()
        try:
            yield step
        finally:
            self.context_tokens = step.context_tokens
            if self._is_here:
                self._gate.end_step(self.agent_id, step.context_tokens)

    @asynccontextmanager
    async def last_step(self) -> AsyncIterator[Step]:
        """Take a step after which the agent leaves at once: its slot passes on without a pause."""
        step = await self._begin()
        try:
            yield step
        finally:
            self.context_tokens = step.context_tokens
            self.leave()

    def leave(self) -> None:
        """Leave the gate; leaving twice is no error."""
        if not self._is_here:
            return
        self._is_here = False
        self.left_s = self._gate.now_s()
        gate = self._gate.gate
        self.admitted_s, self.num_pauses = gate.admitted_s(self.agent_id), gate.num_pauses(self.agent_id)
        self._gate.leave(self.agent_id, self.context_tokens)

    async def _begin(self) -> Step:
        return Step(
            self.context_tokens,
            await self._gate.take_turn(self.agent_id, self.context_tokens),
        )
