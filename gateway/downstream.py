"""The client's side of one call: nothing, then perhaps pings, then the answer, and never a half event."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web
from multidict import CIMultiDict

from concur.gateway.errors import HeldTooLongError, Refusal
from concur.gateway.protocols import Protocol

_SSE: Final = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


class Downstream:
    """What a client has been told so far.

    `protocol` is that of a stream, `None` where the answer comes in one piece and nothing can keep it alive.
    """

    def __init__(
        self,
        request: web.Request,
        protocol: Protocol | None,
        *,
        keep_alive_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.request = request
        self.response: web.StreamResponse | None = None
        self.num_pings = 0
        self._protocol = protocol
        self._keep_alive_s = keep_alive_s
        self._clock = clock
        self._began_s = self._heard_s = clock()

    @property
    def is_committed(self) -> bool:
        """Whether a status has gone out."""
        return self.response is not None

    def now_s(self) -> float:
        """Return seconds of the gateway's clock."""
        return self._clock()

    async def quietly(self, task: "asyncio.Future[Any]", *, limit_s: float | None = None) -> None:
        """Wait for a task, and keep the client from giving up meanwhile. Does not cancel the task.

        Raises
        ------
        HeldTooLongError
            If it takes longer than `limit_s` from the call's beginning.
        """
        until_s = None if limit_s is None else self._began_s + limit_s
        while not task.done():
            ping_in_s = self._heard_s + self._keep_alive_s - self._clock()
            left_s = None if until_s is None else until_s - self._clock()
            if left_s is not None and left_s <= 0:
                raise HeldTooLongError(self._clock() - self._began_s)
            if self._protocol is None:
                wait_s = left_s
            elif ping_in_s <= 0:
                await self.ping()
                continue
            else:
                wait_s = ping_in_s if left_s is None else min(ping_in_s, left_s)
            await asyncio.wait({task}, timeout=wait_s)

    def next_ping_s(self) -> float | None:
        """Return seconds until a ping is due; `None` where there are none."""
        if self._protocol is None:
            return None
        return max(0.0, self._heard_s + self._keep_alive_s - self._clock())

    async def ping(self) -> None:
        """Say that the answer is still to come; the first time this commits to an answer."""
        assert self._protocol is not None
        if self.response is None:
            await self.begin(200, None, CIMultiDict(_SSE))
        self.num_pings += 1
        await self.write(self._protocol.ping)

    def skip_ping(self) -> None:
        """Put the next ping off: an event has begun, and nothing may come into it."""
        self._heard_s = self._clock()

    async def begin(self, status: int, reason: str | None, headers: "CIMultiDict[str]") -> None:
        """Send status and headers."""
        self.response = web.StreamResponse(status=status, reason=reason, headers=headers)
        await self.response.prepare(self.request)

    async def write(self, data: bytes) -> None:
        """Send bytes, as fast as the client takes them."""
        assert self.response is not None
        await self.response.write(data)
        self._heard_s = self._clock()

    async def fail(self, kind: str, message: str) -> None:
        """End a stream that was begun with the event that says why."""
        assert self._protocol is not None
        await self.write(self._protocol.failure(kind, message))
        assert self.response is not None
        await self.response.write_eof()

    async def refuse(self, refusal: Refusal, *, is_anthropic: bool) -> web.StreamResponse:
        """Answer here: with a status as long as none has gone out, else with an event."""
        if self.response is None:
            return refusal_response(refusal, is_anthropic=is_anthropic)
        await self.fail(refusal.kind, str(refusal))
        return self.response

    def cut(self) -> None:
        """Break the connection off, as the upstream has: the client must not take this for an end."""
        if self.request.transport is not None:
            self.request.transport.abort()


def refusal_response(refusal: Refusal, *, is_anthropic: bool) -> web.Response:
    """Return a refusal in the words of a protocol."""
    error: Mapping[str, Any] = {"type": refusal.kind, "message": str(refusal), "code": refusal.kind}
    body = {"type": "error", "error": error} if is_anthropic else {"error": error}
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    return web.Response(
        status=refusal.status, text=json.dumps(body), content_type="application/json", headers=headers
    )
