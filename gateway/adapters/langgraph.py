"""LangGraph, and all else on LangChain's chat models, on a gate: a node that waits for its turn.

::

    async with engine_gate("http://127.0.0.1:8000", "twin") as gate, gate.agent("a-17") as me:
        with as_agent(me):
            await graph.ainvoke({"messages": [...]})

where the node that calls the model calls `ask(model, messages)` of this module. Tool nodes stay as they are.
"""

from typing import Any

from concur.live.decorate import gated
from concur.signals import Usage


def langchain_usage(message: Any) -> Usage | None:
    """Read the usage of a message of LangChain's chat models."""
    usage = getattr(message, "usage_metadata", None)
    if not usage:
        return None
    cached = (usage.get("input_token_details") or {}).get("cache_read")
    return Usage(usage["input_tokens"], usage["output_tokens"], cached)


@gated(usage=langchain_usage)
async def ask(model: Any, messages: Any) -> Any:
    """Call a chat model as a step of the agent of `as_agent`."""
    return await model.ainvoke(messages)
