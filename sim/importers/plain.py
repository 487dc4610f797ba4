"""Plain JSON from what Python writes: `NaN` and `Infinity`, which strict readers refuse, become null."""

import re
from dataclasses import dataclass
from typing import IO, Final

_CHUNK_BYTES: Final = 1 << 16
_SEPARATORS: Final = (b" ", b",", b"\n")
_NUMBERS: Final = re.compile(rb"(?<=[\s:,\[])(?:NaN|-?Infinity)(?=[\s,\]}]|$)")


@dataclass(slots=True)
class PlainJson:
    """A file to read from, a piece at a time; pieces end before a separator, so that no number is cut.

    The same words in a text become null too.
    """

    file: IO[bytes]
    rest: bytes = b""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at least one unless `size` is 0 or the file has ended."""
        if size == 0:
            return b""
        piece = b""
        while not piece and (chunk := self.file.read(_CHUNK_BYTES)):
            joined = self.rest + chunk
            end = max(joined.rfind(separator) for separator in _SEPARATORS)
            piece, self.rest = joined[: max(0, end)], joined[max(0, end) :]
        if not piece:
            piece, self.rest = self.rest, b""
        return _NUMBERS.sub(b"null", piece)
