"""Rows of recorded engine steps, how long a step took, and the file they are kept in.

**What the duration of a step is.** An engine that has work runs its steps back to back; between two outputs
lie the handing over of the first, the taking in of new requests, `schedule`, the forward pass, sampling and
`update_from_output`. A simulator that adds up durations must arrive at the wall clock, so nothing of that may
be lost or counted twice:

    a step lasts from the end of the step before it to its own end, where the end of a step is the return of
    `update_from_output`; the first step after the engine had no unfinished request lasts from the call of
    `schedule`.

Over a stretch of busy steps the durations therefore sum to the wall time, and idle gaps count nowhere. The
end is the right mark in both modes: it is when tokens, finishes and freed blocks appear. With async
scheduling it is the only one: step n + 1 is scheduled and launched before step n has ended (vLLM 0.32.0,
v1/engine/core.py, `EngineCore.step_with_batch_queue`), so begin to end would count the overlap twice.

**What is subtracted.** Without async scheduling the device waits while the host does what no server's engine
core would do: the recorder's own work, and in-process the caller's (`StepLog.outside`). That time is known
(`outside_s`) and subtracted. With async scheduling the device works on meanwhile; how much is hidden is not
known, so nothing is subtracted, and who wants clean samples leaves out steps with a large `outside_s`.
"""

import gzip
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

_MAX_LINES: Final = 64
_MAX_AGE_S: Final = 1.0
HEADER_KEY: Final = "engine"


class ScheduledRequest(NamedTuple):
    """One request's part of a step; `is_decode` as defined in `concur.sim.step_time.step_time.StepBatch`."""

    num_tokens: int
    num_computed_tokens: int  # before the step
    is_decode: bool


@dataclass(frozen=True, slots=True)
class StepRow:
    """One engine step that computed something; instants are seconds of the process's performance counter."""

    phase: str  # what the step is part of; "" if nobody said
    begin_s: float  # call of schedule()
    end_s: float  # return of update_from_output()
    outside_s: float  # since the end of the step before: spent by the recorder and by the in-process caller
    is_busy_after: bool  # whether unfinished requests remain
    requests: tuple[ScheduledRequest, ...]
    num_cached_tokens: int  # prefix-cache hits of requests admitted for the first time
    num_preemptions: int
    num_running: int  # after scheduling
    num_waiting: int
    kv_cache_usage_frac: float


@dataclass(frozen=True, slots=True)
class StepSpan:
    """When a step began, by the definition above, and how long it lasted, both in seconds."""

    begin_s: float
    step_s: float


def step_spans(rows: Sequence[StepRow], *, is_async: bool) -> list[StepSpan]:
    """Return begin and duration of consecutive steps of one engine, by the definition of this module."""
    spans = []
    before: StepRow | None = None
    for row in rows:
        begin_s = row.begin_s
        if before is not None:
            begin_s = before.end_s if before.is_busy_after else max(row.begin_s, before.end_s)
        spans.append(StepSpan(begin_s, row.end_s - begin_s - (0.0 if is_async else row.outside_s)))
        before = row
    return spans


class StepFile:
    """Append JSON lines to a `.jsonl` or `.jsonl.gz` file.

    Lines are written in groups, each with one call (in a `.gz`, as one whole gzip member): whatever kills the
    process, what is in the file is whole lines, and at most the last second of work or 64 lines are missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._is_gzip = path.suffix == ".gz"
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []
        self._flushed_s = time.perf_counter()

    def write(self, value: Mapping[str, Any]) -> None:
        """Add one line; flush if a group is full or a second has passed."""
        self._lines.append(json.dumps(value).encode() + b"\n")
        if len(self._lines) >= _MAX_LINES or time.perf_counter() - self._flushed_s > _MAX_AGE_S:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._lines and not self._file.closed:
            group = b"".join(self._lines)
            self._file.write(gzip.compress(group, compresslevel=1) if self._is_gzip else group)
            self._lines.clear()
        self._flushed_s = time.perf_counter()

    def close(self) -> None:
        """Flush and close; closing twice is no error."""
        self.flush()
        self._file.close()


class StepLog:
    """What a recording scheduler writes to: a file that begins with the engine's facts, or a list in memory.

    Set `phase` to label the steps scheduled from now on. In memory, `take` empties the list.
    """

    def __init__(self, facts: Mapping[str, Any], path: Path | None = None, phase: str = "") -> None:
        self.facts = dict(facts)
        self.phase = phase
        self._rows: list[StepRow] = []
        self._outside_s = 0.0
        self._file = None if path is None else StepFile(path)
        if self._file:
            self._file.write({HEADER_KEY: self.facts})
            self._file.flush()

    def append(self, row: StepRow) -> None:
        """Keep a row; when nothing is left to do there is time to flush."""
        if self._file is None:
            self._rows.append(row)
            return
        self._file.write({field.name: getattr(row, field.name) for field in fields(row)})
        if not row.is_busy_after:
            self._file.flush()

    def take(self) -> list[StepRow]:
        """Return the rows kept in memory since the last call."""
        rows, self._rows = self._rows, []
        return rows

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Count the time in the block as no work of the engine."""
        begin_s = time.perf_counter()
        try:
            yield
        finally:
            self._outside_s += time.perf_counter() - begin_s

    def take_outside_s(self) -> float:
        """Return the seconds spent outside since the last call."""
        outside_s, self._outside_s = self._outside_s, 0.0
        return outside_s

    def close(self) -> None:
        """Write what has gathered."""
        if self._file:
            self._file.close()
