"""Workers on a Ray cluster, through joblib's Ray backend; needs the extra `ray`."""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import joblib
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.util.joblib import register_ray

from concur.sim.errors import WorkersLostError
from concur.sim.runs.parallel import Result, Task, numbered

_TASKS_PER_JOB: Final = 16  # between two deliveries: joblib's Ray backend hands over whole lists only
_ANSWER_S: Final = 5.0


class RayWorkers:
    """The processes of the cluster that `ray.init` has joined."""

    deaths: tuple[type[Exception], ...] = (RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError)

    def __init__(self, num_jobs: int | None = None) -> None:
        self.num_jobs = num_jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def stream(
        self, function: Callable[[Task], Result], tasks: Sequence[tuple[int, Task]]
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number, result) of the numbered tasks, some tens at a time."""
        many = _TASKS_PER_JOB * self.num_jobs
        with joblib.parallel_config(backend="ray"), joblib.Parallel(n_jobs=self.num_jobs) as parallel:
            for first in range(0, len(tasks), many):
                some = tasks[first : first + many]
                yield from parallel(joblib.delayed(numbered)(function, number, task) for number, task in some)


@contextmanager
def ray_workers(address: str | None, num_jobs: int | None) -> Iterator[RayWorkers]:
    """Join the cluster at `address`, or start one on this machine; leave it at the end.

    On a cluster of several machines this package must be installed, and traces and profiles must lie under
    the same path, on each.

    Raises
    ------
    WorkersLostError
        If there is no cluster at `address`.
    """
    local = {} if address else {"num_cpus": num_jobs, "include_dashboard": False}
    if address:
        _check_answers(address)
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        register_ray()
        yield RayWorkers(num_jobs)
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse at once an address that Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise WorkersLostError(
            f"--ray-address {address}: no cluster answers ({error}); give what `ray start --head` says"
        ) from None
