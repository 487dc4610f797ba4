"""Run one future of the batch forward under one policy, call by call.

The engine: prompts are prefilled one at a time, in the order in which they are asked for, each for the base
cost of a step and the cost of its tokens that are not in the cache; the calls that decode go on together, a
token a step. A call needs room for its whole context; while the contexts of running calls fill the pool, the
next one waits. Histories of agents in tool waits are evicted least recently used first, from their ends.

The gate: as `concur.gate.agents`, with the orders of its defaults. Everything is ours; what it leaves out
(chunked prefill, preemption, blocks) makes it too optimistic beyond the knee.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from concur.twin.costs import StepCosts
from concur.twin.future import FutureAgent, FutureCall, Policy

MARK_FRAC: Final = 0.9
"""Of the calls: when that many are done says how fast the batch goes, whatever its last agents do."""
_CUT_MARK_FRAC: Final = 0.8  # of a future without its youngest agents, whose end is nobody's end


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds from now until all calls are done, `None` in a cut future, and what the first calls promise."""

    end_s: float | None
    promised_s: float

    @property
    def cost_s(self) -> float:
        """What a plan makes small: half the end, half the end that the first calls promise."""
        return self.promised_s if self.end_s is None else (self.end_s + self.promised_s) / 2


class Rollout:
    """One run of the model. Life: construct, then `run`, once."""

    def __init__(
        self,
        agents: Sequence[FutureAgent],
        policy: Policy,
        costs: StepCosts,
        *,
        pool_tokens: float,
        newcomer_tokens: float,
        is_cut: bool,
    ) -> None:
        self._agents = agents
        self._policy = policy
        self._costs = costs
        self._pool_tokens = pool_tokens
        self._newcomer_tokens = newcomer_tokens
        self._admit_tokens = policy.admit_frac * pool_tokens
        self._pause_tokens = self._admit_tokens + policy.slack_frac * pool_tokens
        self._now_s = 0.0
        self._contexts = [agent.context_tokens for agent in agents]
        self._next_call = [0] * len(agents)
        self._held = [0.0] * len(agents)  # tokens that the gate counts
        self._holds = [False] * len(agents)
        self._num_active = 0
        self._held_tokens = 0.0
        self._idle: OrderedDict[int, float] = (
            OrderedDict()
        )  # cached tokens of agents in tool waits, oldest first
        self._idle_tokens = 0.0
        self._running_tokens = 0.0
        self._num_decoding = 0
        self._decoded = 0.0  # tokens that a call which decodes all the time would have generated
        self._waits: list[tuple[float, int]] = []
        self._decodes: list[tuple[float, int]] = []
        self._queue: deque[int] = deque()
        self._paused: list[int] = []
        self._new: deque[int] = deque()
        self._num_left = len(agents)
        self._is_cut = is_cut
        self._mark_frac = _CUT_MARK_FRAC if is_cut else MARK_FRAC
        self._num_to_mark = self._mark_frac * sum([len(agent.calls) for agent in agents])
        self._mark_s: float | None = None

    def run(self) -> Outcome:
        """Run to the end of the batch."""
        self._place()
        self._pause_surplus()
        self._admit()
        while self._num_left and not (self._is_cut and self._mark_s is not None):
            if self._queue and self._prefill():
                continue
            decode_s = self._next_decode_s()
            wait_s = self._waits[0][0] if self._waits else inf
            if wait_s <= decode_s < inf or (self._waits and decode_s == inf):
                self._end_wait(wait_s)
            elif decode_s < inf:
                self._end_decode(decode_s)
            else:
                self._admit()
                if not self._waits:
                    break
        mark_s = self._now_s if self._mark_s is None else self._mark_s
        return Outcome(None if self._is_cut else self._now_s, mark_s / self._mark_frac)

    def _place(self) -> None:
        """Put everybody where the plan found them."""
        for number, agent in enumerate(self._agents):
            context = agent.context_tokens
            if agent.holds_slot:
                self._take_slot(number, agent.held_tokens)
            if agent.decode_tokens and agent.holds_slot:
                self._next_call[number] = -1
                self._start_decoding(number, agent.decode_tokens)
            elif agent.holds_slot:
                self._release(number, context)
                heapq.heappush(self._waits, (agent.idle_s, number))
            elif context > 0:
                heapq.heappush(self._paused, number)
            else:
                self._new.append(number)

    # The gate.

    def _take_slot(self, number: int, tokens: float) -> None:
        self._holds[number] = True
        self._num_active += 1
        self._count(number, tokens)

    def _give_slot(self, number: int) -> None:
        self._holds[number] = False
        self._num_active -= 1
        self._count(number, 0.0)

    def _count(self, number: int, tokens: float) -> None:
        self._held_tokens += tokens - self._held[number]
        self._held[number] = tokens

    def _is_over(self) -> bool:
        return self._held_tokens > self._pause_tokens or self._num_active > self._policy.window

    def _pause_surplus(self) -> None:
        """Pause the youngest between calls, as a new bound does at once."""
        for number in range(len(self._agents) - 1, -1, -1):
            if self._num_active <= 1 or not self._is_over():
                break
            if self._holds[number] and self._next_call[number] >= 0:
                self._give_slot(number)
                heapq.heappush(self._paused, number)
        paused = set(self._paused)
        self._waits = [wait for wait in self._waits if wait[1] not in paused]
        heapq.heapify(self._waits)

    def _admit(self) -> None:
        """Let agents in while there is room: paused ones first, oldest first."""
        while self._num_active < self._policy.window and (self._paused or self._new):
            number = self._paused[0] if self._paused else self._new[0]
            tokens = self._contexts[number] if self._paused else self._newcomer_tokens
            if self._num_active and self._held_tokens + tokens > self._admit_tokens:
                return
            if self._paused:
                heapq.heappop(self._paused)
            else:
                self._new.popleft()
            self._take_slot(number, tokens)
            heapq.heappush(self._waits, (self._now_s, number))

    def _must_pause(self, number: int) -> bool:
        """Tell whether an agent is among the surplus: those older than it leave no room for it."""
        if self._num_active <= 1 or not self._is_over():
            return False
        older = [self._held[each] for each in range(number) if self._holds[each]]
        return len(older) >= self._policy.window or sum(older) + self._held[number] > self._admit_tokens

    # The engine.

    def _prefill(self) -> bool:
        """Prefill the next prompt, if its context has room beside the running ones."""
        number = self._queue[0]
        call = self._call(number)
        kept = self._contexts[number] * call.kept_frac
        needed = kept + call.new_tokens + call.output_tokens
        if self._num_decoding and self._running_tokens + needed > self._pool_tokens:
            return False
        self._queue.popleft()
        cached = self._idle.pop(number, 0.0)
        self._idle_tokens -= cached
        self._evict(needed - (self._pool_tokens - self._running_tokens - self._idle_tokens))
        self._contexts[number] = needed
        uncached = call.new_tokens + kept - min(cached, kept)
        self._now_s += self._costs.base_s + self._costs.prefill_token_s * uncached
        self._decoded += 1  # the others decode in the same step
        self._start_decoding(number, call.output_tokens)
        return True

    def _call(self, number: int) -> FutureCall:
        return self._agents[number].calls[self._next_call[number]]

    def _start_decoding(self, number: int, tokens: float) -> None:
        self._running_tokens += self._contexts[number]
        self._num_decoding += 1
        heapq.heappush(self._decodes, (self._decoded + tokens, number))

    def _step_s(self) -> float:
        return self._costs.base_s + self._costs.decode_token_s * self._num_decoding

    def _next_decode_s(self) -> float:
        if not self._decodes:
            return inf
        return self._now_s + max(0.0, self._decodes[0][0] - self._decoded) * self._step_s()

    def _end_wait(self, time_s: float) -> None:
        if time_s > self._now_s:
            if self._num_decoding:
                self._decoded += (time_s - self._now_s) / self._step_s()
            self._now_s = time_s
        self._queue.append(heapq.heappop(self._waits)[1])

    def _end_decode(self, time_s: float) -> None:
        self._now_s = time_s
        decoded, number = heapq.heappop(self._decodes)
        self._decoded = max(self._decoded, decoded)
        self._num_decoding -= 1
        context = self._contexts[number]
        self._running_tokens -= context
        self._release(number, context)
        in_flight = self._next_call[number] < 0
        wait_s = self._agents[number].idle_s if in_flight else self._call(number).wait_s
        self._next_call[number] += 1
        if not in_flight:
            self._num_to_mark -= 1
            if self._mark_s is None and self._num_to_mark <= 0:
                self._mark_s = self._now_s
        self._after_call(number, context, wait_s)

    def _after_call(self, number: int, context: float, wait_s: float) -> None:
        if self._next_call[number] >= len(self._agents[number].calls):
            self._num_left -= 1
            self._give_slot(number)
            self._admit()
            return
        self._count(number, context)
        if self._must_pause(number):
            self._give_slot(number)
            heapq.heappush(self._paused, number)
            self._admit()
        else:
            heapq.heappush(self._waits, (self._now_s + wait_s, number))

    def _release(self, number: int, tokens: float) -> None:
        self._idle[number] = tokens
        self._idle_tokens += tokens

    def _evict(self, tokens: float) -> None:
        while tokens > 0 and self._idle:
            oldest = next(iter(self._idle))
            cached = self._idle[oldest]
            if cached <= tokens:
                del self._idle[oldest]
            else:
                self._idle[oldest] = cached - tokens
            taken = min(cached, tokens)
            self._idle_tokens -= taken
            tokens -= taken
