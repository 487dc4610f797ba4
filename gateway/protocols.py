"""The protocols that agents speak: what the gateway has to know of each, and no more.

How to say "still there" between events, how to say that something failed after the answer had begun, and
where an answer has its usage. Requests and answers are never translated.

Usage fields: OpenAI's chat completions and completions (`usage.prompt_tokens`, in a stream the last chunk,
whose `choices` are empty, if `stream_options.include_usage`); Responses (`response.usage.input_tokens`, in
a stream that of `response.completed`); Anthropic's messages (`message_start` and `message_delta`; the
prompt is input_tokens + cache_read_input_tokens + cache_creation_input_tokens, as in vLLM 0.32.0,
entrypoints/anthropic/serving.py).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from concur.gateway.events import data_of
from concur.signals import Usage

_COMMENT: Final = b": keep-alive\n\n"
_PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'
_MOST_TOKENS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to ask for an answer.

    `ping` is what may stand between two events and means nothing. `failure` makes the event that says that
    an answer has failed after it had begun, from a word and a sentence. `usage` reads the usage of a whole
    answer or of one event's data, given what was known before; `calls_tool` whether there is a call of a
    tool in it.
    """

    name: str
    path: str
    ping: bytes
    failure: Callable[[str, str], bytes]
    usage: Callable[[Mapping[str, Any], Usage | None], Usage | None]
    calls_tool: Callable[[Mapping[str, Any]], bool]
    must_ask_for_usage: bool = False

    def is_only_usage(self, event: bytes) -> bool:
        """Whether an event is the chunk that `include_usage` adds to a stream."""
        if not self.must_ask_for_usage or b'"usage"' not in event:
            return False
        data = _parsed(data_of(event))
        return data.get("choices") == [] and bool(data.get("usage"))


class UsageReader:
    """Read the usage of one answer, whole or as events that pass by.

    `usage` is what the last word on it was, `calls_tools` whether the answer calls any.
    """

    __slots__ = ("calls_tools", "has_failed", "protocol", "usage")

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.usage: Usage | None = None
        self.calls_tools = False
        self.has_failed = False

    def read_event(self, event: bytes) -> None:
        """Look at one event; most are told from their bytes to have nothing of interest."""
        if b'"usage"' in event or b"tool" in event or b"_call" in event or b'"error"' in event:
            self._read(_parsed(data_of(event)))

    def read_whole(self, body: bytes) -> None:
        """Look at an answer that came in one piece."""
        self._read(_parsed(body))

    def _read(self, data: Mapping[str, Any]) -> None:
        self.usage = self.protocol.usage(data, self.usage) or self.usage
        self.calls_tools = self.calls_tools or self.protocol.calls_tool(data)
        response = _table(data.get("response"))
        self.has_failed = self.has_failed or bool(data.get("error") or response.get("error"))


def ask_for_usage(raw: bytes, body: Mapping[str, Any]) -> bytes:
    """Return a request for a stream with `stream_options.include_usage`, everything else byte for byte.

    Only where the client has stream options of its own, or does not write UTF-8, is the request written anew.
    """
    options = body.get("stream_options")
    if "stream_options" in body or not json.detect_encoding(raw).startswith("utf-8"):
        options = dict(options) if isinstance(options, Mapping) else {}
        return json.dumps({**body, "stream_options": options | {"include_usage": True}}).encode()
    start = raw.index(b"{") + 1
    more = b"" if not body else b","
    return raw[:start] + b'"stream_options":{"include_usage":true}' + more + raw[start:]


def asks_for_usage(body: Mapping[str, Any]) -> bool:
    """Whether a client wants the chunk of usage itself."""
    options = body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def offers_tools(body: Mapping[str, Any]) -> bool:
    """Whether a request lets the model call tools: then an answer that calls none ends the agent's turn."""
    return bool(body.get("tools"))


