"""How far an engine can leap: many steps at once while nothing happens but what is certain beforehand.

Two such stretches make up almost all steps of a run:

- every running request decodes, and nobody waits who could be admitted: each step gives each one token;
- all but the last running request decode, and that one is a long prefill that takes the rest of every step's
  token budget, so that nobody else can be scheduled.

Then a step needs no bookkeeping per request, only its duration. A leap goes through the steps that end before
anything else happens in the world, and decides the one after them, during or at whose end something does:
another event of the world is due, a request finishes, the prefill nears its end. That one is left in flight.
A step whose blocks are not free is not decided here: it preempts.

The result is bit-identical to stepping: ends of steps and sums of time are added one by one, left to right.
"""

from dataclasses import dataclass

from concur.sim.engine.request import Request
from concur.sim.engine.vllm.decodes import Decodes
from concur.sim.step_time.step_time import StepBatch, StepTime, StepTotals, step_cost


@dataclass(init=False, slots=True)
class Flight:
    """The steps of a leap: how many ended, when the last of them did, the blocks taken for them.

    `next_batch` is the last step that was decided and has not ended, then its duration, and the blocks that
    it takes; `None` without. Where steps are decided ahead, one that takes `in_flight_s` computes before it.
    """

    num_steps: int
    end_s: float
    num_blocks: int
    next_batch: StepBatch | None
    next_s: float
    num_next_blocks: int
    in_flight_s: float

    def __init__(
        self,
        num_steps: int,
        end_s: float,
        num_blocks: int,
        next_batch: StepBatch | None = None,
        next_s: float = 0.0,
        num_next_blocks: int = 0,
        in_flight_s: float = 0.0,
    ) -> None:
        self.num_steps = num_steps
        self.end_s = end_s
        self.num_blocks = num_blocks
        self.next_batch = next_batch
        self.next_s = next_s
        self.num_next_blocks = num_next_blocks
        self.in_flight_s = in_flight_s

    @property
    def num_decided(self) -> int:
        """Steps that ended, and the one in flight."""
        return self.num_steps + (self.next_batch is not None)


def fly_decodes(
    decodes: Decodes, step_time: StepTime, totals: StepTotals, *, begin_s: float, until_s: float
) -> Flight:
    """Find out how far requests decode undisturbed; changes `totals` only."""
    count, context_tokens, max_steps = decodes.count, decodes.context_tokens, decodes.steps_to_first_end()
    num_free_blocks, blocks_due = decodes.cache.num_free_blocks, decodes.blocks_due
    block_size, first = len(blocks_due), decodes.step
    step_s = step_time.of_decodes(count)
    step, taken, end_s, decode_s = 0, 0, begin_s, totals.decode_s
    while taken + (num_due := blocks_due[(first + step) % block_size]) <= num_free_blocks:
        duration_s = step_s(context_tokens)
        decode_s += duration_s
        step += 1
        if step == max_steps or end_s + duration_s >= until_s:
            batch = StepBatch(decode_seqs=count, context_tokens=context_tokens)
            flight = Flight(step - 1, end_s, taken, batch, duration_s, num_due)
            break
        end_s += duration_s
        taken += num_due
        context_tokens += count
    else:
        flight = Flight(step, end_s, taken)
    totals.decode_s = decode_s
    totals.num_steps += step
    return flight


def fly_ahead(
    decodes: Decodes,
    step_time: StepTime,
    totals: StepTotals,
    *,
    first_s: float,
    begin_s: float,
    until_s: float,
) -> Flight:
    """Find out how far requests decode undisturbed where each step is decided while the one before computes.

    A step of theirs that takes `first_s` begins at `begin_s`. In the result it is the first to end, and
    `in_flight_s` is the duration of the one that computes at the end. Changes `totals` only.
    """
    count, context_tokens, max_steps = decodes.count, decodes.context_tokens, decodes.steps_to_first_end()
    num_free_blocks, step_s = decodes.cache.num_free_blocks, step_time.of_decodes(count)
    step, taken, end_s, in_flight_s, decode_s = 0, 0, begin_s, first_s, totals.decode_s
    while taken + (num_due := decodes.num_due(step)) <= num_free_blocks:
        duration_s = step_s(context_tokens)
        decode_s += duration_s
        step += 1
        if step == max_steps or end_s + in_flight_s >= until_s:
            batch = StepBatch(decode_seqs=count, context_tokens=context_tokens)
            flight = Flight(step - 1, end_s, taken, batch, duration_s, num_due, in_flight_s)
            break
        end_s += in_flight_s
        in_flight_s = duration_s
        taken += num_due
        context_tokens += count
    else:
        flight = Flight(step, end_s, taken, in_flight_s=in_flight_s)
    totals.decode_s = decode_s
    totals.num_steps += step
    return flight


def fly_prefill(
    decodes: Decodes,
    prefill: Request,
    chunk: int,
    step_time: StepTime,
    totals: StepTotals,
    *,
    begin_s: float,
    until_s: float,
) -> Flight:
    """Find out how far a prefill goes on by `chunk` tokens a step beside the decodes; changes `totals` only.

    It must miss more than `chunk` tokens, and still does after every step of the leap.
    """
    cache, num_computed = decodes.cache, prefill.num_computed_tokens
    num_blocks = cache.num_blocks_of(prefill.request_id)
    max_steps = (prefill.num_tokens - num_computed - 1) // chunk
    if decodes.count:
        max_steps = min(max_steps, decodes.steps_to_first_end())
    step, taken, end_s = 0, 0, begin_s
    while True:
        num_blocks_then = -(-(num_computed + chunk) // cache.block_size)
        num_due = decodes.num_due(step) + num_blocks_then - num_blocks
        if taken + num_due > cache.num_free_blocks:
            return Flight(step, end_s, taken)
        context_tokens = decodes.context_tokens + step * decodes.count
        batch = StepBatch(decode_seqs=decodes.count, context_tokens=context_tokens)
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
