"""OpenAI's Agents SDK on a gate: a model that waits for its turn.

::

    async with engine_gate("http://127.0.0.1:8000", "twin") as gate, gate.agent("a-17") as me:
        model = GatedModel(OpenAIChatCompletionsModel(model="m", openai_client=client))
        with as_agent(me):
            await Runner.run(Agent(name="coder", model=model, tools=[...]), "the task")

Every call of the loop is a step; its tools run with the slot kept. A streamed call is a step until its
end; for its usage give the agent `ModelSettings(include_usage=True)`.
"""

from collections.abc import AsyncIterator
from typing import Any

from agents import Model

from concur.live.decorate import current_agent, gated, openai_usage


class GatedModel(Model):  # type: ignore[misc] # the SDK is not among the project's own packages
    """A model of the SDK whose calls are steps of the agent of `as_agent`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._respond = gated(usage=openai_usage)(model.get_response)

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model when it is the agent's turn."""
        return await self._respond(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Stream the model's answer when it is the agent's turn; the step lasts as long as the stream."""
        agent = current_agent()
        if agent is None:
            async for event in self._model.stream_response(*args, **kwargs):
                yield event
            return
        async with agent.step() as step:
            async for event in self._model.stream_response(*args, **kwargs):
                usage = openai_usage(getattr(event, "response", None))
                if usage is not None:
                    step.usage = usage
                yield event
