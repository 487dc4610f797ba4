"""The upstream's side: a request passes on byte for byte, and so does what comes back.

Headers lose what is between two hops (RFC 9110, 7.6.1) and nothing else; `Accept-Encoding: identity`, for
usage is read on the way. Idle connections are dropped after 4 s, for vLLM's server drops them after 5 s and
a request would meet the closing. Whatever ends a call here closes its connection upstream: the engine then
stops working on it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from concur.gateway.downstream import Downstream
from concur.gateway.errors import Refusal
from concur.gateway.protocols import Protocol, UsageReader
from concur.gateway.relay import Relay
from concur.signals import Usage

KEEP_ALIVE_S: Final = 4.0
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    }
)
_OWN: Final = frozenset({"host", "content-length", "accept-encoding"})
_KEYS: Final = frozenset({"authorization", "x-api-key"})
_LARGEST_HEADER: Final = 1 << 16
_MOST_READ: Final = 1 << 24  # of an answer in one piece, for its usage
_MOST_TOLD: Final = 1 << 12  # of an error, in an event


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it goes upstream; `takes_usage_out`: its usage was asked for here.

    `protocol` is `None` for what is none of ours, `is_stream` whether the client asked for one.
    """

    method: str
    target: str
    headers: "CIMultiDict[str]"
    body: bytes
    protocol: Protocol | None = None
    is_stream: bool = False
    takes_usage_out: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: `is_good` if an answer came to its end."""

    status: int
    is_good: bool
    usage: Usage | None = None
    calls_tool: bool = False
    first_byte_s: float | None = None


def upstream_headers(
    headers: "Mapping[str, str]", *, key: str | None, drops_keys: bool
) -> "CIMultiDict[str]":
    """Return the headers of a request as they go upstream.

    `key` takes the place of whatever key the client has sent; without one, `drops_keys` says that it was
    meant for the gateway, and is nobody else's business.
    """
    dropped = _HOP_BY_HOP | _OWN | _listed(headers)
    if key is not None or drops_keys:
        dropped |= _KEYS
    passed = CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)
    passed["Accept-Encoding"] = "identity"
    if key is not None:
        passed["Authorization"] = f"Bearer {key}"
        passed["x-api-key"] = key
    return passed


def downstream_headers(headers: "Mapping[str, str]", *, keeps_length: bool) -> "CIMultiDict[str]":
    """Return the headers of an answer as they go to the client."""
    dropped = _HOP_BY_HOP | _listed(headers) | (frozenset() if keeps_length else {"content-length"})
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def _listed(headers: "Mapping[str, str]") -> frozenset[str]:
    """Return what `Connection` says to be of this hop only."""
    return frozenset(
        name.strip().lower() for name in headers.get("Connection", "").split(",") if name.strip()
    )


def client_session(connect_s: float) -> aiohttp.ClientSession:
    """Return a session for the upstreams: no limit but the gate, no time-out but the client's."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        max_line_size=_LARGEST_HEADER,
        max_field_size=_LARGEST_HEADER,
    )


class Forwarder:
    """Make calls upstream for clients."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def serve(self, call: Call, upstream: str, down: Downstream) -> Outcome:
        """Make a call and pass its answer on, to the end.

        Raises
        ------
        Refusal
            If the upstream does not answer, and nothing has been said to the client yet.
        """
        opening = asyncio.ensure_future(self._open(call, upstream))
        try:
            await down.quietly(opening)
        except BaseException:  # the client has gone
            await _abandon(opening)
            raise
        try:
            response = opening.result()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Refusal(
                502,
                "upstream_error",
                f"the engine does not answer ({type(error).__name__}); is it up?",
                retry_after_s=2,
            ) from None
        try:
            if down.is_committed and not _is_stream(response):
                return await _told_late(response, down)
            return await self._pass_on(call, response, down)
        finally:
            response.close()

    async def _open(self, call: Call, upstream: str) -> aiohttp.ClientResponse:
        return await self._session.request(
            call.method,
            URL(upstream + call.target, encoded=True),
            headers=call.headers,
            data=call.body or None,
            allow_redirects=False,
        )

    async def _pass_on(self, call: Call, response: aiohttp.ClientResponse, down: Downstream) -> Outcome:
        is_events = _is_stream(response)
        reader: Relay | _Whole = (
            Relay(call.protocol, takes_usage_out=call.takes_usage_out)
            if call.protocol is not None and is_events
            else _Whole(call.protocol)
        )
        if not down.is_committed:
            headers = downstream_headers(response.headers, keeps_length=not call.takes_usage_out)
            await down.begin(response.status, response.reason, headers)
        first_byte_s = None
        try:
            while chunk := await _next_chunk(response, reader, down):
                first_byte_s = down.now_s() if first_byte_s is None else first_byte_s
                if passed := reader.feed(chunk):
                    await down.write(passed)
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, TimeoutError):
            down.cut()
            return Outcome(response.status, is_good=False, first_byte_s=first_byte_s)
        if rest := reader.end():
            await down.write(rest)
        assert down.response is not None
        await down.response.write_eof()
        told = reader.reader
        is_good = response.status == 200 and not (told is not None and told.has_failed)
        return Outcome(
            response.status,
            is_good,
            told.usage if told is not None else None,
            told.calls_tools if told is not None else False,
            first_byte_s,
        )


class _Whole:
    """An answer in one piece, or of nobody's protocol: it passes, and its usage is read at the end."""

    is_between = False

    def __init__(self, protocol: Protocol | None) -> None:
        self.reader = UsageReader(protocol) if protocol is not None else None
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> bytes:
        if self.reader is not None and self._size <= _MOST_READ:
            self._parts.append(chunk)
            self._size += len(chunk)
        return chunk

    def end(self) -> bytes:
        if self.reader is not None and self._size <= _MOST_READ:
            self.reader.read_whole(b"".join(self._parts))
        return b""


async def _next_chunk(response: aiohttp.ClientResponse, reader: Relay | _Whole, down: Downstream) -> bytes:
    """Return what the upstream sends next, nothing at its end; ping while it is silent between two events."""
    while True:
        try:
            async with asyncio.timeout(down.next_ping_s() if isinstance(reader, Relay) else None):
                return await response.content.readany()
        except TimeoutError:
            if reader.is_between:
                await down.ping()
            else:
                down.skip_ping()


async def _told_late(response: aiohttp.ClientResponse, down: Downstream) -> Outcome:
    """Say in an event what a status can no longer say."""
    text = (await response.content.read(_MOST_TOLD)).decode(errors="replace")
    await down.fail("upstream_error", f"the engine answered with status {response.status}: {text}")
    return Outcome(response.status, is_good=False)


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200 and response.content_type == "text/event-stream"


async def _abandon(opening: "asyncio.Future[aiohttp.ClientResponse]") -> None:
    """Break off a request that nobody waits for any more."""
    opening.cancel()
    await asyncio.wait({opening})
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
