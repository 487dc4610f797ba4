"""What the calls of a batch are like: those that were seen, to draw further ones from."""

from collections import defaultdict, deque
from random import Random
from typing import Final

from concur.signals import CallView
from concur.twin.future import FutureCall

_MOST: Final = 500  # calls of all, and first calls
_MOST_AGENTS: Final = 200  # that have left
_OWN_FRAC: Final = 0.5  # how often an agent's further call is like one of its own
_LEAST_OWN: Final = 3
LEAST_CALLS: Final = 5
"""With fewer later calls seen, nothing is drawn."""


class CallPool:
    """Calls by agent and all together; first calls apart, for they bring what the others keep.

    `prefix_tokens` of an agent are shared, and do not count: everything here is in private tokens.
    """

    __slots__ = ("_contexts", "_left", "_own", "_seen", "firsts")

    def __init__(self) -> None:
        self.firsts: deque[tuple[float, float]] = deque(maxlen=_MOST)  # new tokens, output
        self._seen: deque[FutureCall] = deque(maxlen=_MOST)
        self._own: defaultdict[str, list[FutureCall]] = defaultdict(list)
        self._left: deque[list[FutureCall]] = deque(maxlen=_MOST_AGENTS)
        self._contexts: dict[str, int] = {}  # by agent: after its last call

    @property
    def is_known(self) -> bool:
        """Whether enough has been seen to draw from."""
        return len(self._seen) >= LEAST_CALLS

    @property
    def newcomer_tokens(self) -> float:
        """Mean private context after a first call."""
        return sum(new + output for new, output in self.firsts) / len(self.firsts) if self.firsts else 0.0

    @property
    def growth_tokens(self) -> float:
        """Mean tokens that a later call adds."""
        seen = self._seen
        return sum(call.new_tokens + call.output_tokens for call in seen) / len(seen) if seen else 0.0

    def add(self, call: CallView, prefix_tokens: int) -> None:
        """Take a call that has ended."""
        before = self._contexts.get(call.agent_id)
        new = call.prompt_tokens - call.kept_tokens
        if call.call_index == 0 or before is None or call.idle_s is None:
            private = max(0.0, call.prompt_tokens - prefix_tokens)
            self.firsts.append((private, float(call.output_tokens)))
        else:
            context = max(1, before - prefix_tokens)
            kept_frac = min(1.0, max(0, call.kept_tokens - prefix_tokens) / context)
            seen = FutureCall(float(new), float(call.output_tokens), kept_frac, call.idle_s)
            self._seen.append(seen)
            self._own[call.agent_id].append(seen)
        self._contexts[call.agent_id] = call.prompt_tokens + call.output_tokens

    def left(self, agent_id: str) -> None:
        """Take note that an agent has left; its calls serve for agents of whom nothing is known."""
        self._contexts.pop(agent_id, None)
        own = self._own.pop(agent_id, None)
        if own:
            self._left.append(own)

    def draw(self, agent_id: str, number: int, rng: Random) -> list[FutureCall]:
        """Return so many further calls of an agent: half like its own, half like anybody's."""
        own = self._own.get(agent_id, [])
        if len(own) < _LEAST_OWN and self._left:
            own = rng.choice(self._left)
        seen = self._seen
        return [
            rng.choice(own) if len(own) >= _LEAST_OWN and rng.random() < _OWN_FRAC else rng.choice(seen)
            for _ in range(number)
        ]

    def draw_first(self, rng: Random) -> FutureCall:
        """Return a first call, with somebody's wait after it."""
        new, output = rng.choice(self.firsts) if self.firsts else (500.0, 100.0)
        return FutureCall(new, output, 0.0, rng.choice(self._seen).wait_s)

    def draw_idle_s(self, idled_s: float, rng: Random) -> float:
        """Return how long a tool wait that has lasted so long goes on."""
        for _ in range(6):
            wait_s = rng.choice(self._seen).wait_s
            if wait_s > idled_s:
                return wait_s - idled_s
        return idled_s * rng.random()
