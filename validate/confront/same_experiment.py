"""Whether runs are of one experiment: what of a scenario decides a live run, read back from its record.

All of it but the step time, which only the simulator knows: live runs stay valid when the profile is fitted
anew. Records of an earlier release are read with today's defaults for keys that they do not have.
"""

from collections.abc import Mapping
from typing import Any, Final

from concur.sim.errors import ScenarioError
from concur.sim.record.record import RunRecord
from concur.sim.scenario.scenario import Scenario, parse_scenario, what_decides
from concur.sim.scenario.toml_files import dotted
from concur.sim.workload.spec import Workload

_MOST_NAMED: Final = 4


def of_scenario(scenario: Scenario, workload: Workload) -> dict[str, Any]:
    """Return what decides a live run of a scenario, by dotted key."""
    decides = what_decides(scenario)
    del decides["step_time"]
    return dict(dotted(decides)) | {"workload.source": workload.source, "workload.sha256": workload.sha256}


def of_record(record: RunRecord) -> dict[str, Any] | None:
    """Return the same of a record; `None` if its scenario is none that this release reads."""
    given = record.run["scenario"]
    try:
        scenario = parse_scenario({**given, "step_time": {}})
    except (ScenarioError, TypeError):
        return None
    workload = record.run["workload"]
    return of_scenario(scenario, Workload((), source=workload["source"], sha256=workload["sha256"]))


def explain_difference(
    there: Mapping[str, Any] | None, here: Mapping[str, Any] | None, *, but: str | None = None
) -> str | None:
    """Say what differs, `but` for one section; `None` if nothing does."""
    if there is None or here is None:
        return "its scenario cannot be read by this release"
    keys = [key for key in dict.fromkeys((*here, *there)) if but is None or not key.startswith(f"{but}.")]
    differing = [key for key in keys if there.get(key) != here.get(key)]
    named = [f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in differing[:_MOST_NAMED]]
    more = f" and {len(differing) - _MOST_NAMED} more" if len(differing) > _MOST_NAMED else ""
    return ", ".join(named) + more if named else None
