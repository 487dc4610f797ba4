"""The scenario file: one TOML file is one experiment, in both worlds.

Every key has a bound, unknown keys are errors, and every default is written into `run.json`, so that the
record alone repeats the run. Keys of `[workload]` that belong to the generator and keys of `[controller]`
that belong to the law may be written flat; they are checked against that generator or law.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from concur.controllers import CATALOG, WRAPPERS, controller_params
from concur.gate.agents import LEASE_S
from concur.orders import ORDERS
from concur.sim.errors import ScenarioError
from concur.sim.scenario.toml_files import (
    explain,
    parse_override,
    read_toml,
    relative_to,
    set_key,
    toml_value,
)
from concur.sim.step_time.profile import StepTimeProfile, load_profile
from concur.sim.workload.generators import GENERATORS

MAX_AGENTS: Final = 1_000_000
"""Bound of a run: an agent takes 5 to 12 kB, so that this many fit the memory of one machine with 24 GB."""
MAX_BLOCKS: Final = 50_000_000
"""Bound of a pool: where it is kept block by block, a block takes 0.2 to 0.4 kB."""
MAX_TOKENS: Final = 1_000_000_000
"""Bound of everything that is counted in tokens, as in traces; no machine holds more."""
_MOST_CAPS: Final = 10_000  # of one `first..last`
_MAX_SEED: Final = 2**63 - 1  # what a column of a table holds

_Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _gather_parameters(raw: Any, known: Iterable[str]) -> Any:
    """Move the flat keys that are not the section's own into `parameters`."""
    if not isinstance(raw, dict):
        return raw
    own = {key: value for key, value in raw.items() if key in known}
    flat = {key: value for key, value in raw.items() if key not in known}
    given = own.get("parameters", {})
    return own | {"parameters": given | flat} if isinstance(given, dict) else raw


def _arrival_form(raw: Any) -> str:
    return "<word>" if isinstance(raw, str) else "<table>"


class PoissonArrival(_Section):
    """Agents that arrive one by one, as a Poisson process."""

    process: Literal["poisson"]
    rate_per_s: float = Field(ge=1e-4, le=1e6)


Arrival = Annotated[
    Annotated[Literal["batch"], Tag("<word>")] | Annotated[PoissonArrival, Tag("<table>")],
    Discriminator(_arrival_form),
]


class PartConfig(_Section):
    """`[[workload.parts]]`: some of the agents, from one generator, that arrive from `start_s` on."""

    generator: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    num_agents: int = Field(ge=1, le=MAX_AGENTS)
    start_s: _Seconds = 0.0
    arrival: Arrival = "batch"

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, raw: Any) -> Any:
        return _gather_parameters(raw, cls.model_fields)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _fill_in_generator(self.generator, self.parameters)
        return self


class WorkloadConfig(_Section):
    """`[workload]`: a trace, a generator and its parameters, or several parts.

    `num_agents` = 0 takes every eligible agent of a trace. `max_context_tokens` skips (and counts) agents
    whose prompt + output ever exceeds it. Tool waits are cut at `max_tool_latency_s`;
    `default_tool_latency_s` stands where a trace recorded none. `arrival` = "batch": all at t = 0.
    `parts` follow one another in the queue, which makes a drift; `shuffle` mixes them by the seed instead.
    """

    trace: str | None = None
    generator: str | None = None
    parts: tuple[PartConfig, ...] = ()
    shuffle: bool = False
    parameters: dict[str, Any] = Field(default_factory=dict)
    num_agents: int = Field(0, ge=0, le=MAX_AGENTS)
    fresh_only: bool = True
    max_context_tokens: int | None = Field(None, ge=2, le=MAX_TOKENS)
    max_tool_latency_s: _Seconds = 60.0
    default_tool_latency_s: _Seconds = 1.0
    arrival: Arrival = "batch"

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, raw: Any) -> Any:
        return _gather_parameters(raw, cls.model_fields)

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
        if self.generator is None:
            if self.parameters:
                raise ValueError(f"unknown key {sorted(self.parameters)[0]!r}; it is no generator's")
            return self
        _fill_in_generator(self.generator, self.parameters)
        if self.num_agents < 1:
            raise ValueError("num_agents = 0 but a generator must be told how many, at least 1")
        return self

    @property
    def num_drawn_agents(self) -> int:
        """Agents that generators draw, before any is left out; 0 for a trace."""
        return sum(part.num_agents for part in self.parts) + (self.num_agents if self.generator else 0)


def _fill_in_generator(name: str, parameters: dict[str, Any]) -> None:
    """Check the parameters of a generator and write its defaults among them."""
    parameters.update(GENERATORS[name](**parameters).model_dump())


