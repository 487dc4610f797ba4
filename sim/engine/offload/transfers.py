"""Transfers between the pool and host memory: what a step asks for, and when each one is done.

The worker side of vLLM's connector (0.32.0, `offloading/worker.py`, `kv_offload/cpu/gpu_worker.py`), with a
clock in the place of streams:

- transfers of one direction run one after the other; the two directions do not disturb each other;
- stores of a step are submitted at the next one, loads at their own;
- a step waits for the transfers that it has to flush, before it computes;
- what is done is looked up when a step is launched, and reported with its output.
"""

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from mypy_extensions import mypyc_attr

from concur.sim.engine.output import SchedulerOutput


class TransferJob(NamedTuple):
    """A load or a store of some blocks."""

    job_id: int
    request_id: str
    num_blocks: int


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class ConnectorOutput(SchedulerOutput):
    """One step's decisions with what the connector wants of the worker, and what the worker has to report."""

    def __init__(self) -> None:
        super().__init__()
        self.load_jobs: list[TransferJob] = []
        self.store_jobs: list[TransferJob] = []
        self.jobs_to_flush: set[int] = set()
        self.completed_jobs: list[int] = []


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
@dataclass(slots=True)
class HostTraffic:
    """What went over the link so far, and how long steps waited for it.

    A flush is a step that waits for transfers, if only for none that is still under way. Loads took
    `host_load_s` of their direction; for `host_reload_wait_s` of that the engine had nothing to compute.
    """

    num_host_loads: int = 0
    host_loaded_blocks: int = 0
    host_stored_blocks: int = 0
    num_host_flushes: int = 0
    host_flush_stall_s: float = 0.0
    host_load_s: float = 0.0
    host_reload_wait_s: float = 0.0

    def metrics(self) -> dict[str, float]:
        """Return the counters by name."""
        return asdict(self)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
@dataclass(slots=True)
class FifoLink:
    """One direction: a transfer of b bytes takes b / bandwidth once those before it are done."""

    bandwidth_bytes_per_s: float
    free_s: float = 0.0
    in_flight: deque[tuple[float, int]] = field(default_factory=deque)  # when it ends, job

    def submit(self, job_id: int, num_bytes: int, *, time_s: float) -> None:
        """Queue a transfer that may begin at `time_s`."""
        self.free_s = max(time_s, self.free_s) + num_bytes / self.bandwidth_bytes_per_s
        self.in_flight.append((self.free_s, job_id))

    def left_s(self, time_s: float) -> float:
        """Return how long what has been submitted, and has begun by then, will still take."""
        return max(0.0, self.free_s - time_s)

    def take_done(self, time_s: float) -> list[int]:
        """Return the jobs that are done by then, and forget them."""
        done = []
        while self.in_flight and self.in_flight[0][0] <= time_s:
            done.append(self.in_flight.popleft()[1])
        return done


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class OffloadingWorker:
    """Both directions of the link, and the stores that wait for the next step."""

    def __init__(self, *, bandwidth_bytes_per_s: float, block_bytes: int) -> None:
        self.traffic = HostTraffic()
        self._block_bytes = block_bytes
        self._loads = FifoLink(bandwidth_bytes_per_s)
        self._stores = FifoLink(bandwidth_bytes_per_s)
        self._unsubmitted: list[TransferJob] = []

    def begin_step(self, output: ConnectorOutput, *, time_s: float) -> float:
        """Submit the stores that are due; return when the step may compute, not before `time_s`."""
        flushed = output.jobs_to_flush
        at_once = [job for job in output.store_jobs if job.job_id in flushed]
        for job in self._unsubmitted + at_once:
            self._stores.submit(job.job_id, job.num_blocks * self._block_bytes, time_s=time_s)
            self.traffic.host_stored_blocks += job.num_blocks
        self._unsubmitted = [job for job in output.store_jobs if job.job_id not in flushed]
        return self._flush(flushed, time_s) if flushed else time_s

    def start_loads(self, output: ConnectorOutput, *, time_s: float) -> None:
        """Submit the step's loads, which may begin at `time_s`."""
        for job in output.load_jobs:
            self._loads.submit(job.job_id, job.num_blocks * self._block_bytes, time_s=time_s)
            self.traffic.num_host_loads += 1
            self.traffic.host_load_s += job.num_blocks * self._block_bytes / self._loads.bandwidth_bytes_per_s
            self.traffic.host_loaded_blocks += job.num_blocks

    def loaded_s(self, time_s: float) -> float:
        """Return how long loads have run by then, at which all that were submitted have begun."""
        return self.traffic.host_load_s - self._loads.left_s(time_s)

    def take_done(self, time_s: float) -> list[int]:
        """Return the jobs that are done by then and were not returned before."""
        return self._stores.take_done(time_s) + self._loads.take_done(time_s)

    def _flush(self, jobs: set[int], time_s: float) -> float:
        ends_s = [
            end_s for link in (self._stores, self._loads) for end_s, job in link.in_flight if job in jobs
        ]
        until_s = max(ends_s, default=time_s)
        self.traffic.num_host_flushes += 1
        self.traffic.host_flush_stall_s += max(0.0, until_s - time_s)
        return max(time_s, until_s)
