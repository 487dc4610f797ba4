"""prime-rl's law: growth paced by turnover, cuts by KV usage, preemptions and the engine's queue.

From its shipping `ConcurrencyController` (PrimeIntellect-ai/prime-rl)::

    each agent that ends                  turned += 1 / active
    turned >= 1, the window binds
      (active >= 0.9 W), nothing queues   W *= 1 + 0.2 * max(0, 1 - U / 0.8)          turned = 0
    U > 0.8                               W = active * 0.7 / U
    a preemption                          W *= 0.8
    queued > 0.5 * running, 6 polls       W *= 0.9
    the same again once drained           W *= 0.5

A cut freezes the law until active agents have drained to the window and nothing queues; without that one
collapse is cut for many times over. U is vLLM's gauge: blocks of running requests, so idle agents do not
show. Not taken over: cancelling the youngest call at U > 0.9, for this project never touches a running
call.

Signals: `vllm:kv_cache_usage_perc`, `vllm:num_requests_running`, `vllm:num_requests_waiting` (the law reads
those that wait for capacity, a label of newer versions), `vllm:num_preemptions_total`, and who has left.
"""

import math
from dataclasses import dataclass
from typing import Final

from concur.controllers.base import ControllerParams, LogValue
from concur.errors import require
from concur.measures.flows import Freshness, held_slot
from concur.signals import UNLIMITED, AgentView, Snapshot

_BINDS: Final = 0.9
_FULL_FRAC: Final = 0.8
_TARGET_FRAC: Final = 0.7
_GAIN: Final = 0.2
_PREEMPTED: Final = 0.8
_QUEUE_RATIO: Final = 0.5
_QUEUE_POLLS: Final = 6
_QUEUED: Final = 0.9
_QUEUED_AGAIN: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnoverParams(ControllerParams):
    """Parameters of `turnover`.

    `max_model_len`: its start is KV tokens / max_model_len; 0, the default, starts at `initial_window`
    instead, as the other laws do.
    """

    max_model_len: int = 0
    initial_window: int = 16

    def __post_init__(self) -> None:
        ControllerParams.__post_init__(self)
        require(self.max_model_len >= 0, "max_model_len", self.max_model_len, "at least 0 tokens")
        require(
            1 <= self.initial_window <= UNLIMITED,
            "initial_window",
            self.initial_window,
            f"between 1 and {UNLIMITED}",
        )


class Turnover:
    """Apply the law of the module docstring once per reading."""

    __slots__ = (
        "_active",
        "_freshness",
        "_is_frozen",
        "_last",
        "_num_queue_polls",
        "_turned",
        "_was_cut",
        "params",
        "window",
    )
    reads_agents = True

    def __init__(self, params: TurnoverParams) -> None:
        self.params = params
        self.window = params.initial_window
        self._freshness = Freshness(params.interval_s)
        self._last: Snapshot | None = None
        self._active: frozenset[tuple[str, int]] = frozenset()
        self._turned = 0.0
        self._num_queue_polls = 0
        self._is_frozen = False
        self._was_cut = False

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions."""
        return self.params.interval_s

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Return the next window."""
        is_stale = self._freshness.is_stale(snapshot)
        last, self._last = self._last, snapshot
        num_left = self._num_left(snapshot, last)
        if last is None and self.params.max_model_len:
            self.window = max(1, snapshot.total_tokens // self.params.max_model_len)
        if is_stale or last is None:
            return self.window
        self._turned += num_left / max(1, active)
        self._count_queue(snapshot)
        if self._is_frozen:
            self._is_frozen = active > self.window or snapshot.num_requests_waiting > 0
            return self.window
        factor = self._factor(snapshot, last, active)
        if factor < 1:
            self._cut(factor)
        elif self._turned >= 1 and active >= _BINDS * self.window and not snapshot.num_requests_waiting:
            gain = _GAIN * max(0.0, 1 - snapshot.kv_cache_usage_frac / _FULL_FRAC)
            self.window = min(math.ceil(self.window * (1 + gain)), UNLIMITED)
            self._turned = 0.0
            self._was_cut = False
        return self.window

    def log_state(self) -> dict[str, LogValue]:
        """Return how much of a turnover has passed, and whether a cut is draining."""
        return {"turned": self._turned, "is_frozen": int(self._is_frozen)}

    def _num_left(self, snapshot: Snapshot, last: Snapshot | None) -> int:
        """Count the agents that held a slot and have left, those among them that no reading has shown."""
        before, self._active = self._active, frozenset(map(_who, filter(held_slot, snapshot.agents)))
        gone = len(before - frozenset(map(_who, snapshot.agents)))
        return gone if last is None else max(gone, snapshot.departed.agents - last.departed.agents)

    def _count_queue(self, snapshot: Snapshot) -> None:
        is_queueing = snapshot.num_requests_waiting > _QUEUE_RATIO * snapshot.num_requests_running
        self._num_queue_polls = self._num_queue_polls + 1 if is_queueing else 0

    def _factor(self, snapshot: Snapshot, last: Snapshot, active: int) -> float:
        """Return what the window is multiplied by: the deepest cut that applies, or 1."""
        factors = [1.0]
        if snapshot.kv_cache_usage_frac > _FULL_FRAC:
            factors.append(active * _TARGET_FRAC / snapshot.kv_cache_usage_frac / self.window)
        if snapshot.num_preemptions > last.num_preemptions:
            factors.append(_PREEMPTED)
        if self._num_queue_polls >= _QUEUE_POLLS:
            factors.append(_QUEUED_AGAIN if self._was_cut else _QUEUED)
        return min(factors)

    def _cut(self, factor: float) -> None:
        self.window = max(1, math.floor(self.window * factor))
        self._is_frozen = self._was_cut = True
        self._num_queue_polls = 0
        self._turned = 0.0


def _who(agent: AgentView) -> tuple[str, int]:
    return agent.agent_id, agent.index  # an id may leave and come back as somebody new
