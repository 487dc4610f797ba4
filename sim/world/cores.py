"""The engine of a scenario, its cache empty."""

from concur.sim.engine.core import EngineCore
from concur.sim.engine.sglang.core import build_sglang_core
from concur.sim.engine.sglang.fast import build_fast_sglang_core
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.engine.stepping import StepCore
from concur.sim.engine.vllm.build import build_core, build_reference_core
from concur.sim.scenario.scenario import Scenario
from concur.sim.step_time.make import make_step_time


def core_of(scenario: Scenario) -> EngineCore:
    """Return the fastest core that does what the scenario asks for."""
    if isinstance(scenario.engine, SglangConfig):
        return build_fast_sglang_core(scenario.engine, make_step_time(scenario.step_time))
    return build_core(scenario.engine, make_step_time(scenario.step_time))


def cores_of(scenario: Scenario) -> list[EngineCore]:
    """Return the fastest core for each engine of the scenario."""
    return [core_of(each) for each in scenario.engines]


def reference_cores_of(scenario: Scenario) -> list[EngineCore]:
    """Return the reference for each engine of the scenario."""
    return [reference_core_of(each) for each in scenario.engines]


def reference_core_of(scenario: Scenario) -> StepCore:
    """Return the reference: step by step and block by block."""
    step_time = make_step_time(scenario.step_time)
    if isinstance(scenario.engine, SglangConfig):
        return build_sglang_core(scenario.engine, step_time)
    return build_reference_core(scenario.engine, step_time)
