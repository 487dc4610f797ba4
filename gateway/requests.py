"""A request as it comes in: its target, its body within bounds, and the call that it makes upstream."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from concur.gateway.errors import Refusal
from concur.gateway.forward import Call
from concur.gateway.protocols import Protocol, ask_for_usage, asks_for_usage


def make_call(
    request: web.Request,
    protocol: Protocol,
    headers: "CIMultiDict[str]",
    raw: bytes,
    body: Mapping[str, Any],
) -> Call:
    """Return the call that a request makes upstream, which asks for its usage where the client does not."""
    is_stream = body.get("stream") is True
    call = Call(request.method, request.raw_path, headers, raw, protocol, is_stream)
    if not is_stream or not protocol.must_ask_for_usage or asks_for_usage(body):
        return call
    return replace(call, body=ask_for_usage(raw, body), takes_usage_out=True)


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """Return a request's body.

    Raises
    ------
    Refusal
        If it is longer than `max_bytes`.
    """
    parts, size = [], 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > max_bytes:
            raise Refusal(
                413,
                "body_too_large",
                f"the body has more than {max_bytes} bytes; raise limits.max_body_bytes",
            )
        parts.append(chunk)
    return b"".join(parts)


def object_of(raw: bytes) -> Mapping[str, Any]:
    """Return a body as a JSON object; what is none is the engine's to refuse."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check_target(target: str) -> None:
    """Refuse a request target that, put behind an upstream's address, could name another host.

    Raises
    ------
    Refusal
        If it is not a path.
    """
    if not target.startswith("/") or not target.isascii():
        raise Refusal(
            400, "bad_target", "the target must be a path of ASCII characters; percent-encode others"
        )
