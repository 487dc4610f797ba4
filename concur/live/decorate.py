"""A gate for functions: what is decorated makes its model calls as steps of an agent.

::

    @gated(usage=openai_usage)
    async def ask(messages):
        return await client.chat.completions.create(model="m", messages=messages)

    async with gate.agent("a-17") as me, as_agent(me):
        answer = await ask(messages)       # waits for its turn

Which agent calls is told by the context (`contextvars`), so it reaches through frameworks that call the
function from tasks of their own. Outside of `as_agent` the function is what it was.
"""

import functools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

from concur.live.gate import LiveAgent
from concur.signals import Usage

P = ParamSpec("P")
T = TypeVar("T")
Asynchronous = Callable[P, Coroutine[Any, Any, T]]
ReadUsage = Callable[[Any], Usage | None]

_AGENT: Final[ContextVar[LiveAgent | None]] = ContextVar("concur agent", default=None)


def current_agent() -> LiveAgent | None:
    """Return the agent whose calls these are; `None` outside of `as_agent`."""
    return _AGENT.get()


@contextmanager
def as_agent(agent: LiveAgent) -> Iterator[LiveAgent]:
    """Let all that runs in this block call for an agent, also in tasks that it starts."""
    token = _AGENT.set(agent)
    try:
        yield agent
    finally:
        _AGENT.reset(token)


def gated(*, usage: ReadUsage) -> Callable[[Asynchronous[P, T]], Asynchronous[P, T]]:
    """Make every call of an asynchronous function a step of the agent in whose block it happens.

    `usage` reads the usage of what the function returns, `None` if it has none.
    """

    def decorate(call: Asynchronous[P, T]) -> Asynchronous[P, T]:
        @functools.wraps(call)
        async def step(*args: P.args, **kwargs: P.kwargs) -> T:
            agent = _AGENT.get()
            if agent is None:
                return await call(*args, **kwargs)
            async with agent.step() as turn:
                answer = await call(*args, **kwargs)
                if (told := usage(answer)) is not None:
                    turn.usage = told
            return answer

        return step

    return decorate


def openai_usage(answer: Any) -> Usage | None:
    """Read the usage of an answer of OpenAI's SDK: chat completions, completions or Responses."""
    usage = getattr(answer, "usage", None)
    if usage is None:
        return None
    prompt = getattr(usage, "prompt_tokens", None)
    if prompt is not None:
        cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None)
        return Usage(prompt, usage.completion_tokens, cached)
    cached = getattr(getattr(usage, "input_tokens_details", None), "cached_tokens", None)
    return Usage(usage.input_tokens, usage.output_tokens, cached)
