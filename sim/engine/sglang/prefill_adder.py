"""Who gets into a prefill, and with how many tokens.

Semantics of SGLang 0.5.23, `managers/schedule_policy.py::PrefillAdder` and `mem_cache/prefill_budget.py`. Two
things are budgeted: memory (what is free or can be evicted, less what the running requests will still write,
an estimate) and the compute of one pass (`max_prefill_tokens`, `chunked_prefill_size`). Compute is charged
in whole pages, memory a page per request beyond that.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from mypy_extensions import mypyc_attr

from concur.sim.engine.sglang.req import Req
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.kv.radix import RadixTree

CLIP_MAX_NEW_TOKENS: Final = 4096
"""No request is expected to write more than this (`SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION`)."""


class Verdict(Enum):
    """What is to become of the pass after a candidate."""

    CONTINUE = auto()
    NO_TOKEN = auto()  # memory is short
    OTHER = auto()  # the pass has computed enough


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefillAdder:
    """The budgets of one pass: `admitted` in order, the last is `new_chunked` if it gets a part only.

    With `num_mixed` decodes in the pass they are charged first.
    """

    def __init__(
        self,
        config: SglangConfig,
        tree: RadixTree,
        running: Sequence[Req],
        *,
        new_token_ratio: float,
        num_mixed: int,
    ) -> None:
        self.admitted: list[Req] = []
        self.new_chunked: Req | None = None
        self._tree = tree
        self._page_size = config.page_size
        self._input_tokens = config.max_prefill_tokens - num_mixed
        self._chunk_tokens = (
            None if config.chunked_prefill_size == -1 else config.chunked_prefill_size - num_mixed
        )
        to_come = 0.0
        for req in running:
            to_come += self._tokens_to_come(req, new_token_ratio)
        self._expected_tokens = num_mixed + to_come
        self._current_tokens = num_mixed

    @property
    def is_spent(self) -> bool:
        """Whether the pass computes so much already that nobody else is tried."""
        return self.verdict() is Verdict.OTHER

    def verdict(self) -> Verdict:
        """Tell what is left of the budgets."""
        if self._left_tokens <= 0 or self._usable_tokens - self._current_tokens <= 0:
            return Verdict.NO_TOKEN
        if self._input_tokens <= 0 or (self._chunk_tokens is not None and self._chunk_tokens <= 0):
            return Verdict.OTHER
        return Verdict.CONTINUE

    def add_chunked(self, req: Req) -> Req | None:
        """Go on with a prefill in chunks, memory or not; return it if it needs another chunk still."""
        assert self._chunk_tokens is not None
        fitting = min(self._chunk_tokens, int(self._left_tokens))
        most = fitting if fitting > 0 else self._chunk_tokens
        missing = req.fill_tokens - req.prefix_tokens
        req.extend_end = req.prefix_tokens + min(missing, most)
        self._charge(req, 0 if missing > most else min(req.max_new_tokens, CLIP_MAX_NEW_TOKENS))
        return req if missing > most else None

    def add(self, req: Req) -> Verdict:
        """Try a candidate, which has been matched; lock what it uses if it gets in."""
        assert req.matched is not None
        tree = self._tree
        here, away_tokens = tree.resident(req.matched), tree.away_tokens(req.matched)
        tree.lock(here)  # what it uses cannot make room for it
        refusal = self._select(req, away_tokens)
        if refusal is None and away_tokens:
            refusal = self._load_back(req, away_tokens)
        if refusal is not None:
            tree.unlock(here)
            return refusal
        req.locked = tree.resident(req.matched)
        tree.move_lock(here, req.locked)
        is_chunked = req.extend_end < req.fill_tokens
        if is_chunked:
            self.new_chunked = req
        self._charge(req, 0 if is_chunked else min(req.max_new_tokens, CLIP_MAX_NEW_TOKENS))
        return self.verdict()

    def _load_back(self, req: Req, away_tokens: int) -> Verdict | None:
        """Load what a candidate finds on the host; if that does not come, decide again without it."""
        assert req.matched is not None
        if not self._tree.load_back(req.matched):
            return self._select(req, 0)
        req.loaded_tokens = away_tokens
        req.prefix_tokens += away_tokens
        req.protected_tokens = req.prefix_tokens
        return None

    def _select(self, req: Req, away_tokens: int) -> Verdict | None:
        """Decide how far the extend of a candidate goes, or why it does not get in.

        What it finds on the host needs room as what it computes does, but no computing.
        """
        num_new_tokens = min(max(req.num_left_tokens, 0), CLIP_MAX_NEW_TOKENS)
        needed_tokens = req.fill_tokens - req.prefix_tokens + num_new_tokens + self._page_size
        if needed_tokens >= self._left_tokens:
            return Verdict.NO_TOKEN
        prefix_tokens = req.prefix_tokens + away_tokens
        pages_tokens = self._tree.ceil(req.fill_tokens - prefix_tokens)
        if self._chunk_tokens is None:
            if self.admitted and pages_tokens >= self._input_tokens:
                return Verdict.OTHER
        elif pages_tokens > self._chunk_tokens:
            end = self._tree.floor(prefix_tokens + self._tree.floor(self._chunk_tokens))
            if end <= prefix_tokens:
                return Verdict.OTHER
            req.extend_end = end
            return None
        req.extend_end = req.fill_tokens
        return None

    def _charge(self, req: Req, num_new_tokens: int) -> None:
        self.admitted.append(req)
        pages_tokens = self._tree.ceil(req.num_extend_tokens)
        self._expected_tokens += pages_tokens + self._page_size + num_new_tokens
        self._current_tokens += pages_tokens + self._page_size
        self._input_tokens -= pages_tokens
        if self._chunk_tokens is not None:
            self._chunk_tokens -= pages_tokens

    def _tokens_to_come(self, req: Req, new_token_ratio: float) -> float:
        """Return how much one of those who run is expected to write."""
        ratio = 1.0 if req.ignores_eos else new_token_ratio
        return min(req.num_left_tokens, CLIP_MAX_NEW_TOKENS) * ratio

    @property
    def _usable_tokens(self) -> int:
        return self._tree.available_tokens + self._tree.evictable_tokens

    @property
    def _left_tokens(self) -> float:
        return self._usable_tokens - self._expected_tokens
