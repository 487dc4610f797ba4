"""Server-sent events as they pass by: where each ends, so that nothing is ever put into the middle of one.

An event ends at a blank line (WHATWG HTML, 9.2.6). Lines end in LF or CRLF here; the third form of that text,
a lone CR, is what no engine sends, and would only keep pings away.
"""

import re
from collections.abc import Iterator
from typing import Final

_END: Final = re.compile(rb"\r?\n\r?\n")
_LOOK_BACK: Final = 3
LARGEST_EVENT: Final = 1 << 24
"""An event longer than this is no longer looked into, and passes as it comes."""


class EventSplitter:
    """Cut a stream of bytes into whole events; what has begun and not ended is `rest`."""

    __slots__ = ("_searched", "rest")

    def __init__(self) -> None:
        self.rest = b""
        self._searched = 0

    @property
    def is_between(self) -> bool:
        """Whether no event has begun that has not ended."""
        return not self.rest

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in bytes; return the events that are whole now, each with its blank line."""
        data = self.rest + chunk if self.rest else chunk
        events, start = [], 0
        search_from = max(0, self._searched - _LOOK_BACK)
        while (found := _END.search(data, search_from)) is not None:
            events.append(data[start : found.end()])
            start = search_from = found.end()
        self.rest = data[start:]
        self._searched = len(self.rest)
        if self._searched > LARGEST_EVENT:
            events.append(self.rest)
            self.rest, self._searched = b"", 0
        return events


def data_of(event: bytes) -> bytes:
    """Return what the `data:` lines of an event say."""
    return b"\n".join(_data_lines(event))


def _data_lines(event: bytes) -> Iterator[bytes]:
    for line in event.splitlines():
        if line.startswith(b"data:"):
            yield line[5:].removeprefix(b" ")
