"""The rows of a record's tables: the columns and their meaning, the same for both worlds.

`t_s` and every `*_s` time are seconds since the start of the run.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class RequestRow(NamedTuple):
    """One model call, in order of finish.

    `ready_s` the agent wants it, `submitted_s` the gate lets it, `scheduled_s` the engine first schedules it,
    then `first_token_s` and `finished_s`. `cached_tokens` were credited at `scheduled_s` (prefix cache and
    host cache together; `host_tokens` is the latter's part). `recomputed_tokens` were prefilled although
    computed before for this agent, preemptions included. `kept_tokens` of the prompt are the agent's history.
    `engine_index` of a fleet served it.
    """

    agent_index: int
    call_index: int
    ready_s: float
    submitted_s: float
    scheduled_s: float
    first_token_s: float
    finished_s: float
    prompt_tokens: int
    kept_tokens: int
    cached_tokens: int | None
    host_tokens: int | None
    recomputed_tokens: int | None
    output_tokens: int
    num_preemptions: int | None
    engine_index: int | None = None


class AgentRow(NamedTuple):
    """One agent. `gate_wait_s` sums its waits at the gate; `num_pauses` counts lost slots.

    `shared_prefix_tokens` of its `prefix_group` begin its history; the first of them are those of
    `outer_prefixes`, a JSON list of [group, tokens], from the outermost in. `parent` started it after its
    call `parent_step`; a fork begins with `fork_tokens` of the parent's history.
    """

    agent_index: int
    agent_id: str
    prefix_group: str | None
    shared_prefix_tokens: int
    num_calls: int
    peak_context_tokens: int
    arrived_s: float
    admitted_s: float
    finished_s: float
    gate_wait_s: float
    num_pauses: int
    outer_prefixes: str | None
    parent: str | None
    parent_step: int | None
    fork_tokens: int


class TickRow(NamedTuple):
    """One controller decision: the snapshot in, the window out, and its bound in tokens if it has one.

    `engine_index` of a fleet was decided on, null for all of it.
    """

    t_s: float
    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage_frac: float
    kv_cache_resident_frac: float | None
    prefix_cache_queries_tokens: int
    prefix_cache_hits_tokens: int
    num_preemptions: int
    prompt_tokens: int
    generation_tokens: int
    agents_active: int
    agents_paused: int
    agents_waiting: int
    window_before: int
    window: int
    state: str
    admit_tokens: float | None
    pause_tokens: float | None
    newcomer_tokens: float | None
    engine_index: int | None = None


class TimelineRow(NamedTuple):
    """One sample of gauges and cumulative counters; what a live engine does not publish is null there."""

    t_s: float
    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage_frac: float
    kv_cache_resident_frac: float | None
    prefix_cache_queries_tokens: int
    prefix_cache_hits_tokens: int
    num_preemptions: int
    prompt_tokens: int
    generation_tokens: int
    recomputed_tokens: int | None
    num_evictions: int | None
    prefill_s: float | None
    recompute_s: float | None
    decode_s: float | None
    agents_active: int
    agents_paused: int
    agents_waiting: int
    agents_finished: int
    window: int


class EngineRow(NamedTuple):
    """One sample of one engine of a fleet, and of its gate if it has one of its own; see `TimelineRow`.

    `num_in_flight` calls are with it by the router's count. `is_up`: 0 while it does not answer.
    """

    t_s: float
    engine_index: int
    is_up: int
    num_in_flight: int
    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage_frac: float
    kv_cache_resident_frac: float | None
    prefix_cache_queries_tokens: int
    prefix_cache_hits_tokens: int
    num_preemptions: int
    prompt_tokens: int
    generation_tokens: int
    recomputed_tokens: int | None
    num_evictions: int | None
    prefill_s: float | None
    recompute_s: float | None
    decode_s: float | None
    agents_active: int | None
    agents_paused: int | None
    agents_waiting: int | None
    window: int | None


Row = RequestRow | AgentRow | TickRow | TimelineRow | EngineRow
TABLES: Final[Mapping[str, type[Row]]] = {
    "requests": RequestRow,
    "agents": AgentRow,
    "ticks": TickRow,
    "timeline": TimelineRow,
}
FLEET_TABLES: Final[Mapping[str, type[Row]]] = {"engines": EngineRow}
"""Tables that only the record of a fleet has."""
FLEET_COLUMNS: Final = ("engine_index",)
"""Columns, the last ones of their tables, that only the record of a fleet has."""