def _parsed(data: bytes) -> Mapping[str, Any]:
    """Return the JSON object of some bytes; an empty one if they are none (`[DONE]`, an odd server)."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _usage(prompt: object, output: object, cached: object) -> Usage | None:
    """Return counts that are counts; an engine's nonsense is no usage."""
    if not _is_count(prompt) or not _is_count(output):
        return None
    return Usage(prompt, output, cached if _is_count(cached) else None)  # type: ignore[arg-type]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _openai_usage(data: Mapping[str, Any], before: Usage | None) -> Usage | None:
    usage = _table(data.get("usage"))
    details = _table(usage.get("prompt_tokens_details"))
    return _usage(
        usage.get("prompt_tokens"), usage.get("completion_tokens") or 0, details.get("cached_tokens")
    )


def _openai_calls_tool(data: Mapping[str, Any]) -> bool:
    for choice in _list(data.get("choices")):
        said = _table(choice.get("message")) or _table(choice.get("delta"))
        if said.get("tool_calls") or said.get("function_call"):
            return True
    return False


def _openai_failure(kind: str, message: str) -> bytes:
    return b"data: %s\n\n" % json.dumps({"error": {"message": message, "type": kind, "code": kind}}).encode()


def _responses_usage(data: Mapping[str, Any], before: Usage | None) -> Usage | None:
    usage = _table(_table(data.get("response", data)).get("usage"))
    details = _table(usage.get("input_tokens_details"))
    return _usage(usage.get("input_tokens"), usage.get("output_tokens"), details.get("cached_tokens"))


def _responses_calls_tool(data: Mapping[str, Any]) -> bool:
    items = [*_list(_table(data.get("response", data)).get("output")), _table(data.get("item"))]
    return any(str(item.get("type", "")).endswith("_call") for item in items)


def _responses_failure(kind: str, message: str) -> bytes:
    response = {
        "id": "resp_gateway",
        "object": "response",
        "status": "failed",
        "output": [],
        "error": {"code": "server_error", "message": f"{kind}: {message}"},
    }
    data = {"type": "response.failed", "sequence_number": 0, "response": response}
    return b"event: response.failed\ndata: %s\n\n" % json.dumps(data).encode()


def _anthropic_usage(data: Mapping[str, Any], before: Usage | None) -> Usage | None:
    """Return the usage: `message_delta` may repeat the prompt's, and then better, or leave it out."""
    usage = _table(_table(data.get("message")).get("usage")) or _table(data.get("usage"))
    if before is not None and usage.get("input_tokens") is None:
        return _usage(before.prompt_tokens, usage.get("output_tokens"), before.cached_tokens)
    cached = usage.get("cache_read_input_tokens")
    parts = (usage.get("input_tokens"), cached or 0, usage.get("cache_creation_input_tokens") or 0)
    if not all(map(_is_count, parts)):
        return None
    return _usage(sum(parts), usage.get("output_tokens") or 0, cached)  # type: ignore[arg-type]


def _anthropic_calls_tool(data: Mapping[str, Any]) -> bool:
    blocks = [*_list(data.get("content")), _table(data.get("content_block"))]
    return any(block.get("type") == "tool_use" for block in blocks)


def _anthropic_failure(kind: str, message: str) -> bytes:
    known = kind if kind.endswith("_error") else "overloaded_error"
    data = {"type": "error", "error": {"type": known, "message": message}}
    return b"event: error\ndata: %s\n\n" % json.dumps(data).encode()


_OPENAI: Final[Mapping[str, Any]] = {
    "ping": _COMMENT,
    "failure": _openai_failure,
    "usage": _openai_usage,
    "calls_tool": _openai_calls_tool,
    "must_ask_for_usage": True,
}
PROTOCOLS: Final = (
    Protocol("chat", "/v1/chat/completions", **_OPENAI),
    Protocol("completions", "/v1/completions", **_OPENAI),
    Protocol(
        "responses",
        "/v1/responses",
        ping=_COMMENT,
        failure=_responses_failure,
        usage=_responses_usage,
        calls_tool=_responses_calls_tool,
    ),
    Protocol(
        "messages",
        "/v1/messages",
        ping=_PING,
        failure=_anthropic_failure,
        usage=_anthropic_usage,
        calls_tool=_anthropic_calls_tool,
    ),
)
"""What passes the gate; every other path passes beside it, untouched."""
