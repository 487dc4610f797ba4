"""The fast core beside the reference, on one world."""

from pathlib import Path

from concur.sim.record.record import RunRecord, write_record
from concur.sim.record.rows import TABLES
from concur.sim.scenario.scenario import Scenario
from concur.sim.workload.spec import Workload
from concur.sim.world.cores import reference_core_of
from concur.sim.world.simulate import simulate


def both(scenario: Scenario, workload: Workload) -> tuple[RunRecord, RunRecord]:
    """Return the records of the fast core and of the reference."""
    reference = simulate(scenario, workload, core=reference_core_of(scenario))
    return simulate(scenario, workload), reference


def assert_same_bytes(fast: RunRecord, reference: RunRecord, folder: Path) -> None:
    """Demand the same files, to the byte, and the same metrics but for the wall clock."""
    write_record(fast, folder / "fast")
    write_record(reference, folder / "reference")
    for name in TABLES:
        one, other = ((folder / side / f"{name}.parquet").read_bytes() for side in ("fast", "reference"))
        assert one == other, name
    assert {**fast.metrics, "wall_clock_s": 0} == {**reference.metrics, "wall_clock_s": 0}
