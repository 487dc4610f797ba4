"""One model call inside the engine, with vLLM's counters (`v1/request.py`, 0.32.0)."""

from dataclasses import dataclass, field
from enum import Enum, auto

from concur.sim.kv.history import History


class RequestStatus(Enum):
    """Where a request is."""

    WAITING = auto()  # never scheduled
    WAITING_FOR_REMOTE_KVS = auto()  # blocks allocated, their contents on the way from host memory
    RUNNING = auto()
    PREEMPTED = auto()  # waiting again, its blocks given up
    FINISHED = auto()


@dataclass(slots=True, eq=False)
class Request:
    """Life: WAITING -> RUNNING (<-> PREEMPTED) -> FINISHED, by way of a host load where there is one.

    `history` names the full blocks of prompt + output; a look-up sees only those of `num_tokens`. Which
    blocks it holds is the KV cache's business, by `request_id`. `num_computed_tokens` counts what is
    scheduled, done or not; of it `num_in_flight_tokens` belong to steps whose output is not in yet, and
    `num_output_placeholders` tokens will come out of those. After a preemption, steps with
    `num_stale_output_tokens` in flight still deliver their token, but no progress. `known_tokens` leading
    tokens were computed for this agent before: computing them again is recompute. Times are seconds since the
    start of the run, `None` until they happen.
    """

    request_id: str
    agent_index: int
    call_index: int
    num_prompt_tokens: int
    max_tokens: int
    history: History
    known_tokens: int
    arrival_s: float

    status: RequestStatus = RequestStatus.WAITING
    num_tokens: int = field(init=False)
    num_final_tokens: int = field(init=False)
    num_computed_tokens: int = 0
    num_output_placeholders: int = 0
    num_in_flight_tokens: int = 0
    num_stale_output_tokens: int = 0
    num_cached_tokens: int = -1
    num_host_tokens: int = 0
    num_recomputed_tokens: int = 0
    num_preemptions: int = 0
    scheduled_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None

    def __post_init__(self) -> None:
        self.num_tokens = self.num_prompt_tokens
        self.num_final_tokens = self.num_prompt_tokens + self.max_tokens

    @property
    def num_output_tokens(self) -> int:
        """Number of tokens sampled so far."""
        return self.num_tokens - self.num_prompt_tokens
