"""Exact leaps: many steps at once while nothing happens but what is certain beforehand.

Two such stretches make up almost all steps of a run:

- every running request decodes, and nobody waits who could be admitted: each step gives each one token;
- all but the last running request decode, and that one is a long prefill that takes the rest of every step's
  token budget, so that nobody else can be scheduled.

Then a step needs no bookkeeping per request, only its duration; the requests are brought up to date once, at
the end. A leap goes through the steps that end before anything else happens in the world, and decides the
one after them, during or at whose end something does: another event of the world is due, a request finishes,
the prefill nears its end. That one is left in flight. A step whose blocks are not free is not decided here:
it preempts.

The result is bit-identical to stepping: ends of steps and sums of time are added one by one, left to right.
"""

from dataclasses import dataclass

from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request
from concur.sim.kv.segments import SegmentCache
from concur.sim.step_time.step_time import StepBatch, StepTime, StepTotals, step_cost


@dataclass(slots=True)
class Flight:
    """The steps of a leap: how many ended, when the last of them did, the blocks taken for them.

    `next_batch` is the step left in flight, its duration, and the blocks that it takes; `None` without one.
    """

    num_steps: int
    end_s: float
    num_blocks: int
    next_batch: StepBatch | None = None
    next_s: float = 0.0
    num_next_blocks: int = 0


@dataclass(slots=True)
class Leap:
    """What a leap did: its steps, what was published after those that ended, and the one in flight."""

    flight: Flight
    stats: SchedulerStats | None
    output: SchedulerOutput | None


@dataclass(slots=True)
class Decodes:
    """What the coming steps of decoding requests need; each must lack only its last sampled token.

    `blocks_due[i % block_size]` of them need a block in step i; the first to finish does so in step
    `max_steps`, counted from 1.
    """

    requests: list[Request]
    context_tokens: int
    blocks_due: list[int]
    max_steps: int


def look_ahead(requests: list[Request], block_size: int) -> Decodes:
    """Sum up what the requests will need."""
    context_tokens, blocks_due, max_steps = 0, [0] * block_size, 1 << 62
    for request in requests:
        num_computed = request.num_computed_tokens
        context_tokens += num_computed
        blocks_due[-num_computed % block_size] += 1
        num_left = request.num_final_tokens - request.num_tokens
        if num_left < max_steps:
            max_steps = num_left
    return Decodes(requests, context_tokens, blocks_due, max_steps)


def fly_decodes(
    decodes: Decodes,
    num_free_blocks: int,
    step_time: StepTime,
    totals: StepTotals,
    *,
    begin_s: float,
    until_s: float,
) -> Flight:
    """Find out how far requests decode undisturbed; changes `totals` only."""
    blocks_due, context_tokens, max_steps = decodes.blocks_due, decodes.context_tokens, decodes.max_steps
    num_running, block_size = len(decodes.requests), len(blocks_due)
    step_s = step_time.of_decodes(num_running)
    step, taken, end_s, decode_s = 0, 0, begin_s, totals.decode_s
    while taken + (num_due := blocks_due[step % block_size]) <= num_free_blocks:
        duration_s = step_s(context_tokens)
        decode_s += duration_s
        step += 1
        if step == max_steps or end_s + duration_s >= until_s:
            batch = StepBatch(decode_seqs=num_running, context_tokens=context_tokens)
            flight = Flight(step - 1, end_s, taken, batch, duration_s, num_due)
            break
        end_s += duration_s
        taken += num_due
        context_tokens += num_running
    else:
        flight = Flight(step, end_s, taken)
    totals.decode_s = decode_s
    totals.num_steps += step
    return flight


def fly_prefill(
    decodes: Decodes,
    prefill: Request,
    chunk: int,
    num_free_blocks: int,
    step_time: StepTime,
    totals: StepTotals,
    *,
    begin_s: float,
    until_s: float,
) -> Flight:
    """Find out how far a prefill goes on by `chunk` tokens a step beside the decodes; changes `totals` only.

    It must miss more than `chunk` tokens, and still does after every step of the leap.
    """
    blocks_due, num_running, block_size = decodes.blocks_due, len(decodes.requests), len(decodes.blocks_due)
    num_computed, num_blocks = prefill.num_computed_tokens, prefill.num_blocks
    max_steps = min(decodes.max_steps, (prefill.num_tokens - num_computed - 1) // chunk)
    step, taken, end_s = 0, 0, begin_s
    while True:
        num_blocks_then = -(-(num_computed + chunk) // block_size)
        num_due = blocks_due[step % block_size] + num_blocks_then - num_blocks
        if taken + num_due > num_free_blocks:
            return Flight(step, end_s, taken)
        batch = StepBatch(decode_seqs=num_running, context_tokens=decodes.context_tokens + step * num_running)
        batch.add_prefill(chunk, num_computed, min(chunk, max(0, prefill.known_tokens - num_computed)))
        cost = step_cost(step_time, batch)
        totals.add(batch, cost)
        step += 1
        if step == max_steps or end_s + cost.total_s >= until_s:
            return Flight(step - 1, end_s, taken, batch, cost.total_s, num_due)
        end_s += cost.total_s
        taken += num_due
        num_computed += chunk
        num_blocks = num_blocks_then


def land_decodes(decodes: Decodes, flight: Flight, cache: SegmentCache) -> None:
    """Bring the decodes up to date: the tokens of the steps that ended, and the computed one in flight.

    Their blocks must have been taken.
    """
    block_size = cache.block_size
    num_steps = flight.num_steps
    num_more = num_steps + (flight.next_batch is not None)
    for request in decodes.requests:
        request.num_tokens += num_steps
        num_computed = request.num_computed_tokens = request.num_computed_tokens + num_more
        num_full_blocks, rest = divmod(num_computed, block_size)
        request.num_blocks = num_full_blocks + (rest > 0)
        if num_full_blocks > request.num_cached_blocks:
            cache.cache_blocks(request, num_computed)


def land_prefill(prefill: Request, chunk: int, flight: Flight, cache: SegmentCache) -> None:
    """Bring the prefill up to date: the chunks of the steps that ended, and the one in flight.

    Its blocks must have been taken.
    """
    if flight.next_batch is not None:
        prefill.num_in_flight_tokens += chunk
    before = prefill.num_computed_tokens
    num_computed = before + chunk * (flight.num_steps + (flight.next_batch is not None))
    prefill.num_recomputed_tokens += max(0, min(num_computed, prefill.known_tokens) - before)
    prefill.num_computed_tokens = num_computed
    prefill.num_blocks = -(-num_computed // cache.block_size)
    cache.cache_blocks(prefill, num_computed)
