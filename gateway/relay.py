"""What passes of a stream: every byte as it comes, but for the one chunk that only the gateway asked for."""

from concur.gateway.events import EventSplitter
from concur.gateway.protocols import Protocol, UsageReader


class Relay:
    """Let a stream pass, and read its usage on the way.

    `takes_usage_out`: the client did not ask for the chunk of usage. Only then is the end of a chunk kept
    back until its event is whole, for it could be that one.
    """

    __slots__ = ("_splitter", "_takes_usage_out", "reader")

    def __init__(self, protocol: Protocol, *, takes_usage_out: bool) -> None:
        self.reader = UsageReader(protocol)
        self._splitter = EventSplitter()
        self._takes_usage_out = takes_usage_out

    @property
    def is_between(self) -> bool:
        """Whether a ping may go out now."""
        return self._splitter.is_between

    def feed(self, chunk: bytes) -> bytes:
        """Return what of the bytes to pass on now, perhaps nothing."""
        events = self._splitter.feed(chunk)
        for event in events:
            self.reader.read_event(event)
        if not self._takes_usage_out:
            return chunk
        return b"".join(map(self._passed, events))

    def _passed(self, event: bytes) -> bytes:
        """Return what of an event passes; blank lines in front of the chunk of usage are not its own."""
        if not self.reader.protocol.is_only_usage(event):
            return event
        return event[: len(event) - len(event.lstrip(b"\r\n"))]

    def end(self) -> bytes:
        """Return what was kept back of an event that never ended."""
        rest = self._splitter.rest if self._takes_usage_out else b""
        self._splitter = EventSplitter()
        return rest
