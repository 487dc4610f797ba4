"""Decode steps in which nothing else happens, run at once: all that run decode, and nobody gets in.

What such a step does is the reference's (`slots.py`, `ratio.py`, `signals.py`), less what it does for each
request: make room as a decode does, let the estimate of answers fall, refresh the gauges when it is time.
What the requests gain is written down by the caller.

A leap goes through the steps that end before anything else happens in the world, and decides the one after
them, during or at whose end something does: another event of the world is due, or somebody gets the last
token. That one is left in flight. A step for which there is no room is not decided here.

The result is bit-identical to stepping: ends of steps and sums of time are added one by one, left to right,
and the estimate falls step by step.
"""

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from concur.sim.engine.output import SchedulerStats
from concur.sim.engine.sglang.ratio import NewTokenRatio
from concur.sim.engine.sglang.req import Req
from concur.sim.engine.sglang.signals import Signals
from concur.sim.kv.radix import RadixTree
from concur.sim.step_time.step_time import StepTime, StepTotals


@mypyc_attr(allow_interpreted_subclasses=True)
class Flight:
    """The steps of a leap: so many decided, so many ended, the last of these at `end_s`.

    `durations_s` are those of the steps in flight then, in order. `stats` is what was published at the last
    end; `None` where none ended.
    """

    __slots__ = ("durations_s", "end_s", "num_decided", "num_ended", "stats")

    def __init__(self, begin_s: float) -> None:
        self.num_decided = 0
        self.num_ended = 0
        self.end_s = begin_s
        self.durations_s: list[float] = []
        self.stats: SchedulerStats | None = None


@mypyc_attr(allow_interpreted_subclasses=True)
class Decodes:
    """All that run, as sums; `pages_due[step % page_size]` need a page in a step, counted from the next."""

    __slots__ = ("context_tokens", "count", "num_queued", "pages_due")

    def __init__(self, running: Sequence[Req], page_size: int, *, num_queued: int) -> None:
        self.count = len(running)
        self.num_queued = num_queued
        self.context_tokens = 0
        self.pages_due: dict[int, int] = {}
        for req in running:
            self.context_tokens += req.kv_tokens
            step = -req.kv_tokens % page_size
            self.pages_due[step] = self.pages_due.get(step, 0) + 1


@mypyc_attr(allow_interpreted_subclasses=True)
class Memory:
    """What decode steps change beside the requests: the pool with its tree, the estimate, the gauges."""

    __slots__ = ("ratio", "signals", "tree")

    def __init__(self, tree: RadixTree, ratio: NewTokenRatio, signals: Signals) -> None:
        self.tree = tree
        self.ratio = ratio
        self.signals = signals


def fly(
    decodes: Decodes,
    memory: Memory,
    step_time: StepTime,
    totals: StepTotals,
    *,
    max_steps: int,
    first_s: float | None,
    begin_s: float,
    until_s: float,
) -> Flight:
    """Run decode steps from `begin_s` on, at most `max_steps` of them, which nobody but time disturbs.

    Where each is decided while the one before it computes, a step of theirs that takes `first_s` has begun
    then, and is the first to end. The last step ends at `until_s` or later, or is the last that is sure.
    """
    tree, count, signals = memory.tree, decodes.count, memory.signals
    step_s, context_tokens = step_time.of_decodes(count), decodes.context_tokens
    flight, decode_s, end_s = Flight(begin_s), totals.decode_s, begin_s
    step, num_ended, computing_s = 0, 0, first_s
    while True:
        num_evicted_tokens = tree.num_evicted_tokens
        if not _takes_room(decodes, tree, step):
            break
        memory.ratio.decay_step()
        duration_s = step_s(context_tokens)
        decode_s += duration_s
        context_tokens += count
        step += 1
        next_s = duration_s if computing_s is None else computing_s
        if step == max_steps or end_s + next_s >= until_s:
            flight.durations_s.append(duration_s)
            break
        end_s += next_s
        num_ended += 1
        signals.note_decodes(count, num_queued=decodes.num_queued)
        if computing_s is not None:
            computing_s = duration_s
    if computing_s is not None:
        flight.durations_s.insert(0, computing_s)
    if num_ended:
        flight.stats = signals.published()
        flight.stats.num_evictions = num_evicted_tokens // tree.page_size
    flight.num_decided, flight.num_ended, flight.end_s = step, num_ended, end_s
    totals.decode_s = decode_s
    totals.num_steps += step
    return flight


def _takes_room(decodes: Decodes, tree: RadixTree, step: int) -> bool:
    """Give each its slot in that step, evicting as `Slots.has_room` and `append` do; `False`: cannot."""
    page_size = tree.page_size
    num_tokens = decodes.pages_due.get(step % page_size, 0) * page_size
    most_tokens = decodes.count * page_size
    if tree.available_tokens < most_tokens:
        tree.make_room(num_tokens)
        if tree.available_tokens < num_tokens:
            return False
        tree.make_room(most_tokens)
    tree.take(num_tokens)
    return True
