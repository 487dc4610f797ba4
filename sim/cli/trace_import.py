"""The verb `concur trace import`."""

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TextIO

import typer

from concur.sim.errors import TraceError
from concur.sim.files import whole_file
from concur.sim.importers.catalog import IMPORTERS, detect
from concur.sim.importers.importer import CountTokens, Importer, JointImporter, Notes
from concur.sim.importers.tokenizers import tokenizer
from concur.sim.traces.checks import contexts
from concur.sim.traces.format import TraceAgent, to_line
from concur.sim.traces.trace import read_trace


def import_traces(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings, also .gz.")],
    out: Annotated[Path, typer.Option("--out", metavar="TRACE", help="The trace to write, also .gz.")],
    format_name: Annotated[
        str | None, typer.Option("--from", metavar="FORMAT", help="Their format; default: told by each file.")
    ] = None,
    tokenizer_name: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="NAME", help="tiktoken:ENCODING or a tokenizer.json, for texts."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse guesses, and what is left out.")] = False,
) -> None:
    """Turn recordings of other tools into a trace."""
    count_tokens = None if tokenizer_name is None else tokenizer(tokenizer_name)
    notes = Notes()
    agents = _agents(_by_importer(files, format_name, count_tokens), notes, count_tokens)
    summary = write_trace(agents, out, notes, strict=strict)
    print(f"{out}: {summary}")
    for line in notes.lines():
        print(line)


def write_trace(agents: Iterable[TraceAgent], out: Path, notes: Notes, *, strict: bool = False) -> str:
    """Write agents as a trace, whole or not at all, and return a line about it.

    Raises
    ------
    TraceError
        If there is none, or two of one id, or the trace breaks the format; or, if `strict`, at any note.
    """
    with whole_file(out, TraceError) as place, TemporaryDirectory(prefix=".", dir=out.parent) as folder:
        draft, finished = Path(folder) / "draft", Path(folder) / out.name
        first_s = _write_draft(agents, draft)
        with draft.open(encoding="utf-8") as lines, _written(finished) as file:
            file.writelines(_shifted(line, first_s) for line in lines)
        draft.unlink()
        if strict and (noted := list(notes.lines())):
            raise TraceError(f"{noted[0]} (notes: {len(noted)}); import without --strict to accept them")
        summary = _checked(finished, out)
        os.replace(finished, place)
    return summary


def _by_importer(
    files: Sequence[Path], format_name: str | None, count_tokens: CountTokens | None
) -> list[tuple[Importer, list[Path]]]:
    found: dict[str, tuple[Importer, list[Path]]] = {}
    for file in files:
        importer = detect(file) if format_name is None else IMPORTERS[format_name]
        if importer.needs_tokenizer and count_tokens is None:
            raise TraceError(f"{file}: {importer.name} has texts without counts; name a --tokenizer")
        found.setdefault(importer.name, (importer, []))[1].append(file)
    return list(found.values())


def _agents(
    groups: Sequence[tuple[Importer, Sequence[Path]]], notes: Notes, count_tokens: CountTokens | None
) -> Iterator[TraceAgent]:
    for importer, files in groups:
        if isinstance(importer, JointImporter):
            yield from importer.read_all(files, notes, count_tokens)
            continue
        for file in files:
            yield from importer.read(file, notes, count_tokens)


def _write_draft(agents: Iterable[TraceAgent], draft: Path) -> float:
    """Write agents with the times of their recordings, and return the first of these."""
    seen: set[str] = set()
    first_s: float | None = None
    with draft.open("w", encoding="utf-8") as file:
        for agent in agents:
            if agent.agent_id in seen:
                raise TraceError(
                    f"agent_id {agent.agent_id!r} comes twice; leave out the file that has it again, "
                    "or import the files apart"
                )
            seen.add(agent.agent_id)
            if agent.arrival_s is not None:
                first_s = agent.arrival_s if first_s is None else min(first_s, agent.arrival_s)
            file.write(to_line(agent))
    if not seen:
        raise TraceError("no agent with a call in these files; name recordings that have calls")
    return first_s or 0.0


def _shifted(line: str, first_s: float) -> str:
    """Return a line whose arrival counts from the first one."""
    agent = json.loads(line)
    if agent.get("arrival_s") is None:
        return line
    agent["arrival_s"] = round(agent["arrival_s"] - first_s, 6)
    return json.dumps(agent, separators=(",", ":"), ensure_ascii=False) + "\n"


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """Open a file to write, compressed if it ends so, with the same bytes for the same trace."""
    if path.suffix != ".gz":
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        TextIOWrapper(packed, encoding="utf-8") as file,
    ):
        yield file


def _checked(finished: Path, out: Path) -> str:
    """Read the trace as others will, and say what is in it."""
    try:
        agents = read_trace(finished)
    except TraceError as error:
        raise TraceError(str(error).replace(str(finished), str(out))) from None
    prompts = sum(prompt for agent in agents for prompt, _ in contexts(agent))
    outputs = sum(step.output_tokens for agent in agents for step in agent.steps)
    num_calls = sum(len(agent.steps) for agent in agents)
    return f"{len(agents):,} agents, {num_calls:,} calls, {prompts:,} prompt and {outputs:,} output tokens"
