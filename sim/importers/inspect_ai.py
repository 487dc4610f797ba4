"""Logs of Inspect AI: `.eval`, a zip file with a JSON file a sample, or one JSON file.

A sample is an agent, and an agent span within another is a sub-agent. A call is a model event: `timestamp` is
when it began, `completed` when it ended, and `usage` has fresh, read and written tokens apart. Calls that a
cache of Inspect answered took no model; those of scorers are no agent's.
"""

import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final
from zipfile import BadZipFile, ZipFile, ZipInfo

from concur.sim.errors import ExtraMissingError, TraceError
from concur.sim.importers.calls import Call, counted
from concur.sim.importers.files import value_in, whole_value
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.recorded import agents_of
from concur.sim.importers.spans import Span, recorded_of
from concur.sim.importers.values import count_of, list_of, object_of, text_of, time_of
from concur.sim.traces.format import TraceAgent

_SOURCE: Final = "inspect-ai"
_EVAL: Final = ".eval"
_ZSTD: Final = 93
"""The method of zip files that Inspect packs with; Python's own reader has it from 3.14 on."""
_LOCAL_HEADER_BYTES: Final = 30
_SCORERS: Final = ("scorer", "scorers")
_TOOLS: Final = ("tool", "subtask")


@dataclass(slots=True)
class _Sample:
    """What has been read of a sample; grows event by event."""

    name: str
    where: str
    spans: list[Span] = field(default_factory=list)
    scorers: set[str] = field(default_factory=set)


def _told_by(head: Head) -> bool:
    if head.path.suffix == _EVAL:
        return True
    log = head.first("eval", "status", "version")
    return log is not None and "task" in object_of(log["eval"])


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    seen: set[str] = set()
    for path in paths:
        for where, sample in _samples(path, notes):
            name = f"{text_of(sample.get('id')) or 'sample'}/{text_of(sample.get('epoch')) or 1}"
            if name in seen:  # of another log: a sample has an id of its own only in newer ones
                name = f"{text_of(sample.get('uuid')) or path.stem}/{name}"
            seen.add(name)
            found = _Sample(name, where)
            for number, event in enumerate(list_of(sample.get("events")), 1):
                _add(found, object_of(event), f"{where}, event {number}", None, notes)
            yield from agents_of(recorded_of(found.spans, _SOURCE, notes), notes)


def _samples(path: Path, notes: Notes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix != _EVAL:
        samples = list_of(object_of(whole_value(path, notes)).get("samples"))
        yield from ((f"{path}, sample {number}", object_of(one)) for number, one in enumerate(samples, 1))
        return
    try:
        with path.open("rb") as file, ZipFile(file) as archive:
            members = [one for one in archive.infolist() if one.filename.startswith("samples/")]
            for member in sorted(members, key=lambda one: one.header_offset):
                where = f"{path}, {member.filename}"
                with _unpacked(file, archive, member) as unpacked:
                    yield where, object_of(value_in(unpacked, where, notes))
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file; name a recording") from None
    except (OSError, BadZipFile) as error:
        raise TraceError(f"{path}: cannot be read ({error}); name a whole .eval file") from None


@contextmanager
def _unpacked(file: IO[bytes], archive: ZipFile, member: ZipInfo) -> Iterator[IO[bytes]]:
    try:
        with archive.open(member) as unpacked:
            yield unpacked
            return
    except NotImplementedError:
        if member.compress_type != _ZSTD:
            raise TraceError(
                f"{member.filename}: zip method {member.compress_type} but must be stored, deflate or zstd; "
                "convert the log with `inspect log convert --to json`"
            ) from None
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError as error:
        raise ExtraMissingError(error, extra="import") from None
    packed = io.BytesIO(_raw(file, member))
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as unpacked:
        yield unpacked


def _raw(file: IO[bytes], member: ZipInfo) -> bytes:
    """Return the packed bytes of a member, which stand after a header with two names of given lengths."""
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    file.seek(skipped, io.SEEK_CUR)
    return file.read(member.compress_size)


def _add(sample: _Sample, event: Mapping[str, Any], where: str, around: str | None, notes: Notes) -> None:
    """Add an event; older logs have the events of a tool within that of the tool, `around` them."""
    kind, span = event.get("event"), text_of(event.get("span_id")) or around
    if kind == "span_begin":
        _open(sample, event)
    elif kind == "model":
        if (call := _call(sample, event, span, where, notes)) is not None:
            name = f"{where}, call"
            sample.spans.append(Span(name, sample.name, span, sample.name, call=call))
    elif kind in _TOOLS and event.get("events"):
        name = text_of(event.get("uuid")) or text_of(event.get("id")) or where
        inside = Span(
            name,
            sample.name,
            span or where,
            sample.name,
            is_agent=True,
            began_s=time_of(event.get("timestamp")),
            ended_s=time_of(event.get("completed")),
        )
        sample.spans += [Span(where, sample.name, session=sample.name, is_agent=True), inside]
        for number, inner in enumerate(list_of(event.get("events")), 1):
            _add(sample, object_of(inner), f"{where}.{number}", name, notes)


def _open(sample: _Sample, event: Mapping[str, Any]) -> None:
    name, parent = text_of(event.get("id")), text_of(event.get("parent_id"))
    if name is None:
        return
    if event.get("type") in _SCORERS or parent in sample.scorers:
        sample.scorers.add(name)
    is_agent = event.get("type") == "agent"
    sample.spans.append(Span(name, sample.name, parent, sample.name, is_agent=is_agent))


def _call(
    sample: _Sample, event: Mapping[str, Any], span: str | None, where: str, notes: Notes
) -> Call | None:
    if event.get("cache") == "read":
        notes.leave_out("a call that Inspect's cache answered", where)
        return None
    if span in sample.scorers or event.get("role") == "grader":
        notes.leave_out("a call of a scorer", where)
        return None
    usage = object_of(object_of(event.get("output")).get("usage"))
    if event.get("error") is not None and not usage:
        notes.leave_out("a call that failed", where)
        return None
    parts = [count_of(usage.get(f"input_tokens{part}")) for part in ("", "_cache_read", "_cache_write")]
    prompt = None if parts[0] is None else sum(part or 0 for part in parts)
    tokens = counted(prompt, usage.get("output_tokens"), where, notes)
    if tokens is None:
        return None
    limit = count_of(object_of(event.get("config")).get("max_tokens"))
    return Call(
        *tokens,
        where,
        cached_tokens=parts[1],
        began_s=time_of(event.get("timestamp")),
        ended_s=time_of(event.get("completed")),
        max_new_tokens=limit or None,
    )


INSPECT_AI: Final = CountsImporter(
    name="inspect-ai",
    title="Inspect AI log (logs/*.eval, *.json)",
    told_by=_told_by,
    agents=_agents,
)
