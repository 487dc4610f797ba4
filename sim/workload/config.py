"""`[workload]` of the scenario file: whose calls, how many agents, and when they come."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from concur.sim.section import MAX_AGENTS, MAX_TOKENS, ParameterSection, Seconds, Section
from concur.sim.traces.format import Priority
from concur.sim.workload.generators import GENERATORS


def _arrival_form(raw: Any) -> str:
    if isinstance(raw, str):
        return "<word>"
    process = raw.get("process") if isinstance(raw, dict) else getattr(raw, "process", None)
    return "<closed>" if process == "closed" else "<poisson>"


class PoissonArrival(Section):
    """Agents that arrive one by one, as a Poisson process."""

    process: Literal["poisson"]
    rate_per_s: float = Field(ge=1e-4, le=1e6)


class ClosedArrival(Section):
    """A load generator's closed loop: `num_sessions` at a time for `duration_s`, as one ends the next begins.

    The sessions are those of the trace or generator, in order, `repeats` times over with new names.
    """

    process: Literal["closed"]
    num_sessions: int = Field(ge=1, le=MAX_AGENTS)
    duration_s: float = Field(gt=0, le=1e6)
    repeats: int = Field(1, ge=1, le=10_000)


Arrival = Annotated[
    Annotated[Literal["batch", "trace"], Tag("<word>")]
    | Annotated[PoissonArrival, Tag("<poisson>")]
    | Annotated[ClosedArrival, Tag("<closed>")],
    Discriminator(_arrival_form),
]


class PartConfig(ParameterSection):
    """`[[workload.parts]]`: some of the agents, from one generator, that arrive from `start_s` on.

    Their calls have `priority`, see `engine.scheduling_policy`.
    """

    generator: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    num_agents: int = Field(ge=1, le=MAX_AGENTS)
    start_s: Seconds = 0.0
    arrival: Arrival = "batch"
    priority: Priority = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        _fill_in_generator(self.generator, self.parameters)
        return self


class WorkloadConfig(ParameterSection):
    """`[workload]`: a trace, a generator and its parameters, or several parts.

    `num_agents` = 0 takes every eligible agent of a trace; else it counts those that arrive by themselves,
    and their sub-agents come with them. `max_context_tokens` skips (and counts) agents whose prompt + output
    ever exceeds it. Tool waits are cut at `max_tool_latency_s`; `default_tool_latency_s` stands where a trace
    recorded none. `arrival` = "batch": all at t = 0; "trace": as recorded. `order` = "shuffled" puts the
    agents of a trace, and the `parts`, into an order by the seed (`shuffle` is its older name for `parts`,
    which else follow one another, which makes a drift). `user_waits` and `sub_agents` of a trace are "kept"
    or "left_out". `max_new_tokens` is the limit that a client sends with each call for which the trace has
    none; 0: the length of the answer. Under `strict`, what is lost on the way into a run is an error.
    """

    trace: str | None = None
    generator: str | None = None
    parts: tuple[PartConfig, ...] = ()
    shuffle: bool = False
    parameters: dict[str, Any] = Field(default_factory=dict)
    num_agents: int = Field(0, ge=0, le=MAX_AGENTS)
    fresh_only: bool = True
    max_context_tokens: int | None = Field(None, ge=2, le=MAX_TOKENS)
    max_tool_latency_s: Seconds = 60.0
    default_tool_latency_s: Seconds = 1.0
    arrival: Arrival = "batch"
    order: Literal["file", "shuffled"] = "file"
    user_waits: Literal["kept", "left_out"] = "left_out"
    sub_agents: Literal["kept", "left_out"] = "kept"
    max_new_tokens: int = Field(0, ge=0, le=MAX_TOKENS)
    strict: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.trace is not None) + (self.generator is not None) + bool(self.parts) != 1:
            raise ValueError("needs exactly one of trace = FILE, generator = NAME and [[workload.parts]]")
        if self.parts and (self.num_agents or self.arrival != "batch"):
            raise ValueError("num_agents and arrival belong to each of the [[workload.parts]]")
        num_agents = sum(part.num_agents for part in self.parts)
        if num_agents > MAX_AGENTS:
            raise ValueError(
                f"the [[workload.parts]] have {num_agents} agents in all but may have at most {MAX_AGENTS}; "
                "lower their num_agents"
            )
        if self.shuffle and not self.parts:
            raise ValueError("shuffle = true mixes [[workload.parts]], and there are none")
        if any(isinstance(part.arrival, ClosedArrival) for part in self.parts):
            raise ValueError("a closed loop is of a whole workload, not of one of its [[workload.parts]]")
        if self.trace is None:
            self._check_without_trace()
        if self.generator is None:
            if self.parameters:
                raise ValueError(f"unknown key {sorted(self.parameters)[0]!r}; it is no generator's")
            return self
        _fill_in_generator(self.generator, self.parameters)
        if self.num_agents < 1:
            raise ValueError("num_agents = 0 but a generator must be told how many, at least 1")
        return self

    def _check_without_trace(self) -> None:
        """Refuse what only a trace has: silence would pass for consent."""
        if self.arrival == "trace" or any(part.arrival == "trace" for part in self.parts):
            raise ValueError('arrival = "trace" takes recorded arrivals, and a generator has none')
        if self.order == "shuffled" and not self.parts:
            raise ValueError(
                'order = "shuffled" mixes a trace or [[workload.parts]]; a seed draws other agents'
            )
        for key, default in (("user_waits", "left_out"), ("sub_agents", "kept")):
            if getattr(self, key) != default:
                raise ValueError(f"{key} = {getattr(self, key)!r} is about a trace; a generator has none")

    @property
    def is_shuffled(self) -> bool:
        """Whether the seed decides the order of the agents."""
        return self.shuffle or self.order == "shuffled"

    @property
    def num_drawn_agents(self) -> int:
        """Agents that generators draw, before any is left out; 0 for a trace."""
        return sum(part.num_agents for part in self.parts) + (self.num_agents if self.generator else 0)


def _fill_in_generator(name: str, parameters: dict[str, Any]) -> None:
    """Check the parameters of a generator and write its defaults among them."""
    parameters.update(GENERATORS[name](**parameters).model_dump())
