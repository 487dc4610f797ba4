"""Trajectories in ATIF, the interchange format of Harbor: a JSON file a trajectory.

Calls are the steps of the agent, with `metrics` whose `prompt_tokens` include the cached ones. Steps have one
time each, which says neither when a call began nor when it ended: waits are not recorded. A sub-agent is a
trajectory that the result of a step refers to, in the same file or beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted
from concur.sim.importers.files import json_objects, whole_value
from concur.sim.importers.importer import CountsImporter, Head, Notes
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.values import count_of, list_of, object_of, text_of, time_of
from concur.sim.traces.format import TraceAgent

_SOURCE: Final = "harbor"


def _told_by(head: Head) -> bool:
    return any(
        isinstance(value, dict) and str(value.get("schema_version", "")).startswith("ATIF")
        for value in head.values
    )


def _agents(paths: Sequence[Path], notes: Notes) -> Iterator[TraceAgent]:
    read: set[Path] = set()
    for path in paths:
        if path.resolve() in read:
            continue  # the trajectory before went on to it, or started it
        for where, trajectory in json_objects(path, notes):
            found: list[Recorded] = []
            _gather(trajectory, path, where, found, read, notes)
            yield from agents_of(found, notes)


def _gather(
    trajectory: Mapping[str, Any],
    path: Path,
    where: str,
    found: list[Recorded],
    read: set[Path],
    notes: Notes,
    *,
    name: str | None = None,
    parent: tuple[str, int] | None = None,
) -> None:
    """Add a trajectory, and after it those of its sub-agents."""
    read.add(path.resolve())
    name = name or _name(trajectory) or path.name.partition(".")[0]
    calls: list[Call] = []
    times: list[float] = []
    children: list[tuple[Mapping[str, Any], Mapping[str, Any], int]] = []
    for part, place in _parts(trajectory, path, where, read, notes):
        for number, step in enumerate(map(object_of, list_of(part.get("steps"))), 1):
            here = f"{place}, step {text_of(step.get('step_id')) or number}"
            if (call := _call(step, here, notes)) is not None:
                calls.append(call)
            if (time_s := time_of(step.get("timestamp"))) is not None:
                times.append(time_s)
            children += [(ref, part, len(calls) - 1) for ref in _references(step)]
    found.append(
        Recorded(
            agent_id=name,
            source=_SOURCE,
            calls=calls,
            parent=None if parent is None else parent[0],
            parent_step=None if parent is None else parent[1],
            begins_s=min(times, default=None),
            ends_s=None if parent is None else max(times, default=None),
        )
    )
    for ref, part, after in children:
        _gather_child(ref, part, path, where, found, read, notes, parent=(name, max(0, after)))


def _parts(
    trajectory: Mapping[str, Any], path: Path, where: str, read: set[Path], notes: Notes
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield a trajectory, and those in other files that it goes on in."""
    while trajectory:
        yield trajectory, where
        name = text_of(trajectory.get("continued_trajectory_ref"))
        file = None if name is None else path.with_name(name.rpartition("/")[2])
        if file is None or file.resolve() in read:
            return
        if not file.is_file():
            notes.leave_out("the rest of a trajectory, whose file is not there", where)
            return
        read.add(file.resolve())
        trajectory, where = object_of(whole_value(file, notes)), str(file)


def _gather_child(
    ref: Mapping[str, Any],
    trajectory: Mapping[str, Any],
    path: Path,
    where: str,
    found: list[Recorded],
    read: set[Path],
    notes: Notes,
    *,
    parent: tuple[str, int],
) -> None:
    beside = text_of(ref.get("trajectory_path"))
    for child in map(object_of, list_of(trajectory.get("subagent_trajectories"))):
        if _name(child) == _name(ref) is not None:
            _gather(child, path, where, found, read, notes, name=_child_name(child, parent[0]), parent=parent)
            return
    file = None if beside is None else path.with_name(beside.rpartition("/")[2])
    if file is not None and file.is_file() and file.resolve() not in read:
        child = object_of(whole_value(file, notes))
        _gather(child, file, str(file), found, read, notes, name=_child_name(child, parent[0]), parent=parent)
        return
    notes.leave_out("a sub-agent whose trajectory is not there", where)


def _name(value: Mapping[str, Any]) -> str | None:
    return text_of(value.get("trajectory_id")) or text_of(value.get("session_id"))


def _child_name(child: Mapping[str, Any], parent: str) -> str | None:
    """Return a child's name; a session's id may be its parent's too."""
    name = _name(child)
    return name if name is None or child.get("session_id") == name != parent else f"{parent}/{name}"


def _references(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    results = list_of(object_of(step.get("observation")).get("results"))
    for result in map(object_of, results):
        refs = result.get("subagent_trajectory_ref")
        yield from (ref for ref in (refs if isinstance(refs, list) else [refs]) if isinstance(ref, dict))


def _call(step: Mapping[str, Any], where: str, notes: Notes) -> Call | None:
    if step.get("source") != "agent" or step.get("llm_call_count") == 0:
        return None
    if step.get("is_copied_context") is True:
        notes.leave_out("a step that is a copy of another trajectory's", where)
        return None
    if (count_of(step.get("llm_call_count")) or 1) > 1:
        notes.guess("calls that share their counts are one call", where)
    metrics = object_of(step.get("metrics"))
    tokens = counted(metrics.get("prompt_tokens"), metrics.get("completion_tokens"), where, notes)
    if tokens is None:
        return None
    return Call(*tokens, where, cached_tokens=count_of(metrics.get("cached_tokens")))


ATIF: Final = CountsImporter(
    name="atif",
    title="ATIF trajectory (Harbor)",
    told_by=_told_by,
    agents=_agents,
)
