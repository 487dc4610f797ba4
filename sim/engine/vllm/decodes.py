"""The leading running requests that decode, kept as sums: a step of them all costs the same however many.

Each step gives each of them one token. So nothing about a single one need be written down until it finishes
or is preempted: `Decodes` knows how many there are, how much context they have, in which steps they need a
block, and in which step each has its last token. For synchronous scheduling on segments.
"""

from heapq import heappop, heappush
from typing import NamedTuple

from concur.sim.engine.request import Request
from concur.sim.kv.segments import SegmentCache


class _Member(NamedTuple):
    """A request whose counters have stood still since step `since`; it has its last token in step `end`."""

    end: int
    number: int  # in the order in which they were taken in
    since: int
    request: Request


class Decodes:
    """Life of a member: `put` -> its tokens are only counted -> taken out, its counters up to date.

    `step` counts the steps that members were scheduled in; at most the last one is without its output.
    `blocks_due[step % block_size]` of the members need a block in a step.
    """

    def __init__(self, cache: SegmentCache) -> None:
        self.cache = cache
        self.count = 0
        self.context_tokens = 0
        self.step = 0
        self.blocks_due = [0] * cache.block_size
        self._num_put = 0
        self._members: list[_Member] = []  # a heap

    def put(self, request: Request) -> None:
        """Take in a request that lacks only its last sampled token, after all other members."""
        num_computed = request.num_computed_tokens
        self._num_put += 1
        end = self.step + request.num_final_tokens - request.num_tokens
        heappush(self._members, _Member(end, self._num_put, self.step, request))
        self.blocks_due[(self.step - num_computed) % len(self.blocks_due)] += 1
        self.context_tokens += num_computed
        self.count += 1

    def num_due(self, num_steps: int = 0) -> int:
        """Return how many blocks a step needs, that many steps after the next one."""
        return self.blocks_due[(self.step + num_steps) % len(self.blocks_due)]

    def steps_to_first_end(self) -> int:
        """Return in how many steps the first member has its last token; there must be one."""
        return self._members[0].end - self.step

    def advance(self, num_steps: int) -> None:
        """Schedule every member in that many more steps; their blocks must have been taken."""
        self.step += num_steps
        self.context_tokens += num_steps * self.count

    def take_out_finished(self) -> list[Request]:
        """Return those that have their last token now, in the order in which they were put."""
        finished = []
        while self._members and self._members[0].end == self.step:
            finished.append(self._take_out(heappop(self._members)))
        return finished

    def take_out_all(self) -> None:
        """Bring everyone up to date; every output must be in."""
        for member in self._members:
            self._take_out(member)
        self._members.clear()

    def _take_out(self, member: _Member) -> Request:
        request, num_steps = member.request, self.step - member.since
        self.blocks_due[(member.since - request.num_computed_tokens) % len(self.blocks_due)] -= 1
        request.num_tokens += num_steps
        request.num_computed_tokens += num_steps
        self.cache.catch_up(request.request_id, request.num_computed_tokens)
        self.context_tokens -= request.num_computed_tokens
        self.count -= 1
        return request
