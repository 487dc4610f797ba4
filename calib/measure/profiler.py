"""Measure the designed grid on a real engine, point by point.

A point's contexts are first put into the prefix cache (not measured); its requests then hit them, so that
exactly the designed step runs: decodes need one token of prefill each (itself a sample), and prefills join
when the decodes run. Every request has token ids of its own, so no two share a block.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from concur.calib.fit.samples import Provenance, Samples
from concur.calib.fit.step_samples import sample_rows, steps_frame
from concur.calib.measure.checkpoint import Checkpoint
from concur.calib.measure.engine import StepEngine
from concur.calib.measure.grid import DECODE_STEPS, Point, design, shuffled
from concur.validate.steps.step_log import StepRow

_MIN_TOKEN_ID: Final = 10  # above the special ones
_NUM_WARMUP_POINTS: Final = 8
_MAX_OUTSIDE_FRAC: Final = 0.1  # with async scheduling nobody knows how much of it was hidden
_JOINED_STEPS: Final = 6  # decode steps where prefills join: async scheduling lags by one


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """How much to measure; no point begins `budget_s` after the warm-up (`None`: no bound)."""

    repeats: int = 3
    seed: int = 0
    budget_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """The samples so far, how many points are left (of all repeats), and whether Ctrl-C ended it."""

    samples: Samples
    num_left: int
    is_interrupted: bool


@dataclass(slots=True)
class Tokens:
    """Token ids: of a numbered sequence (always the same), or fresh (never seen before)."""

    vocab_size: int
    length: int
    rng: np.random.Generator
    _sequences: dict[int, "np.ndarray[Any, np.dtype[np.int64]]"] = field(default_factory=dict)

    def prefix(self, number: int, num_tokens: int) -> list[int]:
        """Return the first tokens of a sequence."""
        if number not in self._sequences:
            own = np.random.default_rng(number)
            self._sequences[number] = own.integers(_MIN_TOKEN_ID, self.vocab_size, self.length)
        return [int(token) for token in self._sequences[number][:num_tokens]]

    def fresh(self, num_tokens: int) -> list[int]:
        """Return new tokens."""
        return [int(token) for token in self.rng.integers(_MIN_TOKEN_ID, self.vocab_size, num_tokens)]


class PointRunner:
    """Run single points on an engine that has nothing else to do."""

    def __init__(self, engine: StepEngine, seed: int) -> None:
        self._engine = engine
        rng = np.random.default_rng([seed, 1])
        self._tokens = Tokens(engine.vocab_size, engine.limits.max_model_len, rng)
        self._num_requests = 0

    def run(self, point: Point) -> list[StepRow]:
        """Return the recorded steps of one point, without those that made its contexts."""
        contexts = [*point.decode_context_tokens, *(prefill.context_tokens for prefill in point.prefills)]
        for number, context in enumerate(contexts):
            if context:
                self._submit(self._tokens.prefix(number, context), 1)
        self._drain()
        self._engine.take_rows()
        return list(self._measure(point))

    def _measure(self, point: Point) -> Iterator[StepRow]:
        decodes = point.decode_context_tokens
        for number, context in enumerate(decodes):
            prompt = self._tokens.prefix(number, context) + self._tokens.fresh(1)
            self._submit(prompt, 1 + (_JOINED_STEPS if point.prefills else DECODE_STEPS))
        prompts = [
            self._tokens.prefix(number, prefill.context_tokens) + self._tokens.fresh(prefill.num_tokens)
            for number, prefill in enumerate(point.prefills, start=len(decodes))
        ]
        if decodes and prompts:
            yield from self._until_decoding()
        for prompt in prompts:
            self._submit(prompt, 1)
        self._drain()
        yield from self._engine.take_rows()

    def _until_decoding(self) -> Iterator[StepRow]:
        is_decoding = False
        while not is_decoding:
            self._engine.step()
            for row in self._engine.take_rows():
                is_decoding = is_decoding or any(request.is_decode for request in row.requests)
                yield row

    def _submit(self, prompt: Sequence[int], max_tokens: int) -> None:
        self._engine.submit(f"{self._num_requests}", prompt, max_tokens)
        self._num_requests += 1

    def _drain(self) -> None:
        while self._engine.has_unfinished_requests():
            self._engine.step()


def profile(
    engine: StepEngine,
    options: ProfileOptions,
    partial: Path,
    *,
    notes: Sequence[str] = (),
    extra_facts: dict[str, Any] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProfileResult:
    """Measure the grid, continuing what `partial` holds.

    An interrupt or the end of the budget stops at a point; `partial` then stays for the next time.

    Raises
    ------
    SamplesError
        If `partial` does not fit this engine and design, or not even one point was measured.
    """
    points = design(engine.limits)
    digest = hashlib.sha256(repr(points).encode()).hexdigest()[:16]
    checkpoint = Checkpoint(partial, engine.facts, {"points": digest, "seed": options.seed})
    pairs = [
        (repeat, point)
        for repeat in range(options.repeats)
        for point in shuffled(len(points), seed=options.seed, repeat=repeat)
    ]
    todo = [pair for pair in pairs if pair not in checkpoint]
    is_interrupted = True
    with suppress(KeyboardInterrupt):  # what is measured is on disk
        _measure_all(engine, points, todo, options, checkpoint, lambda done: on_progress(done, len(pairs)))
        is_interrupted = False
    num_left = sum(pair not in checkpoint for pair in pairs)
    try:
        samples = Samples(
            steps_frame(checkpoint.samples()),
            Provenance.model_validate(engine.facts | (extra_facts or {}) | {"notes": tuple(notes)}),
        )
    except BaseException:
        checkpoint.close(is_complete=False)
        raise
    checkpoint.close(is_complete=not num_left)
    return ProfileResult(samples, num_left, is_interrupted)


def _measure_all(
    engine: StepEngine,
    points: Sequence[Point],
    todo: Sequence[tuple[int, int]],
    options: ProfileOptions,
    checkpoint: Checkpoint,
    on_progress: Callable[[int], None],
) -> None:
    """Measure what is left, in order."""
    end_s = checkpoint.end_s  # of an earlier sitting, whose clock was another
    origin_s: float | None = None
    is_async = bool(engine.facts["async_scheduling"])
    max_outside_frac = _MAX_OUTSIDE_FRAC if is_async else None
    runner = PointRunner(engine, options.seed)
    on_progress(len(checkpoint))
    for point in points[:: max(1, len(points) // _NUM_WARMUP_POINTS)] if todo else ():
        runner.run(point)
    begin_s = time.perf_counter()
    for repeat, index in todo:
        if options.budget_s is not None and time.perf_counter() - begin_s > options.budget_s:
            return
        rows = runner.run(points[index])
        origin_s = rows[0].begin_s - end_s if origin_s is None else origin_s
        samples = sample_rows(rows, is_async=is_async, origin_s=origin_s, max_outside_frac=max_outside_frac)
        checkpoint.add(repeat, index, samples)
        on_progress(len(checkpoint))
