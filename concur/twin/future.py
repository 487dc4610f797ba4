"""One drawn future of the batch, as the model takes it: who is where, and which calls everybody makes."""

from dataclasses import dataclass

from concur.twin.cache import Level
from concur.twin.costs import StepCosts


@dataclass(frozen=True, slots=True)
class FutureCall:
    """A call: what is new in its prompt, its answer, the share of the history it keeps, the wait after it."""

    new_tokens: float
    output_tokens: float
    kept_frac: float
    wait_s: float


@dataclass(frozen=True, slots=True)
class FutureAgent:
    """An agent at the moment of the plan. Tokens are private ones; `levels` are what it shares with others.

    `holds_slot` with `decode_tokens` left to generate, or with `idle_s` left of its tool wait. `calls` begin
    after that; of the call in flight `context_tokens` is what it will end with, `held_tokens` what the gate
    counts until then. `heard_s`: when its history was last used.
    """

    context_tokens: float
    held_tokens: float
    holds_slot: bool
    decode_tokens: float
    idle_s: float
    calls: tuple[FutureCall, ...]
    levels: tuple[Level, ...] = ()
    heard_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Future:
    """Agents in the order of the gate, and the engine that serves them.

    Each of the `agents` stands for `scale` of them: the pool, what groups share and what a step prefills are
    so much smaller, and each token costs so much more. `is_cut`: the youngest are left out, whose end is
    nobody's end. `newcomer_tokens` are what the gate counts for a new agent. Of what was evicted and is
    needed again `recomputed_frac` is computed; the rest comes from an offload tier, beside the steps.
    """

    agents: tuple[FutureAgent, ...]
    costs: StepCosts
    pool_tokens: float
    newcomer_tokens: float
    scale: int = 1
    is_cut: bool = False
    recomputed_frac: float = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What a plan decides: the bounds of the gate, those in tokens as fractions of the pool.

    At `admit_frac` nobody more is let in; at 1 + `slack_frac` times that the youngest pause. At most `window`
    agents are in.
    """

    admit_frac: float
    slack_frac: float
    window: int
