"""Run one future of the batch forward under one policy, call by call.

The engine works in steps. In each, every call that decodes gets a token; prompts that wait and have room are
prefilled beside them, as many as a step takes, and generate their first token at its end. A step costs its
base, what it decodes and what it prefills of what the cache does not have (`concur.twin.costs`). Steps in
which nothing happens are taken together. While the contexts of running calls fill the pool, the next waits.

The gate: as `concur.gate.agents`, with the orders of its defaults. Everything is ours. Chunks of prompts,
preemptions and blocks are left out.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from concur.measures.shares import Shares
from concur.twin.cache import ModelCache
from concur.twin.future import Future, FutureCall, Policy
from concur.twin.limit import Limit

MARK_FRAC: Final = 0.9
"""Of the calls: when that many are done says how fast the batch goes, whatever its last agents do."""
_STEP_TOKENS: Final = 8192.0  # that a step prefills: vLLM's `max_num_batched_tokens` on a large GPU
_CUT_MARK_FRAC: Final = 0.8  # of a future without its youngest agents, whose end is nobody's end


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds from now until all calls are done, `None` in a cut future, and what the first calls promise."""

    end_s: float | None
    promised_s: float

    @property
    def left_s(self) -> float:
        """Seconds until the end, promised where the future is cut."""
        return self.promised_s if self.end_s is None else self.end_s

    @property
    def cost_s(self) -> float:
        """What a plan makes small: half the end, half the end that the first calls promise."""
        return self.promised_s if self.end_s is None else (self.end_s + self.promised_s) / 2


class Crowd:
    """What agents take along from engine to engine, and how far all of them are.

    `contexts` are their private tokens, `next_call` the number of the call that comes next (-1: one is in
    flight), `paused_s` when they were paused last.
    """

    def __init__(self, future: Future) -> None:
        agents = future.agents
        self.contexts = [agent.context_tokens for agent in agents]
        self.next_call = [0] * len(agents)
        self.paused_s = [0.0] * len(agents)
        self.num_left = len(agents)
        self.last_s = 0.0
        self.mark_s: float | None = None
        self.mark_frac = _CUT_MARK_FRAC if future.is_cut else MARK_FRAC
        self._num_to_mark = self.mark_frac * sum([len(agent.calls) for agent in agents])
        self._is_cut = future.is_cut

    @property
    def is_over(self) -> bool:
        """Whether nobody is left, or as much is known as a cut future tells."""
        return not self.num_left or (self._is_cut and self.mark_s is not None)

    def call_done(self, time_s: float) -> None:
        """Count a call."""
        self._num_to_mark -= 1
        if self.mark_s is None and self._num_to_mark <= 0:
            self.mark_s = time_s

    def outcome(self, time_s: float) -> Outcome:
        """Return what came of a run that is over at that time."""
        mark_s = time_s if self.mark_s is None else self.mark_s
        return Outcome(None if self._is_cut else time_s, mark_s / self.mark_frac)


