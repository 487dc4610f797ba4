"""Queues of agents from which anyone can be taken out of turn, lazily. O(log n) per operation.

An entry counts as long as its ticket is the agent's own; the others are dropped when they come up, and all at
once when they are more than half. So a queue is never longer than twice the agents in it, but for a constant.
"""

import heapq
from collections.abc import Callable
from typing import Final

from concur.gate.member import Member

_SHORT: Final = 64  # entries that are not worth cleaning up


class Queue:
    """Agents by a key that is taken when they enter; the smallest comes first."""

    def __init__(self, key: Callable[[Member], tuple[float, int]]) -> None:
        self._key = key
        self._heap: list[tuple[tuple[float, int], int, Member]] = []
        self._clean_at = _SHORT

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, member: Member) -> None:
        """Let a member with a ticket enter."""
        if len(self._heap) >= self._clean_at:
            self._heap = [entry for entry in self._heap if entry[2].ticket == entry[1]]
            heapq.heapify(self._heap)
            self._clean_at = 2 * len(self._heap) + _SHORT
        heapq.heappush(self._heap, (self._key(member), member.ticket, member))

    def first(self) -> Member | None:
        """Return whoever is first, and leave it there."""
        heap = self._heap
        while heap and heap[0][2].ticket != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def pop(self) -> Member | None:
        """Take out whoever is first."""
        member = self.first()
        if member is not None:
            heapq.heappop(self._heap)
        return member
