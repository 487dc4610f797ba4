"""What SGLang 0.5.8 does otherwise than 0.5.23, each rule in the class that it belongs to.

Semantics of `mem_cache/radix_cache.py`, `mem_cache/common.py`, `managers/schedule_policy.py`,
`managers/schedule_batch.py`, `managers/scheduler.py` and `managers/scheduler_metrics_mixin.py` of 0.5.8. What
makes the difference for agents: **when a call ends, its answer is not cached** (`cache_finished_req` inserts
`fill_ids`, what was known at its last prefill), so that every turn prefills the last answer again.
"""

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from concur.sim.engine.sglang.output import BatchOutput
from concur.sim.engine.sglang.policy import SchedulePolicy
from concur.sim.engine.sglang.prefill_adder import CLIP_MAX_NEW_TOKENS, PrefillAdder, Verdict
from concur.sim.engine.sglang.req import Req
from concur.sim.engine.sglang.scheduler import Scheduler
from concur.sim.engine.sglang.signals import Signals
from concur.sim.engine.sglang.slots import Slots
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.kv.radix import RadixTree


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RadixTree058(RadixTree):
    """Eviction frees as many tokens as are needed, not as many as are missing.

    Recency is otherwise too, to no effect: the clock (`time.monotonic()`) is read once for a match or an
    insert, all nodes of its path get that time, and a request is matched again after its insert. What one
    match or insert meets is one path, of which one node at most is without children and can be evicted (or
    two after a split, the older one first in both releases); only the order of matches and inserts counts,
    and that is the same.
    """

    def make_room(self, num_tokens: int) -> None:
        """Evict so many tokens if fewer are available, however many are (`evict_from_tree_cache`)."""
        if num_tokens > self.available_tokens:
            super().make_room(self.available_tokens + num_tokens)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Slots058(Slots):
    """Answers are not cached at the end, and prompts do not become nodes of their own."""

    def __init__(self, tree: RadixTree, config: SglangConfig) -> None:
        super().__init__(tree, config.max_running_requests)
        self._num_pending = int(config.disable_overlap_schedule)

    def checkpoint_at_end(self, req: Req) -> None:
        """Put into the tree what was known when the request was last put into a batch to prefill."""
        self.checkpoint(req, req.kv_tokens)

    def has_room(self, reqs: Sequence[Req]) -> bool:
        """Make room for the next token of each; with overlap the *known* tokens are taken for those that are.

        (`new_page_count_next_decode`: wrong by one for who is not in the batch in flight.)
        """
        tree, page_size = self.tree, self.tree.page_size
        num_pages = sum((req.request.num_tokens - self._num_pending) % page_size == 0 for req in reqs)
        tree.make_room(num_pages * page_size)
        return num_pages * page_size <= tree.available_tokens

    def _set_prompt_apart(self, req: Req, num_cached: int) -> None:
        """Leave the tree as it is."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SchedulePolicy058(SchedulePolicy):
    """No refreshing of those who wait; a whole match counts."""

    def _refresh(self, waiting: list[Req]) -> None:
        """Leave the tree as it is."""

    def _num_credited(self, num_matched: int, num_tokens: int) -> int:
        return num_matched


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefillAdder058(PrefillAdder):
    """No page is charged per request, and what is to come is estimated alike for all."""

    def __init__(
        self,
        config: SglangConfig,
        tree: RadixTree,
        running: Sequence[Req],
        *,
        new_token_ratio: float,
        num_mixed: int,
    ) -> None:
        super().__init__(config, tree, running, new_token_ratio=new_token_ratio, num_mixed=num_mixed)
        self._page_size = 0  # what a request is charged beyond its own pages

    @property
    def is_spent(self) -> bool:
        """Never: somebody is matched and tried even so."""
        return False

    def add(self, req: Req) -> Verdict:
        """Try a candidate; memory and the input of the pass are asked before its prefix is locked, too."""
        num_tokens = req.fill_tokens - req.prefix_tokens
        if num_tokens + min(max(req.num_left_tokens, 0), CLIP_MAX_NEW_TOKENS) >= self._left_tokens:
            return Verdict.NO_TOKEN
        if self.admitted and self._tree.ceil(num_tokens) >= self._input_tokens:
            return Verdict.OTHER
        return super().add(req)

    def _tokens_to_come(self, req: Req, new_token_ratio: float) -> float:
        return min(req.num_left_tokens, CLIP_MAX_NEW_TOKENS) * new_token_ratio


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Signals058(Signals):
    """Gauges of a prefill are taken when it is decided, and not rounded."""

    def note_prefill(self, *, num_running: int, num_queued: int) -> None:
        """Refresh the gauges before a prefill takes its slots (`log_prefill_stats`)."""
        self._refresh(num_running, num_queued)

    def note_idle(self) -> None:
        """Let the gauges stand: an idle engine reports every 30 s only."""

    def note_batch(self, output: BatchOutput, *, num_queued: int) -> None:
        """Refresh the gauges after a decode, if it is time."""
        if not output.is_extend:
            super().note_batch(output, num_queued=num_queued)

    def _shown(self, usage: float) -> float:
        return usage


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Scheduler058(Scheduler):
    """Who has finished leaves those who run only when they decode again, or are mixed into a prefill."""

    def __init__(self, config: SglangConfig, tree: RadixTree) -> None:
        super().__init__(config, tree)
        self._policy = SchedulePolicy058(config.schedule_policy, tree)
        self._slots = Slots058(tree, config)
        self._signals = self._gauges = Signals058(tree, config.pool_tokens)

    def schedule(self) -> BatchOutput:
        """Decide the next batch; after a pass that only lets the finished go, the loop turns once more."""
        output = super().schedule()
        if not output.reqs and not self._in_flight and self.waiting:
            self.rest()
            output = super().schedule()
        return output

    def rest(self) -> None:
        """Take note that there is nothing to do."""
        super().rest()
        self._drop(self._leaving())

    def _new_adder(self, num_mixed: int) -> PrefillAdder:
        ratio = self.ratio.current
        return PrefillAdder058(
            self.config, self.tree, self.running, new_token_ratio=ratio, num_mixed=num_mixed
        )

    def _launch_prefill(self, reqs: list[Req]) -> BatchOutput:
        self._gauges.note_prefill(num_running=len(self.running), num_queued=len(self.waiting))
        return super()._launch_prefill(reqs)

    def _mix_in(self, output: BatchOutput) -> None:
        """Let the decodes join a prefill; the running batch stays as full as it was."""
        is_full = self.is_full
        super()._mix_in(output)
        self.is_full = is_full

    def _drop_finished(self) -> None:
        """Keep them: they count among those who run, and with what they might still have written."""

    def _leaving(self) -> set[Req]:
        return {req for req in self.running if req.is_finished}

    def _will_free_room(self, leaving: set[Req]) -> bool:
        return False

    def _may_mix(self) -> bool:
        return True