class Rollout:
    """One run of the model. Life: construct, then `run`, once.

    One engine of several is run step by step instead (`concur.twin.fleet_model`), with the `crowd` that they
    share and `mine`, the numbers of those who are here at first.
    """

    def __init__(
        self, future: Future, policy: Policy, crowd: Crowd | None = None, mine: Sequence[int] | None = None
    ) -> None:
        self._future = future
        self._agents = agents = future.agents
        self._crowd = crowd or Crowd(future)
        self._mine = range(len(agents)) if mine is None else mine
        self._costs = future.costs
        self._newcomer_tokens = future.newcomer_tokens
        self._recomputed_frac = future.recomputed_frac
        self._step_tokens = _STEP_TOKENS / future.scale
        self._window, self._admit_tokens, self._pause_tokens = map(Limit, _bounds(future, policy))
        self._now_s = 0.0
        self._contexts, self._next_call = self._crowd.contexts, self._crowd.next_call
        self._held = [0.0] * len(agents)  # tokens that the gate counts
        self._holds = [False] * len(agents)
        self._shares = Shares()  # of slot holders
        self._num_active = 0
        self._held_tokens = 0.0
        self._cache = ModelCache(future.pool_tokens)
        self._decoded = 0.0  # tokens that a call which decodes all the time would have generated
        self._waits: list[tuple[float, int]] = []
        self._decodes: list[tuple[float, int]] = []
        self._queue: deque[tuple[int, FutureCall, float, float]] = deque()  # with kept and all tokens
        self._paused: list[int] = []
        self._new: deque[int] = deque()

    def run(self) -> Outcome:
        """Run to the end of the batch."""
        self._place()
        self._pause_surplus()
        self._admit()
        while not self._crowd.is_over and self._step():
            pass
        return self._crowd.outcome(self._now_s)

    def _step(self) -> bool:
        """Go on to whatever happens next; return whether anything did."""
        self._take_due()
        return bool((self._queue and self._prefill()) or self._move_on())

    def agrees(self, policy: Policy) -> bool:
        """Tell whether the run would have been the same under another policy."""
        window, admit_tokens, pause_tokens = _bounds(self._future, policy)
        return (
            self._window.agrees(window)
            and self._admit_tokens.agrees(admit_tokens)
            and self._pause_tokens.agrees(pause_tokens)
        )

    def _place(self) -> None:
        """Put everybody where the plan found them, histories in the order in which they were used."""
        agents = self._agents
        running = []
        for number in sorted(self._mine, key=lambda number: agents[number].heard_s):
            agent = agents[number]
            if agent.holds_slot:
                self._take_slot(number, agent.held_tokens)
            if agent.decode_tokens and agent.holds_slot:
                self._next_call[number] = -1
                running.append(number)
                continue
            if agent.context_tokens:
                self._cache.hold(number, agent.context_tokens, agent.levels)
            if agent.holds_slot:
                heapq.heappush(self._waits, (agent.idle_s, number))
            elif agent.context_tokens:
                heapq.heappush(self._paused, number)
        for number in running:
            agent = agents[number]
            self._cache.begin(number, agent.context_tokens, agent.context_tokens, agent.levels)
            heapq.heappush(self._decodes, (math.ceil(agent.decode_tokens), number))
        self._new.extend(
            number
            for number in self._mine
            if not agents[number].holds_slot and not agents[number].context_tokens
        )

    # The gate.

    def _take_slot(self, number: int, own_tokens: float) -> None:
        self._holds[number] = True
        self._num_active += 1
        self._held_tokens += own_tokens
        self._held[number] = own_tokens
        for group, tokens in self._agents[number].levels:
            self._held_tokens += self._shares.enter(group, tokens)

    def _give_slot(self, number: int) -> None:
        self._holds[number] = False
        self._num_active -= 1
        self._held_tokens -= self._held[number]
        self._held[number] = 0.0
        for group, _ in self._agents[number].levels:
            self._held_tokens -= self._shares.leave(group)

    def _pause(self, number: int) -> None:
        self._give_slot(number)
        heapq.heappush(self._paused, number)
        self._crowd.paused_s[number] = self._now_s

    def _is_over(self) -> bool:
        held_tokens, num_active = self._held_tokens, self._num_active
        return self._pause_tokens.is_exceeded(held_tokens) or self._window.is_exceeded(num_active)

    def _pause_surplus(self) -> None:
        """Pause the youngest between calls, as a new bound does at once."""
        if not self._is_over():
            return
        for number in range(len(self._agents) - 1, -1, -1):
            if self._num_active <= 1 or not (
                self._admit_tokens.is_exceeded(self._held_tokens)
                or self._window.is_exceeded(self._num_active)
            ):
                break
            if self._holds[number] and self._next_call[number] >= 0:
                self._pause(number)
        paused = set(self._paused)
        self._waits = [wait for wait in self._waits if wait[1] not in paused]
        heapq.heapify(self._waits)

    def _admit(self) -> None:
        """Let agents in while there is room: paused ones first, oldest first."""
        while self._admit_one():
            pass

    def _admit_one(self) -> bool:
        """Let one more agent in, if one waits and there is room; return whether."""
        if not (self._paused or self._new):
            return False
        number = self._paused[0] if self._paused else self._new[0]
        tokens = self._contexts[number] if self._paused else self._newcomer_tokens
        if not self._has_room(number, tokens):
            return False
        if self._paused:
            heapq.heappop(self._paused)
        else:
            self._new.popleft()
        self._let_in(number, tokens)
        return True

    def _has_room(self, number: int, tokens: float) -> bool:
        """Tell whether an agent may come in; alone it always may."""
        if self._window.is_exceeded(self._num_active + 1):
            return False
        return not (self._num_active and self._admit_tokens.is_exceeded(self._held_with(number, tokens)))

    def _let_in(self, number: int, tokens: float) -> None:
        self._take_slot(number, tokens)
        heapq.heappush(self._waits, (self._now_s, number))

    def _held_with(self, number: int, tokens: float) -> float:
        """Return the tokens that the gate would count if an agent came in."""
        for group, shared_tokens in self._agents[number].levels:
            tokens += self._shares.missing(group, shared_tokens)
        return self._held_tokens + tokens

    def _must_pause(self, number: int) -> bool:
        """Tell whether an agent is among the surplus: those older than it leave no room for it."""
        if self._num_active <= 1 or not self._is_over():
            return False
        older = [each for each in range(number) if self._holds[each]]
        if self._window.is_exceeded(len(older) + 1):
            return True
        shared = dict(level for each in [*older, number] for level in self._agents[each].levels)
        kept = self._held[number] + sum([self._held[each] for each in older]) + sum(shared.values())
        return self._admit_tokens.is_exceeded(kept)

    # The engine.

    def _take_due(self) -> None:
        """Take what is due: calls that have generated their last token, then agents that ask."""
        decodes, waits = self._decodes, self._waits
        while decodes and decodes[0][0] <= self._decoded:
            self._end_call(heapq.heappop(decodes)[1])
        while waits and waits[0][0] <= self._now_s:
            self._ask(heapq.heappop(waits)[1])

    def _ask(self, number: int) -> None:
        call = self._agents[number].calls[self._next_call[number]]
        kept_tokens = self._contexts[number] * call.kept_frac
        prompt_tokens = kept_tokens + call.new_tokens
        self._contexts[number] = context_tokens = prompt_tokens + call.output_tokens
        self._queue.append((number, call, kept_tokens, context_tokens))

    def _prefill(self) -> bool:
        """Prefill the prompts that wait and have room, as many as a step takes, while others decode.

        A step begins when the one before it has ended: at a whole number of decoded tokens.
        """
        queue, cache, decodes = self._queue, self._cache, self._decodes
        if (decodes and self._decoded != math.ceil(self._decoded)) or not cache.has_room(queue[0][-1]):
            return False
        uncached = work_s = 0.0
        began: list[tuple[float, int]] = []
        step_s = self._step_s()
        while queue and uncached < self._step_tokens and cache.has_room(queue[0][-1]):
            number, call, kept_tokens, context_tokens = queue.popleft()
            missing = cache.begin(number, kept_tokens, context_tokens, self._agents[number].levels)
            tokens = call.new_tokens + self._recomputed_frac * missing
            work_s += self._costs.prefill_s(tokens, context_tokens - call.output_tokens)
            uncached += tokens
            began.append((call.output_tokens - 1, number))
        num_steps = max(1, math.ceil(uncached / self._step_tokens))
        self._now_s += num_steps * step_s + work_s
        self._decoded += num_steps
        for output_tokens, number in began:
            heapq.heappush(decodes, (self._decoded + output_tokens, number))
        return True

    def _move_on(self) -> bool:
        """Go on to the next event: the end of a step that a prompt waits for, of a call or of a wait."""
        decodes, waits = self._decodes, self._waits
        if not decodes:
            if not waits:
                self._admit()
                return bool(self._waits)
            self._now_s = waits[0][0]
            return True
        last = decodes[0][0]
        if self._queue and self._cache.has_room(self._queue[0][-1]):
            last = min(last, math.ceil(self._decoded))
        step_s = self._step_s()
        decoded_s = self._now_s + (last - self._decoded) * step_s
        if not waits or decoded_s <= waits[0][0]:
            self._now_s, self._decoded = decoded_s, last
        else:
            wait_s = waits[0][0]
            self._decoded += (wait_s - self._now_s) / step_s
            self._now_s = wait_s
        return True

    def _step_s(self) -> float:
        return self._costs.step_s(len(self._decodes), self._cache.running_tokens)

    def _end_call(self, number: int) -> None:
        agent, context = self._agents[number], self._contexts[number]
        self._cache.end(number, context, agent.levels)
        in_flight = self._next_call[number] < 0
        wait_s = agent.idle_s if in_flight else agent.calls[self._next_call[number]].wait_s
        self._next_call[number] += 1
        if not in_flight:
            self._crowd.call_done(self._now_s)
        self._after_call(number, context, wait_s)

    def _after_call(self, number: int, context: float, wait_s: float) -> None:
        if self._next_call[number] >= len(self._agents[number].calls):
            self._crowd.num_left -= 1
            self._crowd.last_s = self._now_s
            self._give_slot(number)
            self._admit()
            return
        self._held_tokens += context - self._held[number]
        self._held[number] = context
        if self._must_pause(number):
            self._pause(number)
            self._admit()
        else:
            heapq.heappush(self._waits, (self._now_s + wait_s, number))


def _bounds(future: Future, policy: Policy) -> tuple[float, float, float]:
    """Return the most agents, the tokens up to which they are let in, and those beyond which they pause."""
    admit_tokens = policy.admit_frac * future.pool_tokens
    return (
        max(1, round(policy.window / future.scale)),
        admit_tokens,
        admit_tokens * (1.0 + policy.slack_frac),
    )
