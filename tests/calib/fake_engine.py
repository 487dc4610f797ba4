"""A fake engine: budgeted prefill, prefix cache, one token per decode, a clock that it sets itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from concur.calib.measure.engine import Finished
from concur.calib.measure.grid import Limits
from concur.validate.steps.step_log import ScheduledRequest, StepRow

STEP_S = 0.25
LIMITS = Limits(
    block_size=16, num_gpu_blocks=200, max_num_batched_tokens=128, max_num_seqs=8, max_model_len=512
)


def make_facts(limits: Limits = LIMITS, **changes: Any) -> dict[str, Any]:
    """An engine's facts, as its recording begins with."""
    return {
        "source": "vllm",
        "engine": "fake 1",
        "device": "paper",
        "model_name": "tiny",
        "model": {"vocab_size": 100},
        "block_size": limits.block_size,
        "num_gpu_blocks": limits.num_gpu_blocks,
        "max_num_batched_tokens": limits.max_num_batched_tokens,
        "max_num_seqs": limits.max_num_seqs,
        "async_scheduling": False,
        "flags": {"max_model_len": limits.max_model_len},
        "date": "2026-01-01",
    } | changes


@dataclass(slots=True)
class _Request:
    request_id: str
    tokens: list[int]
    num_prompt_tokens: int
    max_tokens: int
    computed: int
    cached: int

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt_tokens


class FakeEngine:
    """Every step takes STEP_S; `interrupt_at` raises KeyboardInterrupt in that step."""

    def __init__(self, *, interrupt_at: int | None = None, **facts: Any) -> None:
        self.facts = make_facts(**facts)
        self.limits = LIMITS
        self.vocab_size = 100
        self.num_steps = 0
        self._interrupt_at = interrupt_at
        self._requests: list[_Request] = []
        self._cache: set[tuple[int, ...]] = set()
        self._rows: list[StepRow] = []

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], max_tokens: int) -> None:
        tokens, block = list(prompt_token_ids), self.limits.block_size
        cached = 0
        while cached + block < len(tokens) and tuple(tokens[: cached + block]) in self._cache:
            cached += block
        self._requests.append(_Request(request_id, tokens, len(tokens), max_tokens, cached, cached))

    def step(self) -> list[Finished]:
        self.num_steps += 1
        if self.num_steps == self._interrupt_at:
            raise KeyboardInterrupt
        budget = self.limits.max_num_batched_tokens
        scheduled = []
        for request in self._requests:
            tokens = min(len(request.tokens) - request.computed, budget)
            if tokens:
                budget -= tokens
                scheduled.append(self._compute(request, tokens))
        finished = [request for request in self._requests if request.num_output == request.max_tokens]
        self._requests = [request for request in self._requests if request not in finished]
        self._record(tuple(scheduled))
        return [
            Finished(r.request_id, r.num_prompt_tokens, r.cached, tuple(r.tokens[r.num_prompt_tokens :]))
            for r in finished
        ]

    def has_unfinished_requests(self) -> bool:
        return bool(self._requests)

    def take_rows(self) -> list[StepRow]:
        rows, self._rows = self._rows, []
        return rows

    @contextmanager
    def outside(self) -> Iterator[None]:
        yield

    def _compute(self, request: _Request, tokens: int) -> ScheduledRequest:
        before = request.computed
        is_decode = bool(request.num_output) and before == len(request.tokens) - 1
        request.computed += tokens
        block = self.limits.block_size
        for end in range(block, request.computed + 1, block):
            self._cache.add(tuple(request.tokens[:end]))
        if request.computed == len(request.tokens):
            request.tokens.append(7)
        return ScheduledRequest(tokens, before, is_decode)

    def _record(self, requests: tuple[ScheduledRequest, ...]) -> None:
        begin_s = self.num_steps * STEP_S
        is_busy = bool(self._requests)
        self._rows.append(
            StepRow("", begin_s, begin_s + STEP_S, 0.0, is_busy, requests, 0, 0, len(requests), 0, 0.5)
        )
