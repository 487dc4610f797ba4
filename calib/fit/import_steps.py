"""Recorded engine steps into samples.

Two forms are read. A recording of `concur.validate.steps.recorder` begins with the engine's facts and says of
each request whether it decoded; it may hold several sittings of one engine, each with its header. The older
form, of plain measuring scripts, is a `steps.jsonl[.gz]` beside a `meta.json`, one row per step::

    {"phase", "cap", "t_schedule", "t_update", "requests": [[tokens, context_before], ...],
     "preempted", "running", "waiting", "kv_usage"}
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from concur.calib.errors import SamplesError
from concur.calib.fit.lines import read_json_lines
from concur.calib.fit.samples import Provenance, Samples
from concur.calib.fit.step_samples import sample_rows, steps_frame
from concur.validate.live.geometries import GEOMETRIES
from concur.validate.steps.step_log import HEADER_KEY, ScheduledRequest, StepRow

_ROW: Final = TypeAdapter(StepRow)
_DROPPED_PHASES: Final = ("warmup", "fill")
_SCRIPT_NOTES: Final = (
    "steps last from schedule() to the return of update_from_output(); what lies between is left out",
    "a request of one token on some context was taken for a decode",
    "CUDA-graph capture sizes were not recorded",
)


class _ScriptRow(BaseModel):
    """One line of the older form."""

    model_config = ConfigDict(frozen=True)

    phase: str
    cap: int | None = None
    t_schedule: float
    t_update: float
    requests: tuple[tuple[int, int], ...] = Field(min_length=1)
    preempted: int = 0
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0


class _ScriptMeta(BaseModel):
    """The `meta.json` of the older form."""

    model_config = ConfigDict(frozen=True)

    geometry: str
    device: str
    vllm: str
    torch: str
    num_gpu_blocks: int
    block_size: int
    max_num_batched_tokens: int
    max_model_len: int
    async_scheduling: bool = False
    eager: bool = False


def import_steps(path: Path) -> Samples:
    """Read a recording; steps of the phases `warmup` and `fill` are left out.

    Raises
    ------
    SamplesError
        If the file is missing, empty, cut off or broken: file, line, remedy.
    """
    lines = read_json_lines(path)
    first = next(lines, None)
    if first is None:
        raise SamplesError(f"{path}: is empty; the engine ran no step while it was recorded: record again")
    numbered = chain([first], lines)
    is_recording = HEADER_KEY in first[1]
    return _from_recorder(path, numbered) if is_recording else _from_script(path, numbered)


_Lines = Iterable[tuple[int, dict[str, Any]]]


def _from_recorder(path: Path, lines: _Lines) -> Samples:
    provenance: Provenance | None = None
    sittings: list[list[StepRow]] = []
    for number, line in lines:
        if HEADER_KEY in line:
            header = _provenance(path, number, line[HEADER_KEY])
            if provenance is not None and not _is_same_engine(provenance, header):
                raise SamplesError(
                    f"{path}:{number}: another engine than before; record each engine into a file of its own"
                )
            provenance = provenance or header
            sittings.append([])
            continue
        sittings[-1].append(_row(path, number, line))
    assert provenance is not None, "the first line is a header"
    samples = chain.from_iterable(_sittings(sittings, is_async=provenance.async_scheduling))
    return _samples(path, samples, provenance)


def _sittings(sittings: Iterable[list[StepRow]], *, is_async: bool) -> Iterator[list[dict[str, Any]]]:
    """Put the sittings one after the other on one clock: each process has its own."""
    offset_s = 0.0
    for rows in sittings:
        if rows:
            origin_s = rows[0].begin_s - offset_s
            yield _measured(sample_rows(rows, is_async=is_async, origin_s=origin_s))
            offset_s = rows[-1].end_s - origin_s


def _from_script(path: Path, lines: _Lines) -> Samples:
    meta = _meta(path.with_name("meta.json"))
    rows = [_script_row(path, number, line) for number, line in lines]
    samples = sample_rows(rows, is_async=meta.async_scheduling, origin_s=rows[0].begin_s)
    return _samples(path, _measured(samples), _script_provenance(meta))


def _script_row(path: Path, number: int, line: dict[str, Any]) -> StepRow:
    try:
        row = _ScriptRow.model_validate(line)
    except ValidationError as error:
        raise _broken(path, number, error) from None
    return _checked(
        path,
        number,
        StepRow(
            phase=_script_phase(row),
            begin_s=row.t_schedule,
            end_s=row.t_update,
            outside_s=0.0,
            is_busy_after=False,  # was not recorded; so a step begins with its schedule()
            requests=tuple(ScheduledRequest(n, before, n == 1 and before > 0) for n, before in row.requests),
            num_cached_tokens=0,
            num_preemptions=row.preempted,
            num_running=row.running,
            num_waiting=row.waiting,
            kv_cache_usage_frac=row.kv_usage,
        ),
    )


def _script_phase(row: _ScriptRow) -> str:
    """A grid's steps are named for what they compute; a closed loop is a run."""
    if row.phase.startswith("grid"):
        return ""
    if row.phase in _DROPPED_PHASES:
        return row.phase
    return f"run:{row.phase}" + ("" if row.cap is None else f"-cap{row.cap or 'none'}")


