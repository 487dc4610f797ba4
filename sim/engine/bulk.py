"""Decodes in bulk: one step of many decoding requests without a call per request.

The same decisions and the same bookkeeping as the scheduler's own loop over running requests, for the first
of them that decode, if their tokens fit the budget, their blocks are free, and no step is in flight
(synchronous scheduling).
"""

from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.kv.interface import KVCache
from concur.sim.kv.segments import SegmentCache


def count_leading_decodes(running: list[Request]) -> int:
    """Return how many requests, from the front, lack only their last sampled token."""
    for number, request in enumerate(running):
        num_tokens = request.num_tokens
        if request.num_computed_tokens != num_tokens - 1 or num_tokens == request.num_prompt_tokens:
            return number
    return len(running)


def schedule_decodes(decodes: list[Request], cache: KVCache, output: SchedulerOutput, budget: int) -> None:
    """Schedule one token for every one of `decodes`, or, if that takes more care, do nothing."""
    if not decodes or len(decodes) > budget or not isinstance(cache, SegmentCache):
        return
    if len(decodes) > cache.num_free_blocks:  # each needs a block at most
        return
    block_size = cache.block_size
    context_tokens = num_new_blocks = 0
    for request in decodes:
        num_computed = request.num_computed_tokens
        context_tokens += num_computed
        if num_computed == request.num_blocks * block_size:
            request.num_blocks += 1
            num_new_blocks += 1
        num_computed += 1
        request.num_computed_tokens = num_computed
        if not num_computed % block_size:
            cache.cache_blocks(request, num_computed)
    if num_new_blocks:
        cache.take(num_new_blocks)
    output.decodes = decodes
    output.batch.decode_seqs = len(decodes)
    output.batch.context_tokens = context_tokens


def take_decoded(decodes: list[Request]) -> list[Request]:
    """Give each request its token; return those that have their last one."""
    finished = []
    for request in decodes:
        num_tokens = request.num_tokens = request.num_tokens + 1
        if num_tokens == request.num_final_tokens:
            finished.append(request)
    return finished
