"""The world on paper: agents, an engine that schedules as vLLM does, and the record of a run.

Its face, each loaded when it is asked for::

    from concur.sim import load_scenario

    from concur.sim import simulate

    record = simulate(load_scenario("examples/react.toml"))
    record.metrics["makespan_s"]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from concur.sim.record.record import RunRecord, load_record
    from concur.sim.scenario.scenario import Scenario, load_scenario
    from concur.sim.world.simulate import simulate

__all__ = ["RunRecord", "Scenario", "load_record", "load_scenario", "simulate"]
_FACE: Final = {
    "RunRecord": "concur.sim.record.record",
    "Scenario": "concur.sim.scenario.scenario",
    "load_record": "concur.sim.record.record",
    "load_scenario": "concur.sim.scenario.scenario",
    "simulate": "concur.sim.world.simulate",
}


def __getattr__(name: str) -> Any:
    if name in _FACE:
        return getattr(import_module(_FACE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
