"""A scenario under several policies in both worlds, as folders: `live/POLICY/run-N` and `sim/POLICY`.

Live runs go round by round, so that a machine that slows down slows all policies alike; each begins with an
empty prefix cache. A run that is there and complete is not repeated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.compare import run_policies
from sim.errors import how_to_install
from sim.progress import OnProgress
from sim.record import RunRecord, load_record, write_record
from sim.scenario import ControllerConfig, Scenario
from sim.workload.spec import Workload
from validate.errors import ConfrontError, LiveExtraMissingError
from validate.server import Server


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One run to be made, and where its record goes."""

    controller: ControllerConfig
    folder: Path


def plan(folder: Path, controllers: Sequence[ControllerConfig], *, repeats: int) -> list[LiveRun]:
    """Return the runs that are still missing below `folder`, in the order in which to make them."""
    runs = [
        LiveRun(controller, folder / "live" / controller.label / f"run-{number}")
        for number in range(repeats)
        for controller in controllers
    ]
    return [run for run in runs if not _is_complete(run.folder)]


def run_live(
    scenario: Scenario, workload: Workload, server: Server, runs: Sequence[LiveRun], on_progress: OnProgress
) -> Iterator[RunRecord]:
    """Make the runs, one after the other; each record is written before it is yielded.

    Raises
    ------
    LiveExtraMissingError
        If the packages that speak HTTP are not installed.
    """
    try:
        from validate.replay import replay  # needs the extra `live`
    except ImportError as error:
        raise LiveExtraMissingError(f"{error.name} is not installed here; {how_to_install('live')}") from None
    for run in runs:
        server.reset_prefix_cache()
        label = f"{run.controller.label}, {run.folder.name}"
        record = replay(
            scenario.with_controller(run.controller),
            workload,
            server,
            on_progress=lambda done, total, label=label: on_progress(label, done, total),  # type: ignore[misc]
        )
        write_record(record, run.folder)
        yield record


def simulate_policies(
    scenario: Scenario, workload: Workload, controllers: Sequence[ControllerConfig], folder: Path
) -> list[RunRecord]:
    """Simulate the same policies, and write their records."""
    records = list(run_policies(scenario, controllers, workload=workload))
    for record in records:
        write_record(record, folder / "sim" / record.label)
    return records


def load_worlds(folder: Path) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return the simulated and the live records below `folder`.

    Raises
    ------
    ConfrontError
        If one of the worlds is missing.
    """
    simulated = [load_record(path.parent) for path in sorted(folder.glob("sim/*/run.json"))]
    live = [load_record(path.parent) for path in sorted(folder.glob("live/*/*/run.json"))]
    for world, records in (("sim", simulated), ("live", live)):
        if not records:
            raise ConfrontError(f"{folder}: no record in {world}/; make them with `concur validate run`")
    return simulated, live


def _is_complete(folder: Path) -> bool:
    return (folder / "run.json").exists() and bool(load_record(folder).run.get("complete"))
