"""The answers of the scripted server in the words of each API: whole, and as the events of a stream."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

_CREATED_S: Final = 1_800_000_000


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model calls."""

    call_id: str
    name: str
    namespace: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says, and the tools that it calls."""

    text: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a call, cached ones within the prompt's."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of one API."""

    whole: dict[str, Any]
    events: tuple[bytes, ...]


PLAIN: Final = Answer("A title")
"""The answer to a request without a script, such as that for the title of a session."""


def _event(data: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def anthropic(answer: Answer, usage: Usage, body: dict[str, Any]) -> Reply:
    """Return an answer of /v1/messages."""
    fresh = min(3, usage.prompt_tokens - usage.cached_tokens)  # the rest is written to the cache
    counts = {
        "input_tokens": fresh,
        "cache_creation_input_tokens": usage.prompt_tokens - usage.cached_tokens - fresh,
        "cache_read_input_tokens": usage.cached_tokens,
    }
    blocks: list[dict[str, Any]] = [{"type": "text", "text": answer.text}]
    blocks += [
        {"type": "tool_use", "id": f"toolu_{c.call_id}", "name": c.name, "input": c.arguments}
        for c in answer.calls
    ]
    whole = {
        "id": f"msg_{answer.calls[0].call_id if answer.calls else 'last'}_{usage.prompt_tokens}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": blocks,
        "stop_reason": "tool_use" if answer.calls else "end_turn",
        "stop_sequence": None,
        "usage": counts | {"output_tokens": usage.output_tokens},
    }
    return Reply(whole, tuple(_event(data, data["type"]) for data in _anthropic_events(whole, counts, usage)))


def _anthropic_events(
    whole: dict[str, Any], counts: dict[str, int], usage: Usage
) -> Iterator[dict[str, Any]]:
    start: dict[str, Any] = {"content": [], "stop_reason": None, "usage": counts | {"output_tokens": 1}}
    yield {"type": "message_start", "message": whole | start}
    for index, block in enumerate(whole["content"]):
        is_text = block["type"] == "text"
        empty: dict[str, Any] = {"text": ""} if is_text else {"input": {}}
        delta = (
            {"type": "text_delta", "text": block["text"]}
            if is_text
            else {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        )
        yield {"type": "content_block_start", "index": index, "content_block": block | empty}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": counts | {"output_tokens": usage.output_tokens}}
    yield {"type": "message_stop"}


def responses(answer: Answer, usage: Usage, body: dict[str, Any]) -> Reply:
    """Return an answer of /v1/responses."""
    said = {"type": "output_text", "text": answer.text, "annotations": []}
    items: list[dict[str, Any]] = [
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [said]}
    ]
    items += [
        {
            "type": "function_call",
            "id": f"fc_{c.call_id}",
            "call_id": c.call_id,
            "name": c.name,
            "arguments": json.dumps(c.arguments),
            "status": "completed",
        }
        | ({"namespace": c.namespace} if c.namespace else {})
        for c in answer.calls
    ]
    whole = {
        "id": f"resp_{usage.prompt_tokens}",
        "object": "response",
        "created_at": _CREATED_S,
        "status": "completed",
        "model": body["model"],
        "output": items,
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens + usage.output_tokens,
        },
    }
    return Reply(whole, tuple(_event(data, data["type"]) for data in _responses_events(whole)))


def _responses_events(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun, "sequence_number": 0}
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        yield {"type": "response.output_item.added", "item": item, **place}
        if item["type"] == "message":
            yield {
                "type": "response.output_text.delta",
                "delta": item["content"][0]["text"],
                "content_index": 0,
                **place,
            }
        yield {"type": "response.output_item.done", "item": item, **place}
    yield {"type": "response.completed", "response": whole}


def chat(answer: Answer, usage: Usage, body: dict[str, Any]) -> Reply:
    """Return an answer of /v1/chat/completions."""
    calls = [
        {
            "index": index,
            "id": c.call_id,
            "type": "function",
            "function": {"name": c.name, "arguments": json.dumps(c.arguments)},
        }
        for index, c in enumerate(answer.calls)
    ]
    counts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    said = {"role": "assistant", "content": answer.text}
    called = {"tool_calls": calls} if calls else {}
    finish = "tool_calls" if calls else "stop"
    head = {"id": f"chatcmpl-{usage.prompt_tokens}", "created": _CREATED_S, "model": body["model"]}
    whole = head | {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": said | called, "finish_reason": finish}],
        "usage": counts,
    }
    chunk = head | {"object": "chat.completion.chunk"}
    events = (
        _event(chunk | {"choices": [{"index": 0, "delta": said, "finish_reason": None}]}),
        _event(chunk | {"choices": [{"index": 0, "delta": called, "finish_reason": finish}]}),
        _event(chunk | {"choices": [], "usage": counts}),
        b"data: [DONE]\n\n",
    )
    return Reply(whole, events)


def completions(answer: Answer, usage: Usage, body: dict[str, Any]) -> Reply:
    """Return an answer of /v1/completions, which knows no tools."""
    counts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    head = {"id": f"cmpl-{usage.prompt_tokens}", "created": _CREATED_S, "model": body["model"]}
    chunk = head | {"object": "text_completion"}
    choice = {"index": 0, "text": answer.text, "finish_reason": "stop"}
    events = (
        _event(chunk | {"choices": [choice | {"finish_reason": None}]}),
        _event(chunk | {"choices": [choice | {"text": ""}]}),
        _event(chunk | {"choices": [], "usage": counts}),
        b"data: [DONE]\n\n",
    )
    return Reply(chunk | {"choices": [choice], "usage": counts}, events)


DIALECTS: Final[dict[str, Callable[[Answer, Usage, dict[str, Any]], Reply]]] = {
    "/v1/messages": anthropic,
    "/v1/responses": responses,
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
}
