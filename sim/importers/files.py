"""The JSON values of a file, one at a time: JSONL, a JSON list, or one JSON value; also compressed by gzip.

What cannot be read is left out, with a note that names the line. Memory holds one line or one element.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final, cast

from concur.sim.errors import ExtraMissingError, TraceError
from concur.sim.importers.importer import Head, Notes
from concur.sim.importers.plain import PlainJson

MAX_WHOLE_BYTES: Final = 64 * 2**20
"""JSON that is no JSONL is read at once up to this size where ijson is not installed."""
MAX_TEXT: Final = 512
"""Texts below a whole JSON value are cut to so many characters: identifiers and times are shorter."""
_HEAD_VALUES: Final = 64
_HEAD_BYTES: Final = 16 * 2**20
_HEAD_ELEMENTS: Final = 8
_GZIP: Final = b"\x1f\x8b"


def json_values(path: Path, notes: Notes) -> Iterator[tuple[str, Any]]:
    """Yield the values of a file, each with its place: those of its lines, or the elements of its list.

    Raises
    ------
    TraceError
        If the file cannot be read.
    ExtraMissingError
        If it is JSON of more than `MAX_WHOLE_BYTES` and ijson is not installed.
    """
    match _shape(path):
        case "lines":
            yield from _lines(path, notes)
        case "list":
            yield from _elements(path, notes)
        case _:
            value = whole_value(path, notes)
            if value is not None:
                yield str(path), value


def json_objects(path: Path, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a file, as `json_values` does, also those in lists; anything else is left out."""
    for where, value in json_values(path, notes):
        for element in value if isinstance(value, list) else [value]:
            if isinstance(element, dict):
                yield where, element
            else:
                notes.leave_out("a JSON value that is no object", where)


def whole_value(path: Path, notes: Notes) -> Any:
    """Return the one JSON value of a file, with its long texts cut; `None` for a broken one, with a note."""
    _ijson(path)
    with _opened(path) as file:
        return value_in(file, str(path), notes)


def value_in(file: IO[bytes], where: str, notes: Notes) -> Any:
    """Return the one JSON value in an open file, as `whole_value` does."""
    ijson = _ijson(None)
    try:
        return json.load(file) if ijson is None else _built(ijson, file, None)
    except _broken(ijson) as error:
        notes.leave_out(f"a file that is no JSON ({type(error).__name__})", where)
    return None


def read_head(path: Path, max_values: int = _HEAD_VALUES) -> Head:
    """Read the beginning of a file, by which its format is told.

    Raises
    ------
    TraceError, ExtraMissingError
        As `json_values`.
    """
    ignored = Notes()
    match _shape(path):
        case "lines":
            found = _lines(path, ignored, max_bytes=_HEAD_BYTES)
        case "list":
            found = _elements(path, ignored)
        case _:
            return Head(path, (_whole_head(path),))
    return Head(path, tuple(value for _, value in islice(found, max_values)))


def _whole_head(path: Path) -> Any:
    ijson = _ijson(path)
    with _opened(path) as file, suppress(*_broken(ijson)):
        return json.load(file) if ijson is None else _built(ijson, file, _HEAD_ELEMENTS)
    return None


def _lines(path: Path, notes: Notes, *, max_bytes: int | None = None) -> Iterator[tuple[str, Any]]:
    num_bytes = 0
    with _opened(path) as file:
        for where, line in _numbered(path, file, notes):
            num_bytes += len(line)
            if max_bytes is not None and num_bytes > max_bytes:
                return
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                whole = line.endswith(b"\n")
                notes.leave_out("a line that is not JSON" if whole else "a last line that breaks off", where)
                continue
            yield where, value


def _numbered(path: Path, file: IO[bytes], notes: Notes) -> Iterator[tuple[str, bytes]]:
    """Yield the lines that hold something; a compressed file that breaks off ends early, with a note."""
    number = 0
    try:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}, line {number}", line
    except (EOFError, zlib.error, gzip.BadGzipFile):
        notes.leave_out("the rest of a compressed file that breaks off", f"{path}, after line {number}")


def _elements(path: Path, notes: Notes) -> Iterator[tuple[str, Any]]:
    ijson = _ijson(path)
    number = 0
    with _opened(path) as file:
        try:
            found = json.load(file) if ijson is None else ijson.items(PlainJson(file), "item", use_float=True)
            for number, value in enumerate(found, 1):
                yield f"{path}, element {number}", value
        except _broken(ijson):
            notes.leave_out("the rest of a JSON list that breaks off", f"{path}, after element {number}")


def _built(ijson: ModuleType, file: IO[bytes], max_elements: int | None) -> Any:
    """Build a value from the events of a parser, without long texts and, if bounded, long lists."""
    builder = ijson.ObjectBuilder()
    lists: list[int] = []  # elements so far in each list around
    skipped = 0  # depth inside an element that is left out
    for event, value in ijson.basic_parse(PlainJson(file), use_float=True):
        opens, closes = event in ("start_map", "start_array"), event in ("end_map", "end_array")
        if skipped:
            skipped += opens - closes
            continue
        if not closes and event != "map_key" and lists and lists[-1] >= 0:
            lists[-1] += 1
            if max_elements is not None and lists[-1] > max_elements:
                skipped = int(opens)
                continue
        if opens:
            lists.append(0 if event == "start_array" else -1)
        elif closes:
            lists.pop()
        builder.event(event, value[:MAX_TEXT] if event == "string" else value)
    return builder.value


def _shape(path: Path) -> str:
    """Tell JSONL ("lines"), a JSON list ("list") and another JSON value ("value") apart."""
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if suffixes and suffixes[-1] in (".jsonl", ".ndjson"):
        _opened_once(path)
        return "lines"
    first, second = _opened_once(path)
    begin = first.lstrip()[:1]
    if begin == b"[":
        return "list"
    if begin != b"{":
        return "lines"
    if not second and suffixes and suffixes[-1] == ".json":
        return "value"
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return "value"
    return "lines"


def _opened_once(path: Path) -> tuple[bytes, bytes]:
    """Return the first two lines that hold something, cut to `_HEAD_BYTES`; empty where there is none."""
    with _opened(path) as file:
        try:
            lines = (line for line in iter(lambda: file.readline(_HEAD_BYTES), b"") if line.strip())
            return next(lines, b""), next(lines, b"")
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return b"", b""


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw:
            is_compressed = raw.read(2) == _GZIP
            raw.seek(0)
            if not is_compressed:
                yield raw
                return
            with gzip.open(raw, "rb") as unpacked:
                yield cast(IO[bytes], unpacked)
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file; name a recording") from None
    except (OSError, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read ({error}); name a recording") from None


def _ijson(path: Path | None) -> ModuleType | None:
    """Return the reader of large JSON; `None` where it is not installed and the file, if named, is small."""
    try:
        import ijson
    except ImportError as error:
        if path is not None and path.exists() and path.stat().st_size > MAX_WHOLE_BYTES:
            raise ExtraMissingError(error, extra="import") from None
        return None
    return cast(ModuleType, ijson)


def _broken(ijson: ModuleType | None) -> tuple[type[Exception], ...]:
    """Return the errors that broken JSON raises, compressed or not."""
    errors: tuple[type[Exception], ...] = (ValueError, EOFError, RecursionError, zlib.error)
    return errors if ijson is None else (*errors, ijson.JSONError)