class HostCacheConfig(_Section):
    """`[engine.host_cache]`: a second tier in host memory; `capacity_tokens` = 0 means none.

    `bandwidth_bytes_per_s` is shared by all concurrent loads. Its default, 48.5 GB/s, is what the CONCUR
    paper's Fig. 1c amounts to (8 x 6.67 GB in about 1.1 s). `kv_bytes_per_token` defaults to Qwen3-32B in
    bf16: 64 layers x 8 KV heads x 128 x 2 (K, V) x 2 bytes = 262,144. With a second tier a run is simulated
    block by block, which takes up to 50 times longer.
    """

    capacity_tokens: int = Field(0, ge=0, le=MAX_TOKENS)
    bandwidth_bytes_per_s: float = Field(48.5e9, gt=0, le=1e15)
    kv_bytes_per_token: int = Field(262_144, ge=1, le=10**9)


class EngineConfig(_Section):
    """`[engine]`: vLLM's own names and meanings (0.32.0); `num_gpu_blocks` counts the null block."""

    block_size: int = Field(16, ge=1, le=1_000_000)
    num_gpu_blocks: int = Field(ge=2, le=MAX_BLOCKS)
    max_num_seqs: int = Field(256, ge=1, le=MAX_AGENTS)
    max_num_batched_tokens: int = Field(8192, ge=1, le=MAX_TOKENS)
    max_model_len: int = Field(131_072, ge=2, le=MAX_TOKENS)
    enable_prefix_caching: bool = True
    async_scheduling: bool = False
    long_prefill_token_threshold: int = Field(0, ge=0, le=MAX_TOKENS)
    scheduler_reserve_full_isl: bool = True
    watermark: float = Field(0.0, ge=0, lt=1)
    host_cache: HostCacheConfig = HostCacheConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens = {self.max_num_batched_tokens} but must be at least "
                f"max_num_seqs = {self.max_num_seqs}, as vLLM demands"
            )
        if self.host_cache.capacity_tokens and not self.enable_prefix_caching:
            raise ValueError("host_cache needs enable_prefix_caching = true: blocks are found by their hash")
        if 0 < self.host_cache.capacity_tokens < self.block_size:
            raise ValueError(
                f"host_cache.capacity_tokens = {self.host_cache.capacity_tokens} but must be 0 or at least "
                f"block_size = {self.block_size}"
            )
        return self

    @property
    def pool_tokens(self) -> int:
        """Tokens that the block pool can hold; the null block holds none."""
        return (self.num_gpu_blocks - 1) * self.block_size


class LinearStepTimeConfig(_Section):
    """`[step_time]`: coefficients of the linear step time, see `concur.sim.step_time.step_time`."""

    kind: Literal["linear"] = "linear"
    base_s: _Seconds = 0.006
    per_prefill_token_s: _Seconds = 2.1e-5
    per_decode_seq_s: _Seconds = 5e-5
    per_context_token_s: _Seconds = 1.2e-8
    per_prefill_pair_s: _Seconds = 1.0e-9

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.base_s == 0 and self.per_prefill_token_s == 0:
            raise ValueError("base_s and per_prefill_token_s are both 0, but a step must take time")
        return self


class ProfileStepTimeConfig(_Section):
    """`[step_time]`: a measured engine's profile, by the name of a shipped one or by path.

    With it, `engine.num_gpu_blocks` (and, in `[engine.host_cache]`, `kv_bytes_per_token` and
    `bandwidth_bytes_per_s`) may be left out: they are the measured engine's.
    """

    kind: Literal["profile"] = "profile"
    profile: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        load_profile(self.profile)
        return self


def _step_time_form(raw: Any) -> str:
    is_profile = "profile" in raw if isinstance(raw, dict) else isinstance(raw, ProfileStepTimeConfig)
    return "<profile>" if is_profile else "<linear>"


StepTimeConfig = Annotated[
    Annotated[LinearStepTimeConfig, Tag("<linear>")] | Annotated[ProfileStepTimeConfig, Tag("<profile>")],
    Discriminator(_step_time_form),
]


def _with_measured(engine: Mapping[str, Any], profile: StepTimeProfile) -> dict[str, Any]:
    """Return `[engine]` with what it leaves out and the profile knows."""
    filled = dict(engine)
    block_size = filled.get("block_size", EngineConfig.model_fields["block_size"].default)
    if isinstance(block_size, int) and block_size > 0:
        filled.setdefault("num_gpu_blocks", profile.num_blocks_of(block_size))
    measured = {
        "kv_bytes_per_token": profile.kv_bytes_per_token,
        "bandwidth_bytes_per_s": profile.host_to_device_bytes_per_s,
    }
    if isinstance(filled.get("host_cache"), Mapping):
        known = {key: value for key, value in measured.items() if value is not None}
        filled["host_cache"] = known | dict(filled["host_cache"])
    return filled


