"""The gate for agents on threads: a bridge to the event loop that the gate lives on.

::

    def make():  # on the gate's loop
        return ControlledGate(controller, make_gate("hybrid", controller.window), read)

    with gate_on_thread(make) as gate, ThreadPoolExecutor(64) as pool:
        pool.map(run_agent, tasks)

    def run_agent(task):
        with gate.agent(task.name) as agent:
            while not task.done:
                with agent.step() as step:      # blocks this thread, and no other
                    step.context_tokens = call_the_model(task).usage.total_tokens
                run_the_tool(task)

The gate itself stays on one event loop, in one thread; every call here is carried over to it and waited for.
In a program that has a loop already, make `ThreadGate(gate, loop)` there and hand it to the threads.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, TypeVar

from concur.errors import GateError
from concur.live.gate import AsyncGate, LiveAgent, Step
from concur.signals import Prefix

T = TypeVar("T")


class ThreadGate:
    """What threads use of a gate that lives on `loop`, which must be running."""

    def __init__(self, gate: AsyncGate, loop: asyncio.AbstractEventLoop) -> None:
        self.gate = gate
        self._loop = loop

    @contextmanager
    def agent(
        self,
        agent_id: str,
        *,
        parent: "str | ThreadAgent | None" = None,
        prefix_group: str | None = None,
        shared_prefix_tokens: int = 0,
        outer_prefixes: Sequence[Prefix] = (),
        fork: Prefix | None = None,
    ) -> Iterator["ThreadAgent"]:
        """Let an agent arrive, and leave at the end of the block; see `AsyncGate.agent`."""
        parent_id = parent.agent_id if isinstance(parent, ThreadAgent) else parent

        def arriving() -> AbstractAsyncContextManager[LiveAgent]:
            return self.gate.agent(
                agent_id,
                parent=parent_id,
                prefix_group=prefix_group,
                shared_prefix_tokens=shared_prefix_tokens,
                outer_prefixes=outer_prefixes,
                fork=fork,
            )

        with _entered(self._loop, arriving) as agent:
            yield ThreadAgent(agent, self._loop)


class ThreadAgent:
    """An agent at the gate, as a thread sees it."""

    def __init__(self, agent: LiveAgent, loop: asyncio.AbstractEventLoop) -> None:
        self._agent = agent
        self._loop = loop

    @property
    def agent_id(self) -> str:
        """Its id."""
        return self._agent.agent_id

    @contextmanager
    def step(self) -> Iterator[Step]:
        """Wait for the agent's turn, blocking this thread; see `LiveAgent.step`."""
        with _entered(self._loop, self._agent.step) as step:
            yield step


@contextmanager
def gate_on_thread(make: Callable[[], AbstractAsyncContextManager[AsyncGate]]) -> Iterator[ThreadGate]:
    """Run an event loop on a thread of its own, enter there what `make` returns, and yield its bridge.

    Raises
    ------
    ConcurError
        What that block raises on entering and on leaving, e.g. `ControlError` at its end.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="concur gate", daemon=True)
    thread.start()
    try:
        with _entered(loop, make) as gate:
            yield ThreadGate(gate, loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _entered(
    loop: asyncio.AbstractEventLoop, make: Callable[[], AbstractAsyncContextManager[T]]
) -> Iterator[T]:
    """Make, enter and leave an asynchronous block on `loop`, from another thread."""
    stack = AsyncExitStack()

    async def entering() -> T:
        return await stack.enter_async_context(make())

    try:
        value = _call(loop, entering())
    except BaseException:  # an interrupt may have come when the block had just been entered
        _call(loop, stack.aclose())
        raise
    try:
        yield value
    except BaseException as error:
        if not _call(loop, stack.__aexit__(type(error), error, error.__traceback__)):
            raise
    else:
        _call(loop, stack.aclose())


def _call(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on `loop` and wait for it; an interrupt of the wait cancels it there."""
    if _running_loop() is loop:
        coroutine.close()
        raise GateError(
            "a thread's gate was called on the gate's own event loop, which would wait for itself; use the "
            "AsyncGate there"
        )
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
