"""What a controller may see: values that exist on a live engine too.

Counters are cumulative and gauges are what the engine published at the end of its last step, both under
vLLM's meanings (vLLM 0.32.0, `v1/metrics/loggers.py`, `v1/core/sched/scheduler.py::make_stats`).
Nothing here says how long an answer will be or what an agent will do next.
"""

from dataclasses import dataclass
from math import inf
from typing import Final

UNLIMITED: Final = 2**31 - 1
"""The window that never binds."""
GAUGES: Final = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_frac")
"""What every engine publishes of this moment."""
COUNTERS: Final = (
    "prefix_cache_queries_tokens",
    "prefix_cache_hits_tokens",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
)
"""What every engine counts from its start."""
MORE_COUNTERS: Final = (
    "num_engine_steps",
    "external_prefix_cache_queries_tokens",
    "external_prefix_cache_hits_tokens",
)
"""What some engines count too."""
PUBLISHED: Final = (*GAUGES, "kv_cache_resident_frac", *COUNTERS)
"""What a snapshot, a decision's row and a sample of the timeline all have of an engine."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens that a group's histories begin with, after those of the groups around it."""

    group: str
    tokens: int


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """How many tokens the agents that hold slots, or have lent them, may keep in the cache.

    Counted are their private tokens after their last call (`concur.measures.residents.private_tokens`);
    `newcomer_tokens` stand for whoever has not called yet. Nobody is let in whose tokens would make it more
    than `admit_tokens`, unless nobody else is in. At more than `pause_tokens` agents pause at their step
    boundaries until those who stay fit `admit_tokens`.
    """

    admit_tokens: float = inf
    pause_tokens: float = inf
    newcomer_tokens: float = 0.0


UNBOUNDED: Final = TokenBudget()
"""The budget that never binds."""


@dataclass(frozen=True, slots=True)
class AgentView:
    """What the gate knows of one agent.

    `context_tokens` is prompt + output of its last answer (`usage` of the response; 0 before the first; of
    calls that overlap, the longest), `waiting_since_s` the time at which it asked for the step that it is
    waiting for, `holds_slot` whether it is active: in a step, or in the tool wait after one. `num_calls` are
    in flight; `is_in_step` says whether any is. `parent` is the agent that started it. `lends_slot`: a
    descendant has its slot meanwhile (see `concur.gate.agents`); its history is kept as in a tool wait.

    The history begins with `shared_prefix_tokens` tokens that the agents of its `prefix_group` share; the
    first of them may be those of `outer_prefixes`, wider groups from the outermost in. A fork's begins with
    what `fork` names: so many tokens of that agent's history. `heard_s`: when it last asked or ended a call.
    """

    agent_id: str
    index: int
    arrived_s: float
    admitted_s: float | None = None
    waiting_since_s: float | None = None
    context_tokens: int = 0
    steps_done: int = 0
    prefix_group: str | None = None
    shared_prefix_tokens: int = 0
    is_in_step: bool = False
    holds_slot: bool = False
    num_calls: int = 0
    parent: str | None = None
    lends_slot: bool = False
    outer_prefixes: tuple[Prefix, ...] = ()
    fork: Prefix | None = None
    heard_s: float = 0.0

    @property
    def keeps_history(self) -> bool:
        """Whether the cache has to keep its history: it holds a slot, or a descendant has it meanwhile."""
        return self.holds_slot or self.lends_slot


@dataclass(frozen=True, slots=True)
class Usage:
    """What is known of one call when it has ended: `usage` of the response, and what the caller knows.

    `cached_tokens` of the prompt were credited by the engine's caches, `None` if it does not say.
    `kept_tokens` of it are what the agent's history begins with, `None` if the caller does not say; then as
    much as can be is taken for it.
    """

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None = None
    kept_tokens: int | None = None

    @property
    def context_tokens(self) -> int:
        """Length of the agent's history after the call."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class CallView:
    """A call that has ended: whose, the how manieth of it, when, and after how long a tool wait.

    `kept_tokens` of the prompt were the agent's before, shared prefixes included; `idle_s` passed between the
    end of the call before and the moment it asked for this one, `None` for a first call.
    """

    agent_id: str
    call_index: int
    ended_s: float
    idle_s: float | None
    prompt_tokens: int
    output_tokens: int
    kept_tokens: int
    cached_tokens: int | None


@dataclass(frozen=True, slots=True)
class Departures:
    """Sums over the agents that have left after they held a slot; they only grow.

    `calls`: all they made, the one they left in among them. `tokens`: what each left with, less its shared
    prefix. `call_tokens`: the same after each of its calls, summed over them. An agent that came, ran and
    left between two readings is in no reading's `agents`, but it is here.
    """

    agents: int = 0
    calls: int = 0
    tokens: int = 0
    call_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading of an engine and its gate.

    Gauges: `kv_cache_usage_frac` is vLLM's `vllm:kv_cache_usage_perc` (0 to 1): blocks referenced by
    running requests, *without* the cached blocks of idle agents. `kv_cache_resident_frac` adds those;
    an engine that does not publish it leaves `None` (vLLM does; SGLang's `kv_evictable_tokens` gives it).
    Counters (cumulative): `prefix_cache_queries_tokens` and `prefix_cache_hits_tokens` leave out requests
    re-admitted after a preemption, as vLLM's do. `agents` is filled for controllers that read it; `departed`
    is the gate's count of those who have left, and `calls` are those that have ended since the last decision,
    of which `usage` was told. `num_engine_steps` counts from the engine's start, `None` if it is not told.
    `external_prefix_cache_*`: tokens looked for, and found, in what a KV connector holds outside the GPU,
    after the engine's own cache; both 0 without one.

    The pool: `num_gpu_blocks` blocks of `block_size` tokens, vLLM's null block among them.
    `kv_cache_size_tokens` is what a live engine itself says that its pool holds, where that is not its own
    blocks times their size (hybrid models, context parallelism), and `None` otherwise; `num_gpu_blocks` is
    then so many blocks as that makes, so that no law reads another pool by multiplying.
    """

    time_s: float
    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_cache_usage_frac: float = 0.0
    kv_cache_resident_frac: float | None = None
    prefix_cache_queries_tokens: int = 0
    prefix_cache_hits_tokens: int = 0
    num_preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    num_gpu_blocks: int = 0
    block_size: int = 0
    kv_cache_size_tokens: int | None = None
    agents_paused: int = 0
    agents_waiting: int = 0
    agents: tuple[AgentView, ...] = ()
    departed: Departures = Departures()
    calls: tuple[CallView, ...] = ()
    num_engine_steps: int | None = None
    external_prefix_cache_queries_tokens: int = 0
    external_prefix_cache_hits_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """The pool, the null block included: for rules that are published as blocks times their size."""
        if self.kv_cache_size_tokens is not None:
            return self.kv_cache_size_tokens
        return self.num_gpu_blocks * self.block_size

    @property
    def pool_tokens(self) -> int:
        """The tokens that requests can hold; a null block is none of theirs."""
        if self.kv_cache_size_tokens is not None:
            return self.kv_cache_size_tokens
        return max(0, self.num_gpu_blocks - 1) * self.block_size