def profile_hash(config: LinearStepTimeConfig | ProfileStepTimeConfig) -> str | None:
    """Return the SHA-256 of the step-time profile, `None` where there is none."""
    return load_profile(config.profile).sha256 if config.kind == "profile" else None


class GateConfig(_Section):
    """`[gate]`: who goes first, after how long anyone does (`max_wait_s`), and when silence costs the slot.

    See `concur.gate.agents`. A tool wait of more than `lease_s` gives the slot to others.
    """

    admit: str = "longest_waiting"
    resume: str = "oldest"
    pause: str = "youngest"
    max_wait_s: float = Field(1800.0, gt=0)
    lease_s: float = Field(LEASE_S, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in (self.admit, self.resume, self.pause):
            if name not in ORDERS:
                raise ValueError(f"order = {name!r} but must be one of {', '.join(sorted(ORDERS))}")
        return self


class ControllerConfig(_Section):
    """`[controller]`: the law, its parameters, and the guards around it."""

    kind: str = "none"
    wrappers: tuple[str, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, raw: Any) -> Any:
        return _gather_parameters(raw, cls.model_fields)

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


class TenantConfig(_Section):
    """`[tenant]`: someone else on the same engine, whose calls pass no gate; see `concur.sim.world.tenant`.

    From `start_s` to `end_s` it keeps `num_requests` calls going, each of `prompt_tokens` that nobody has
    sent before and `output_tokens`; the last ones are left to end. It holds up to `num_requests` *
    (`prompt_tokens` + `output_tokens`) tokens of the pool, which is how a pool shrinks for the agents.
    """

    num_requests: int = Field(0, ge=0, le=100_000)
    prompt_tokens: int = Field(1, ge=1, le=MAX_TOKENS)
    output_tokens: int = Field(1, ge=1, le=MAX_TOKENS)
    start_s: _Seconds = 0.0
    end_s: _Seconds = 0.0

    @property
    def context_tokens(self) -> int:
        """Length of one call at its end."""
        return self.prompt_tokens + self.output_tokens


class RecordConfig(_Section):
    """`[record]`: how densely the timeline is sampled."""

    timeline_interval_s: float = Field(1.0, ge=1e-3, le=1e9)


class CompareConfig(_Section):
    """`[compare]`: the policies that `concur compare` runs when it is told none, and on which seeds.

    No `seeds`: the one of the scenario. `interval_s`: seconds between two decisions of every policy that is
    named by its text, here or on the command line; none: each law's own.
    """

    controllers: tuple[str, ...] = ()
    interval_s: float | None = Field(None, ge=1e-3, le=1e9)
    seeds: tuple[Annotated[int, Field(ge=0, le=_MAX_SEED)], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)} but each must be named once")
        return self


