"""Transfers between the pool and the host: asked for, started as one, acknowledged in order.

Semantics of the queues of SGLang 0.5.23, `managers/cache_controller.py`.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from mypy_extensions import mypyc_attr

from concur.sim.kv.radix import Node

Job = tuple[int, list[Node]]
"""How many tokens, and with which node each path of them ends."""


class Transfers(Protocol):
    """The links between the pool and the host, and a clock."""

    @property
    def time_s(self) -> float:
        """What the time is."""
        ...

    def write(self, num_tokens: int) -> float:
        """Copy so many tokens to the host; return when they are there."""
        ...

    def load(self, num_tokens: int) -> float:
        """Copy so many tokens to the pool; return when they are there."""
        ...

    def wait_until(self, time_s: float) -> None:
        """Do nothing until then."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class HostJobs:
    """Those of one direction; a node that is split meanwhile does not change what is on its way."""

    def __init__(self) -> None:
        self._num_tokens = 0
        self._nodes: list[Node] = []
        self._started: deque[tuple[float, Job]] = deque()  # by their ends

    def copied(self, memo: dict[int, Any]) -> "HostJobs":
        """Return the same for the nodes' twins, which `memo` knows."""
        twin = HostJobs()
        twin._num_tokens = self._num_tokens
        twin._nodes = [memo[id(node)] for node in self._nodes]
        for end_s, (num_tokens, nodes) in self._started:
            twin._started.append((end_s, (num_tokens, [memo[id(node)] for node in nodes])))
        return twin

    @property
    def is_empty(self) -> bool:
        """Whether all have been acknowledged."""
        return not self._nodes and not self._started

    @property
    def num_tokens(self) -> int:
        """Tokens that were asked for and not acknowledged."""
        return self._num_tokens + sum([num_tokens for _, (num_tokens, _) in self._started])

    def ask(self, node: Node, num_tokens: int) -> None:
        """Ask for so many tokens, the last of them in that node."""
        self._nodes.append(node)
        self._num_tokens += num_tokens

    def start(self, submit: Callable[[int], float]) -> None:
        """Start what was asked for, as one transfer; `submit` tells when it ends."""
        if self._nodes:
            self._started.append((submit(self._num_tokens), (self._num_tokens, self._nodes)))
            self._nodes, self._num_tokens = [], 0

    def take_done(self, time_s: float) -> list[Job]:
        """Return what is done by then, the first first, and forget it."""
        done = []
        while self._started and self._started[0][0] <= time_s:
            done.append(self._started.popleft()[1])
        return done
