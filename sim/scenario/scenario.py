"""The scenario file: one TOML file is one experiment, in both worlds.

Every key has a bound, unknown keys are errors, and every default is written into `run.json`, so that the
record alone repeats the run. Keys of `[workload]` that belong to the generator and keys of `[controller]`
that belong to the law may be written flat; they are checked against that generator or law.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from concur.controllers import CATALOG
from concur.routing import ROUTERS
from concur.sim.engine.config import EngineConfig, EngineSection
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.errors import ScenarioError
from concur.sim.scenario.fleet import EngineOverrides, FleetConfig, overridden
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.scenario.sections import (
    CompareConfig,
    ControllerConfig,
    GateConfig,
    RecordConfig,
    SloConfig,
    TenantConfig,
)
from concur.sim.scenario.toml_files import explain, parse_override, read_toml, relative_to, set_key
from concur.sim.section import MAX_SEED, Section
from concur.sim.step_time.config import LinearStepTimeConfig, StepTimeConfig, profile_hash
from concur.sim.step_time.profile import StepTimeProfile, load_profile
from concur.sim.workload.config import WorkloadConfig
from concur.sim.workload.generators import GENERATORS


class Scenario(Section):
    """One experiment."""

    seed: int = Field(0, ge=0, le=MAX_SEED)
    workload: WorkloadConfig
    engine: EngineSection
    step_time: StepTimeConfig = LinearStepTimeConfig()
    gate: GateConfig = GateConfig()
    controller: ControllerConfig = Field(default_factory=ControllerConfig)
    tenant: TenantConfig = TenantConfig()
    slo: SloConfig = SloConfig()
    record: RecordConfig = RecordConfig()
    compare: CompareConfig = CompareConfig()
    fleet: FleetConfig | None = None

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
        engines, tenant = self.engines, self.tenant
        if tenant.engine != "all" and tenant.engine >= len(engines):
            raise ValueError(
                f"tenant.engine = {tenant.engine} but must be below {len(engines)}, the number of engines"
            )
        for number in tenant.engines(len(engines)) if tenant.num_requests else ():
            engine = engines[number].engine
            limit = min(engine.max_context_tokens, engine.pool_tokens)
            if tenant.context_tokens > limit:
                raise ValueError(
                    f"tenant.prompt_tokens + output_tokens = {tenant.context_tokens} but must be at most "
                    f"{limit}, what the model and the pool hold"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_a_fleet(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what only a fleet has where there is none: one engine is written as ever."""
        dumped: dict[str, Any] = dump(self)
        if self.fleet is None:
            dumped.pop("fleet", None)
            dumped.get("tenant", {}).pop("engine", None)
        return dumped

    @property
    def engines(self) -> tuple["Scenario", ...]:
        """The scenario of each engine, alone: this one where there is no fleet.

        Raises
        ------
        ScenarioError
            If an engine of the fleet, or its step time, has a key that is unknown or out of bounds.
        """
        if self.fleet is None:
            return (self,)
        made: dict[str, Scenario] = {}
        return tuple(
            made.setdefault(each.model_dump_json(), self._alone(each)) for each in self.fleet.overrides()
        )

    def _alone(self, changes: EngineOverrides) -> "Scenario":
        raw = self.model_dump(include={"engine", "step_time"})
        for name in ("engine", "step_time"):
            raw[name] = overridden(raw[name], getattr(changes, name))
        own = type(self)(workload=self.workload, engine=raw["engine"], step_time=raw["step_time"])
        return self.model_copy(update={"fleet": None, "engine": own.engine, "step_time": own.step_time})

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
            ROUTERS.package(self.fleet.routing) if self.fleet else None,
        ]
        return dict(package for package in found if package)

    @property
    def vllm(self) -> EngineConfig:
        """The engine, for what only vLLM has.

        Raises
        ------
        ScenarioError
            If the scenario has another one.
        """
        if isinstance(self.engine, SglangConfig):
            raise ScenarioError(
                f'engine.kind = "{self.engine.kind}" but this is about vLLM; take a scenario with a vLLM'
            )
        return self.engine

    def with_controller(self, controller: ControllerConfig) -> "Scenario":
        """Return the same experiment under another controller."""
        return self.model_copy(update={"controller": controller})

    def with_seed(self, seed: int) -> "Scenario":
        """Return the same experiment with other draws."""
        return self.model_copy(update={"seed": seed})


def _with_measured(engine: Mapping[str, Any], profile: StepTimeProfile) -> dict[str, Any]:
    """Return `[engine]` with what it leaves out and the profile knows."""
    filled = dict(engine)
    measured = {
        "kv_bytes_per_token": profile.kv_bytes_per_token,
        "bandwidth_bytes_per_s": profile.host_to_device_bytes_per_s,
    }
    known = {key: value for key, value in measured.items() if value is not None}
    for tier in ("host_cache", "hierarchical_cache"):
        if isinstance(filled.get(tier), Mapping):
            filled[tier] = known | dict(filled[tier])
    if filled.get("kind") == "sglang":
        return {"max_total_num_tokens": profile.num_gpu_blocks * profile.block_size} | filled
    block_size = filled.get("block_size", EngineConfig.model_fields["block_size"].default)
    if isinstance(block_size, int) and block_size > 0:
        filled.setdefault("num_gpu_blocks", profile.num_blocks_of(block_size))
    if profile.kv_cache_groups is not None:
        filled.setdefault("kv_cache_groups", profile.kv_cache_groups)
    return filled


def what_decides(scenario: Scenario) -> dict[str, Any]:
    """Return, for a fingerprint, what of a scenario decides a run.

    The content of the profile is in the place of its path. The trace's path is left out: its content decides,
    and is the caller's to add.
    """
    decides = scenario.model_dump(mode="json", exclude={"compare": True, "workload": {"trace"}})
    if scenario.step_time.kind == "profile":
        decides["step_time"]["profile"] = profile_hash(scenario.step_time)
    if scenario.fleet is not None:
        hashes = [profile_hash(each.step_time) for each in scenario.engines]
        decides["fleet"]["profiles"] = hashes
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
