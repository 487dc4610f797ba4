"""The leading running requests that decode, kept as sums: a step of them all costs the same however many.

Each step gives each of them one token. So nothing about a single one need be written down until it finishes
or is preempted: `Decodes` knows how many there are, how much context they have, in which steps they need a
block, and in which step each has its last token.
"""

from heapq import heappop, heappush

from mypy_extensions import mypyc_attr

from concur.sim.engine.request import Request
from concur.sim.kv.segments import SegmentCache


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class _Member:
    """A request whose counters have stood still since step `since`; it has its last token in step `end`.

    `number` is its place in the order in which they were taken in.
    """

    __slots__ = ("end", "number", "request", "since")

    def __init__(self, end: int, number: int, since: int, request: Request) -> None:
        self.end = end
        self.number = number
        self.since = since
        self.request = request


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Decodes:
    """Life of a member: `put` -> its tokens are only counted -> taken out, its counters up to date.

    `step` counts the steps that members were scheduled in, `num_outputs` those of them whose output is in. A
    member whose last token is in flight is scheduled no more: it is ending. `blocks_due[step % block_size]`
    of the others need a block in a step.
    """

    def __init__(self, cache: SegmentCache) -> None:
        self.cache = cache
        self.count = 0
        self.context_tokens = 0
        self.step = 0
        self.num_outputs = 0
        self.blocks_due = [0] * cache.block_size
        self._num_put = 0
        self._members: list[tuple[int, int, _Member]] = []  # a heap of (end, number, member)
        self._ending: list[_Member] = []

    @property
    def num_leading(self) -> int:
        """How many running requests, from the front, are members, ending ones among them."""
        return self.count + len(self._ending)

    def put(self, request: Request) -> None:
        """Take in a request that lacks only tokens to come, after all other members."""
        num_computed = request.num_computed_tokens
        self._num_put += 1
        num_left = request.num_final_tokens - request.num_tokens - request.num_output_placeholders
        member = _Member(self.step + num_left, self._num_put, self.step, request)
        heappush(self._members, (member.end, member.number, member))
        self.blocks_due[(self.step - num_computed) % len(self.blocks_due)] += 1
        self.context_tokens += num_computed
        self.count += 1

    def num_due(self, num_steps: int = 0) -> int:
        """Return how many blocks a step needs, that many steps after the next one."""
        return self.blocks_due[(self.step + num_steps) % len(self.blocks_due)]

    def steps_to_first_end(self) -> int:
        """Return in how many steps the first member has its last token; there must be one."""
        return self._members[0][0] - self.step

    def let_end(self) -> None:
        """Schedule no more those whose last token is in flight."""
        while self._members and self._members[0][0] == self.step:
            member = heappop(self._members)[2]
            self._ending.append(member)
            self._forget(member, member.request.num_computed_tokens + self.step - member.since)

    def advance(self, num_steps: int, *, num_outputs: int) -> None:
        """Schedule every member in that many more steps, and take in as many outputs; nobody ends in those.

        Their blocks must have been taken.
        """
        self.step += num_steps
        self.num_outputs += num_outputs
        self.context_tokens += num_steps * self.count

    def take_output(self) -> list[Request]:
        """Give the members of the oldest step without output their token; return those that have their last.

        In the order in which they were put.
        """
        self.num_outputs += 1
        if self.num_outputs == self.step:
            self.let_end()
        finished = [member for member in self._ending if member.end == self.num_outputs]
        self._ending = [member for member in self._ending if member.end != self.num_outputs]
        return [self._bring_up_to_date(member) for member in finished]

    def take_out_all(self) -> list[Request]:
        """Bring everyone up to date; return those with a token in flight, in the order of their putting."""
        everyone = [*(member for _, _, member in self._members), *self._ending]
        everyone.sort(key=lambda member: member.number)
        is_in_flight = [max(each.since, self.num_outputs) < min(each.end, self.step) for each in everyone]
        for member in everyone:
            self._bring_up_to_date(member)
        self._members, self._ending = [], []
        self.blocks_due = [0] * len(self.blocks_due)
        self.count = self.context_tokens = 0
        self.num_outputs = self.step
        return [member.request for member, is_in in zip(everyone, is_in_flight, strict=True) if is_in]

    def _forget(self, member: _Member, num_computed: int) -> None:
        """Take a member that has so many tokens computed out of the sums."""
        request = member.request
        self.blocks_due[(member.since - request.num_computed_tokens) % len(self.blocks_due)] -= 1
        self.context_tokens -= num_computed
        self.count -= 1

    def _bring_up_to_date(self, member: _Member) -> Request:
        request = member.request
        num_scheduled = min(self.step, member.end) - member.since
        num_sampled = max(min(self.num_outputs, member.end) - member.since, 0)
        request.num_tokens += num_sampled
        request.num_computed_tokens += num_scheduled
        request.num_output_placeholders += num_scheduled - num_sampled
        request.num_in_flight_tokens += num_scheduled - num_sampled
        num_known = request.num_computed_tokens - request.num_output_placeholders
        self.cache.catch_up(request.request_id, request.num_computed_tokens, num_known)
        return request