class Scenario(_Section):
    """One experiment."""

    seed: int = Field(0, ge=0, le=_MAX_SEED)
    workload: WorkloadConfig
    engine: EngineConfig
    step_time: StepTimeConfig = LinearStepTimeConfig()
    gate: GateConfig = GateConfig()
    controller: ControllerConfig = Field(default_factory=ControllerConfig)
    tenant: TenantConfig = TenantConfig()
    record: RecordConfig = RecordConfig()
    compare: CompareConfig = CompareConfig()

    @model_validator(mode="before")
    @classmethod
    def _take_from_profile(cls, raw: Any) -> Any:
        """Fill in what the profile knows of the engine and the scenario leaves out."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("step_time"), Mapping):
            return raw
        name, engine = raw["step_time"].get("profile"), raw.get("engine", {})
        if not isinstance(name, str) or not isinstance(engine, Mapping):
            return raw
        return {**raw, "engine": _with_measured(engine, load_profile(name))}

    @model_validator(mode="after")
    def _check(self) -> Self:
        limit = min(self.engine.max_model_len, self.engine.pool_tokens)
        if self.tenant.num_requests and self.tenant.context_tokens > limit:
            raise ValueError(
                f"tenant.prompt_tokens + output_tokens = {self.tenant.context_tokens} but must be at most "
                f"{limit}, what the model and the pool hold"
            )
        return self

    def policies(self, text: str, *, origin: str = "--controllers") -> list[ControllerConfig]:
        """Return the controllers that a policy's text names in this scenario, see `parse_controllers`.

        Raises
        ------
        ScenarioError
            If it names none.
        """
        return parse_controllers(text, self.controller, interval_s=self.compare.interval_s, origin=origin)

    @property
    def packages(self) -> dict[str, str]:
        """Name and version of the packages outside this project that its law and its generators are from."""
        generators = [self.workload.generator, *(part.generator for part in self.workload.parts)]
        found = [
            CATALOG.package(self.controller.kind),
            *(GENERATORS.package(name) for name in generators if name),
        ]
        return dict(package for package in found if package)

    def with_controller(self, controller: ControllerConfig) -> "Scenario":
        """Return the same experiment under another controller."""
        return self.model_copy(update={"controller": controller})

    def with_seed(self, seed: int) -> "Scenario":
        """Return the same experiment with other draws."""
        return self.model_copy(update={"seed": seed})


def what_decides(scenario: Scenario) -> dict[str, Any]:
    """Return, for a fingerprint, what of a scenario decides a run.

    The content of the profile is in the place of its path. The trace's path is left out: its content decides,
    and is the caller's to add.
    """
    decides = scenario.model_dump(mode="json", exclude={"compare": True, "workload": {"trace"}})
    if scenario.step_time.kind == "profile":
        decides["step_time"]["profile"] = profile_hash(scenario.step_time)
    return decides


def load_scenario(path: Path, overrides: Iterable[str] = ()) -> Scenario:
    """Read a scenario file and apply `section.key=value` overrides (values as in TOML, or bare text).

    A relative path (trace, profile) in the file is relative to the file; in an override, to the working
    folder.

    Raises
    ------
    ScenarioError
        If the file is unreadable or not TOML, or a key is unknown, missing or out of bounds.
    """
    return parse_scenario(read_scenario(path, overrides), origin=str(path))


def read_scenario(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return what `load_scenario` checks: the tables of the file, paths made relative to the working folder.

    Raises
    ------
    ScenarioError
        If the file is unreadable or not TOML, or an override is not of its form.
    """
    raw = read_toml(path, what="scenario")
    for section, name in (("workload", "trace"), ("step_time", "profile")):
        table = raw.get(section)
        if isinstance(table, dict) and name in table:
            table[name] = relative_to(path.parent, f"{section}.{name}", table[name])
    for override in overrides:
        key, value = parse_override(override)
        set_key(raw, key, value, origin=f"--set {override}")
    return raw


def parse_scenario(raw: Mapping[str, Any], *, origin: str = "scenario") -> Scenario:
    """Check a scenario given as a mapping.

    Raises
    ------
    ScenarioError
        At the first key that is unknown, missing or out of bounds: the value, the bound, the remedy.
    """
    try:
        return Scenario.model_validate(raw)
    except ValidationError as error:
        raise explain(error, origin) from None


def parse_controllers(
    text: str, base: ControllerConfig, *, interval_s: float | None = None, origin: str = "--controllers"
) -> list[ControllerConfig]:
    """Read one `--controllers` item: `none`, `agent_cap=8,16,32`, `agent_cap=8..64..4`, `concur+app_limited`.

    Parameters given in `[controller]` of the scenario (`base`) stay in force for the same `kind`, and are
    nothing to any other: a law's run in a comparison is its run alone. `interval_s`, that of `[compare]`,
    holds for every kind.

    Raises
    ------
    ScenarioError
        If the kind, a wrapper or a cap is not one.
    """
    name, _, values = text.partition("=")
    kind, *wrappers = name.split("+")
    given = dict(base.parameters) if kind == base.kind else {}
    if interval_s is not None:
        given["interval_s"] = interval_s
    raws: list[dict[str, Any]] = [given | {"kind": kind, "wrappers": wrappers}]
    if values:
        raws = [raws[0] | {"cap": value} for part in values.split(",") for value in _caps(part)]
    try:
        return [ControllerConfig.model_validate(raw) for raw in raws]
    except ValidationError as error:
        message = str(explain(error, f"{origin} {text}")).replace(": scenario:", ":")
        raise ScenarioError(f"{message}; e.g. none, agent_cap=8,16, concur") from None


def _caps(text: str) -> list[Any]:
    """Read one cap, or a sweep `first..last` or `first..last..step`, both ends included."""
    if ".." not in text:
        return [toml_value(text)]
    numbers = [toml_value(part) for part in text.split("..")]
    if len(numbers) > 3 or any(type(number) is not int or number < 1 for number in numbers):
        return [text]  # for the catalog to refuse by name
    first, last, step = (*numbers, 1)[:3]
    caps = range(first, last + 1, step)[: _MOST_CAPS + 1]
    return list(caps) if 0 < len(caps) <= _MOST_CAPS else [text]