def _script_provenance(meta: _ScriptMeta) -> Provenance:
    return Provenance(
        source="vllm",
        engine=f"vllm {meta.vllm}",
        device=meta.device,
        model_name=meta.geometry,
        model=GEOMETRIES[meta.geometry],
        block_size=meta.block_size,
        num_gpu_blocks=meta.num_gpu_blocks,
        max_num_batched_tokens=meta.max_num_batched_tokens,
        max_num_seqs=256,  # what those scripts ask for; they do not record it
        async_scheduling=meta.async_scheduling,
        flags={"max_model_len": meta.max_model_len, "enforce_eager": meta.eager or meta.device == "cpu"},
        versions={"vllm": meta.vllm, "torch": meta.torch},
        date="unknown",
        notes=_SCRIPT_NOTES,
    )


def _meta(path: Path) -> _ScriptMeta:
    try:
        meta = _ScriptMeta.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SamplesError(f"{path}: not readable ({error}); keep it beside the recorded steps") from None
    except ValidationError as error:
        raise _broken(path, 1, error) from None
    if meta.geometry not in GEOMETRIES:
        raise SamplesError(
            f"{path}: geometry = {meta.geometry!r} is not among {sorted(GEOMETRIES)}; record one of these"
        )
    return meta


def _provenance(path: Path, number: int, facts: Any) -> Provenance:
    try:
        return Provenance.model_validate(facts)
    except ValidationError as error:
        raise _broken(path, number, error) from None


def _is_same_engine(one: Provenance, other: Provenance) -> bool:
    return one == other.model_copy(update={"date": one.date})


def _row(path: Path, number: int, line: dict[str, Any]) -> StepRow:
    try:
        return _checked(path, number, _ROW.validate_json(json.dumps(line)))
    except ValidationError as error:
        raise _broken(path, number, error) from None


def _checked(path: Path, number: int, row: StepRow) -> StepRow:
    """Refuse what no engine does; `Samples` would refuse it too, but without the line."""
    if row.end_s <= row.begin_s:
        raise SamplesError(
            f"{path}:{number}: the step ends at {row.end_s} s, not after its begin at {row.begin_s} s; "
            "delete the line"
        )
    counts = [request[:2] for request in row.requests]
    if not counts or any(tokens < 1 or before < 0 for tokens, before in counts):
        raise SamplesError(
            f"{path}:{number}: requests = {counts} but each must have a token, on no negative context, and "
            "there must be one; delete the line"
        )
    return row


def _measured(samples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [sample for sample in samples if sample["phase"] not in _DROPPED_PHASES]


def _samples(path: Path, samples: Iterable[dict[str, Any]], provenance: Provenance) -> Samples:
    try:
        return Samples(steps_frame(samples), provenance)
    except SamplesError as error:
        raise SamplesError(f"{path}: {error}") from None


def _broken(path: Path, number: int, error: ValidationError) -> SamplesError:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return SamplesError(f"{path}:{number}: {where}: {first['msg']}; delete the line, or record again")
