"""What importers of texts share: a file with its texts whole, and the tokens of messages.

Messages are counted by their texts: contents, reasoning, and tool calls with their arguments. Marks between
messages, and the definitions of tools that a client sends along, are in no transcript and are not counted.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from concur.sim.errors import TraceError
from concur.sim.importers.importer import CountTokens, Head, Notes
from concur.sim.importers.values import list_of, object_of
from concur.sim.traces.format import TraceAgent

COUNTED: Final = "tokens counted by the tokenizer, without marks between messages and definitions of tools"
"""The note for a call whose tokens are no record's."""


@dataclass(frozen=True, slots=True)
class TextImporter:
    """An importer of a format whose files stand alone and hold texts; a `JointImporter`."""

    name: str
    title: str
    told_by: Callable[[Head], bool]
    agents: Callable[[Path, Notes, CountTokens | None], Iterator[TraceAgent]]
    needs_tokenizer: bool = False

    def recognises(self, head: Head) -> bool:
        """Tell whether a file that begins so is of this format."""
        return self.told_by(head)

    def read(self, path: Path, notes: Notes, count_tokens: CountTokens | None = None) -> Iterator[TraceAgent]:
        """Yield the agents of a file."""
        return self.agents(path, notes, count_tokens)

    def read_all(
        self, paths: Sequence[Path], notes: Notes, count_tokens: CountTokens | None = None
    ) -> Iterator[TraceAgent]:
        """Yield the agents of all files."""
        for path in paths:
            yield from self.agents(path, notes, count_tokens)


def value_with_texts(path: Path, notes: Notes) -> Any:
    """Return the one JSON value of a file, also compressed by gzip; `None` for a broken one, with a note.

    Raises
    ------
    TraceError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            is_compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return json.loads(gzip.decompress(file.read()) if is_compressed else file.read())
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file; name a recording") from None
    except OSError as error:
        if not isinstance(error, gzip.BadGzipFile):
            raise TraceError(f"{path}: cannot be read ({error}); name a recording") from None
        notes.leave_out("a compressed file that is broken", str(path))
    except (ValueError, EOFError, RecursionError, zlib.error) as error:
        notes.leave_out(f"a file that is no JSON ({type(error).__name__})", str(path))
    return None


def message_counter(count_tokens: CountTokens) -> Callable[[Mapping[str, Any]], int]:
    """Return what counts the tokens of a message; the same text is counted once."""
    count = cache(count_tokens)
    return lambda message: sum(count(text) for text in message_texts(message))


def message_texts(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a message in the form of chats or of responses."""
    yield from _texts(message.get("content"))
    yield from _texts(message.get("output"))
    yield from _texts(message.get("reasoning_content") or message.get("thinking_blocks"))
    for call in map(object_of, list_of(message.get("tool_calls"))):
        yield from _called(object_of(call.get("function")) or call)
    if message.get("type") == "function_call":
        yield from _called(message)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a content: it is one itself, or a list of parts."""
    if isinstance(value, str):
        yield value
        return
    for part in map(object_of, list_of(value)):
        found = part.get("text") or part.get("thinking")
        if isinstance(found, str):
            yield found
        else:
            yield from message_texts(part)


def _called(call: Mapping[str, Any]) -> Iterator[str]:
    arguments = call.get("arguments")
    yield from (value for value in (call.get("name"), arguments) if isinstance(value, str))
    if isinstance(arguments, dict):
        yield json.dumps(arguments)
