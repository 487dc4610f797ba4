"""One gate for rollout workers on a cluster (verl, SkyRL): a Ray actor that owns it.

::

    gate = ray.remote(GateActor).options(num_cpus=0, max_concurrency=10_000).remote(urls, "twin")
    ticket = await gate.begin.remote("rollout-17")          # waits for its turn
    answer = await call_the_engine(...)
    await gate.end.remote(ticket, prompt_tokens, output_tokens)
    await gate.leave.remote("rollout-17")

The actor is asynchronous: a worker that waits holds one of its coroutines, not a thread. A worker that dies
in a step is missed by no one: `end_s` after its turn the step is taken back.
"""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from concur.live.engine_gate import engine_gate
from concur.live.gate import AsyncGate, LiveAgent, Step
from concur.signals import Usage

END_S: Final = 3600.0


@dataclass(slots=True)
class _Turn:
    step: Step
    stack: AsyncExitStack
    timer: asyncio.TimerHandle


class GateActor:
    """The gate of `engine_gate`, for callers that are elsewhere. Life: the first call opens it; `close`."""

    def __init__(self, urls: str | Sequence[str], law: str, *, end_s: float = END_S, **options: Any) -> None:
        self._urls, self._law, self._options = urls, law, options
        self._end_s = end_s
        self._opening: asyncio.Lock = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._gate: AsyncGate | None = None
        self._agents: dict[str, tuple[LiveAgent, AsyncExitStack]] = {}
        self._turns: dict[int, _Turn] = {}
        self._numbers = itertools.count()

    async def begin(self, agent_id: str, parent: str | None = None) -> int:
        """Wait for an agent's turn, and return what `end` asks for; the agent arrives with its first call."""
        gate = await self._opened()
        agent = await self._agent(gate, agent_id, parent)
        stack = AsyncExitStack()
        step = await stack.enter_async_context(agent.step())
        number = next(self._numbers)
        timer = asyncio.get_running_loop().call_later(self._end_s, self._lose, number)
        self._turns[number] = _Turn(step, stack, timer)
        return number

    async def end(self, ticket: int, prompt_tokens: int | None = None, output_tokens: int = 0) -> bool:
        """End a step; its tokens are those of the answer, if there was one. False: it had been taken back."""
        turn = self._turns.pop(ticket, None)
        if turn is None:
            return False
        turn.timer.cancel()
        if prompt_tokens is not None:
            turn.step.usage = Usage(prompt_tokens, output_tokens)
        await turn.stack.aclose()
        return True

    async def leave(self, agent_id: str) -> None:
        """Let an agent go; one that is not here is no error."""
        found = self._agents.pop(agent_id, None)
        if found is not None:
            await found[1].aclose()

    async def close(self) -> None:
        """Let everybody go, and end the control loop."""
        for agent_id in list(self._agents):
            await self.leave(agent_id)
        await self._stack.aclose()

    async def _opened(self) -> AsyncGate:
        async with self._opening:
            if self._gate is None:
                block = engine_gate(self._urls, self._law, **self._options)
                self._gate = await self._stack.enter_async_context(block)
            return self._gate

    async def _agent(self, gate: AsyncGate, agent_id: str, parent: str | None) -> LiveAgent:
        if agent_id not in self._agents:
            stack = AsyncExitStack()
            above = self._agents[parent][0] if parent in self._agents else None
            agent = await stack.enter_async_context(gate.agent(agent_id, parent=above))
            self._agents[agent_id] = (agent, stack)
        return self._agents[agent_id][0]

    def _lose(self, number: int) -> None:
        """Take a step back whose worker never ended it."""
        turn = self._turns.pop(number)
        self._losing = asyncio.ensure_future(turn.stack.aclose())
