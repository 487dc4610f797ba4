"""One model call inside the engine, with vLLM's counters (`v1/request.py`, 0.32.0)."""

from dataclasses import dataclass
from enum import Enum, auto

from mypy_extensions import mypyc_attr

from concur.sim.kv.history import History


class RequestStatus(Enum):
    """Where a request is."""

    WAITING = auto()  # never scheduled
    WAITING_FOR_REMOTE_KVS = auto()  # blocks allocated, their contents on the way from host memory
    RUNNING = auto()
    PREEMPTED = auto()  # waiting again, its blocks given up
    FINISHED = auto()


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
@dataclass(init=False, slots=True, eq=False)
class Request:
    """Life: WAITING -> RUNNING (<-> PREEMPTED) -> FINISHED, by way of a host load where there is one.

    `history` names the full blocks of prompt + output; a look-up sees only those of `num_tokens`. Which
    blocks it holds is the KV cache's business, by `request_id`. `num_computed_tokens` counts what is
    scheduled, done or not; of it `num_in_flight_tokens` belong to steps whose output is not in yet, and
    `num_output_placeholders` tokens will come out of those. After a preemption, steps with
    `num_stale_output_tokens` in flight still deliver their token, but no progress. `known_tokens` leading
    tokens were computed for this agent before: computing them again is recompute. The answer has
    `max_tokens`; where it ends by itself, `max_new_tokens` is the limit that the client has sent. Of two the
    one with the lesser `priority` goes first where the engine looks at it; `arrival_number` counts those that
    the engine has queued. Times are seconds since the start of the run, `None` until they happen.
    """

    request_id: str
    agent_index: int
    call_index: int
    num_prompt_tokens: int
    max_tokens: int
    history: History
    known_tokens: int
    arrival_s: float
    max_new_tokens: int | None
    priority: int

    arrival_number: int
    status: RequestStatus
    num_tokens: int
    num_final_tokens: int
    num_computed_tokens: int
    num_output_placeholders: int
    num_in_flight_tokens: int
    num_stale_output_tokens: int
    num_cached_tokens: int
    num_host_tokens: int
    num_recomputed_tokens: int
    num_preemptions: int
    scheduled_s: float | None
    first_token_s: float | None
    finished_s: float | None

    def __init__(
        self,
        request_id: str,
        agent_index: int,
        call_index: int,
        num_prompt_tokens: int,
        max_tokens: int,
        history: History,
        known_tokens: int,
        arrival_s: float,
        max_new_tokens: int | None = None,
        priority: int = 0,
    ) -> None:
        self.request_id = request_id
        self.agent_index = agent_index
        self.call_index = call_index
        self.num_prompt_tokens = num_prompt_tokens
        self.max_tokens = max_tokens
        self.history = history
        self.known_tokens = known_tokens
        self.arrival_s = arrival_s
        self.max_new_tokens = max_new_tokens
        self.priority = priority
        self.arrival_number = 0
        self.status = RequestStatus.WAITING
        self.num_tokens = num_prompt_tokens
        self.num_final_tokens = num_prompt_tokens + max_tokens
        self.num_computed_tokens = 0
        self.num_output_placeholders = 0
        self.num_in_flight_tokens = 0
        self.num_stale_output_tokens = 0
        self.num_cached_tokens = -1
        self.num_host_tokens = 0
        self.num_recomputed_tokens = 0
        self.num_preemptions = 0
        self.scheduled_s = None
        self.first_token_s = None
        self.finished_s = None

    @property
    def num_output_tokens(self) -> int:
        """Number of tokens sampled so far."""
        return self.num_tokens - self.num_prompt_tokens
