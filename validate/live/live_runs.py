"""A scenario under several policies in both worlds, as folders: `live/POLICY/run-N` and `sim/POLICY`.

Live runs go round by round (N is the round), so that a machine that slows down slows all policies alike; each
begins with an empty prefix cache. A run that is there and complete is not repeated; a folder that holds runs
of another scenario, or of another server, is not added to.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from concur.sim.record.record import RunRecord, load_record, write_record
from concur.sim.runs.compare import run_policies
from concur.sim.runs.progress import OnProgress
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.workload.spec import Workload
from concur.validate.confront.same_experiment import explain_difference, of_record, of_scenario
from concur.validate.errors import ConfrontError, LiveExtraMissingError
from concur.validate.live.server import Server

_HOW_TOLD: Final = "flags"  # how a server was told what it is, which may differ


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One run to be made, and where its record goes."""

    controller: ControllerConfig
    folder: Path


def plan(
    folder: Path,
    scenario: Scenario,
    workload: Workload,
    controllers: Sequence[ControllerConfig],
    *,
    repeats: int,
) -> list[LiveRun]:
    """Return the runs that are still missing below `folder`, in the order in which to make them.

    Raises
    ------
    ConfrontError
        If `folder` holds runs of another scenario, or of another law under the same name.
    """
    check_scenario_of_runs(folder, scenario, workload, controllers)
    runs = [
        LiveRun(controller, folder / "live" / controller.label / f"run-{number}")
        for number in range(repeats)
        for controller in controllers
    ]
    return [run for run in runs if not _is_complete(run.folder)]


def check_scenario_of_runs(
    folder: Path, scenario: Scenario, workload: Workload, controllers: Sequence[ControllerConfig]
) -> None:
    """Refuse a folder whose runs cannot stand beside those of a scenario.

    Raises
    ------
    ConfrontError
        As `plan` says.
    """
    chosen = {each.label: each for each in controllers}
    for path in (*_live_paths(folder), *_simulated_paths(folder)):
        record = load_record(path)
        is_mine = record.label in chosen and path.parent.parent.name == "live"  # `sim/` is made anew
        here = scenario.with_controller(chosen[record.label]) if is_mine else scenario
        told = explain_difference(
            of_record(record), of_scenario(here, workload), but=None if is_mine else "controller"
        )
        if told:
            raise ConfrontError(f"{path} is a run of another scenario, {told}; choose another --out")


def check_server_of_runs(folder: Path, server: Server) -> None:
    """Refuse a server that is not the one of the runs that are there.

    Raises
    ------
    ConfrontError
        If it is another model or release, or of other sizes or flags.
    """
    for path in _live_paths(folder):
        engine = load_record(path).run.get("engine", {})
        for name in [name for name in engine if name in server.facts and name != _HOW_TOLD]:
            if engine[name] != server.facts[name]:
                raise ConfrontError(
                    f"{path} is a run on another server, {name} is {engine[name]} there, "
                    f"{server.facts[name]} here; choose another --out"
                )


def run_live(
    scenario: Scenario,
    workload: Workload,
    servers: Sequence[Server],
    runs: Sequence[LiveRun],
    on_progress: OnProgress,
) -> Iterator[RunRecord]:
    """Make the runs, one after the other; each record is written before it is yielded.

    There are as many servers as the scenario has engines.

    Raises
    ------
    LiveExtraMissingError
        If the packages that speak HTTP are not installed.
    """
    try:
        from concur.validate.live.fleet_replay import replay_fleet  # these two need the extra `live`
        from concur.validate.live.replay import replay
    except ImportError as error:
        raise LiveExtraMissingError(error) from None
    for run in runs:
        label = f"{run.controller.label}, {run.folder.name}"
        on_progress(label, 0, len(workload.agents))  # the first agent may take minutes to end
        for server in servers:
            server.reset_prefix_cache()
        own, tell = scenario.with_controller(run.controller), partial(on_progress, label)
        record = (
            replay(own, workload, servers[0], on_progress=tell)
            if scenario.fleet is None
            else replay_fleet(own, workload, servers, on_progress=tell)
        )
        write_record(record, run.folder)
        yield record


def simulate_policies(
    scenario: Scenario,
    workload: Workload,
    controllers: Sequence[ControllerConfig],
    folder: Path,
    on_progress: Callable[[], None] = lambda: None,
) -> list[RunRecord]:
    """Simulate the same policies, and write their records; `on_progress` is called after each."""
    records = []
    for record in run_policies(scenario, controllers, workload=workload):
        records.append(record)
        on_progress()
    for record in records:
        write_record(record, folder / "sim" / record.label)
    return records


def load_worlds(folder: Path) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return the simulated and the live records below `folder`; the live ones have their `round`, in order.

    Raises
    ------
    ConfrontError
        If one of the worlds is missing.
    """
    simulated = [load_record(path) for path in _simulated_paths(folder)]
    live = [_of_round(load_record(path), path) for path in _live_paths(folder)]
    for world, records in (("sim", simulated), ("live", live)):
        if not records:
            raise ConfrontError(f"{folder}: no record in {world}/; make them with `concur validate run`")
    return simulated, live


def _of_round(record: RunRecord, path: Path) -> RunRecord:
    number = _round(path)
    return record if number is None else replace(record, run=record.run | {"round": number})


def _round(path: Path) -> int | None:
    """Return N of `run-N`; a run under another name is of no round."""
    number = path.name.removeprefix("run-")
    return int(number) if number.isdecimal() else None


def _live_paths(folder: Path) -> list[Path]:
    """Return the live records, by policy and then by round."""
    found = [path.parent for path in folder.glob("live/*/*/run.json")]
    return sorted(found, key=lambda path: (path.parent.name, -1 if (n := _round(path)) is None else n))


def _simulated_paths(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("sim/*/run.json"))


def _is_complete(folder: Path) -> bool:
    return (folder / "run.json").exists() and load_record(folder).is_complete
