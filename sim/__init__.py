"""The world on paper: agents, an engine that schedules as vLLM does, and the record of a run.

Its face, each loaded when it is asked for::

    from sim import load_scenario, simulate

    record = simulate(load_scenario("examples/react.toml"))
    record.metrics["makespan_s"]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sim.driver import simulate
    from sim.record import RunRecord, load_record
    from sim.scenario import Scenario, load_scenario

__all__ = ["RunRecord", "Scenario", "load_record", "load_scenario", "simulate"]
_FACE: Final = {
    "RunRecord": "sim.record",
    "Scenario": "sim.scenario",
    "load_record": "sim.record",
    "load_scenario": "sim.scenario",
    "simulate": "sim.driver",
}


def __getattr__(name: str) -> Any:
    if name in _FACE:
        return getattr(import_module(_FACE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
