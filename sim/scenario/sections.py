"""The sections of the scenario file that say who decides, how, and what is kept of it."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from concur.controllers import WRAPPERS, controller_params
from concur.gate.agents import LEASE_S
from concur.orders import ORDERS
from concur.sim.section import MAX_SEED, MAX_TOKENS, ParameterSection, Seconds, Section


class GateConfig(Section):
    """`[gate]`: who goes first, after how long anyone does (`max_wait_s`), and when silence costs the slot.

    See `concur.gate.agents`. A tool wait of more than `lease_s` gives the slot to others. Without
    `are_ends_told` agents fall silent when they end, as behind a proxy that knows calls only: the gate, and
    with it the law, takes them for agents in a tool until their lease is over or their slot is needed.
    """

    admit: str = "longest_waiting"
    resume: str = "oldest"
    pause: str = "youngest"
    max_wait_s: float = Field(1800.0, gt=0)
    lease_s: float = Field(LEASE_S, gt=0)
    are_ends_told: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in (self.admit, self.resume, self.pause):
            if name not in ORDERS:
                raise ValueError(f"order = {name!r} but must be one of {', '.join(sorted(ORDERS))}")
        return self


class SloConfig(Section):
    """`[slo]`: the limits within which a call counts as served; none are stated by default.

    In seconds, from when the agent is ready to call: to its first token (`ttft_s`), per later token
    (`tpot_s`), to its last token (`call_latency_s`). Nothing acts on them; see `concur.sim.record.latency`.
    """

    ttft_s: float | None = Field(None, gt=0)
    tpot_s: float | None = Field(None, gt=0)
    call_latency_s: float | None = Field(None, gt=0)


class ControllerConfig(ParameterSection):
    """`[controller]`: the law, its parameters, and the guards around it."""

    kind: str = "none"
    wrappers: tuple[str, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.wrappers:
            if name not in WRAPPERS:
                raise ValueError(f"wrapper = {name!r} but must be one of {', '.join(WRAPPERS)}")
        params = controller_params(self.kind, self.parameters)
        names = type(params).__dataclass_fields__
        self.parameters.update({name: getattr(params, name) for name in names})
        return self

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions."""
        return float(self.parameters["interval_s"])

    @property
    def label(self) -> str:
        """Short name for tables and figures: `agent_cap=8`, `concur`, `concur+app_limited`."""
        cap = f"={self.parameters['cap']}" if "cap" in self.parameters else ""
        return "+".join((self.kind + cap, *self.wrappers))


class TenantConfig(Section):
    """`[tenant]`: someone else on the engine, whose calls pass no gate; see `concur.sim.world.tenant`.

    From `start_s` to `end_s` it keeps `num_requests` calls going, each of `prompt_tokens` that nobody has
    sent before and `output_tokens`; the last ones are left to end. It holds up to `num_requests` *
    (`prompt_tokens` + `output_tokens`) tokens of the pool, which is how a pool shrinks for the agents.
    `engine`: on which engine of a fleet, by its number, or `all`, with as many calls on each.
    """

    num_requests: int = Field(0, ge=0, le=100_000)
    prompt_tokens: int = Field(1, ge=1, le=MAX_TOKENS)
    output_tokens: int = Field(1, ge=1, le=MAX_TOKENS)
    start_s: Seconds = 0.0
    end_s: Seconds = 0.0
    engine: Annotated[int, Field(ge=0)] | Literal["all"] = "all"

    def engines(self, size: int) -> Sequence[int]:
        """Return the numbers of the engines that it is on, of a fleet of that size."""
        return range(size) if self.engine == "all" else (self.engine,)

    @property
    def context_tokens(self) -> int:
        """Length of one call at its end."""
        return self.prompt_tokens + self.output_tokens


class RecordConfig(Section):
    """`[record]`: how densely the timeline is sampled."""

    timeline_interval_s: float = Field(1.0, ge=1e-3, le=1e9)


class CompareConfig(Section):
    """`[compare]`: the policies that `concur compare` runs when it is told none, on which seeds and engines.

    No `seeds`: the one of the scenario. No `engines`: the one of the scenario; else the same agents under the
    same policies on each of them, `["vllm", "sglang", "sglang+schedule_policy=lpm"]`, see
    `concur.sim.scenario.engine_texts`. `interval_s`: seconds between two decisions of every policy that is
    named by its text, here or on the command line; none: each law's own.
    """

    controllers: tuple[str, ...] = ()
    interval_s: float | None = Field(None, ge=1e-3, le=1e9)
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = ()
    engines: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)} but each must be named once")
        return self
