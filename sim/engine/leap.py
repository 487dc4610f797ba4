"""Exact leaps: many steps at once while nothing but decoding goes on.

While every running request decodes and nobody waits who could be admitted, each step gives each request one
token. Then a step needs no bookkeeping per request, only its duration; the requests are brought up to date
once, at the end. A leap ends before the first step in which anything else happens: a request finishes, the
free blocks run out (a preemption), or some other event of the world is due before the step's end.

The result is bit-identical to stepping: ends of steps and time sums are added one by one, left to right.
"""

from dataclasses import dataclass

from sim.engine.step_time import StepTime
from sim.kv.segments import SegmentCache
from sim.request import Request


@dataclass(slots=True)
class Leap:
    """What a leap did: how many steps, when the last one ended, and the running sum of their durations."""

    num_steps: int
    end_s: float
    decode_s: float


def leap(
    running: list[Request],
    cache: SegmentCache,
    step_time: StepTime,
    *,
    begin_s: float,
    until_s: float,
    decode_s: float,
) -> Leap:
    """Run the decoding steps that end before `until_s`, and bring the requests up to date.

    Every request in `running` must lack only its last sampled token. `decode_s` is the sum to go on from.
    Costs O(requests + steps).
    """
    block_size = cache.block_size
    max_steps = min(r.num_final_tokens - r.num_tokens for r in running) - 1
    done = Leap(0, begin_s, decode_s)
    if max_steps <= 0:
        return done
    context_tokens = 0
    blocks_due = [0] * block_size  # blocks_due[i % block_size]: requests that need a block in step i
    for request in running:
        context_tokens += request.num_computed_tokens
        blocks_due[-request.num_computed_tokens % block_size] += 1
    num_running, free, taken, step = len(running), cache.num_free_blocks, 0, 0
    step_s = step_time.of_decodes(num_running)
    end_s = begin_s
    while step < max_steps:
        taken_then = taken + blocks_due[step % block_size]
        if taken_then > free:
            break
        duration_s = step_s(context_tokens)
        if end_s + duration_s >= until_s:
            break
        end_s += duration_s
        decode_s += duration_s
        taken = taken_then
        context_tokens += num_running
        step += 1
    if step:
        _catch_up(running, cache, step, taken)
        done = Leap(step, end_s, decode_s)
    return done


def _catch_up(running: list[Request], cache: SegmentCache, num_steps: int, num_blocks: int) -> None:
    """Give every request `num_steps` tokens, and the blocks for them, `num_blocks` in all."""
    block_size = cache.block_size
    if num_blocks:
        cache.take(num_blocks)
    for request in running:
        request.num_tokens += num_steps
        num_computed = request.num_computed_tokens = request.num_computed_tokens + num_steps
        request.num_blocks = -(-num_computed // block_size)
        if num_computed // block_size > request.num_cached_blocks:
            cache.cache_blocks(request, num_computed)
