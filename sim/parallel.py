"""Many tasks on many workers: results as they come, a killed worker's tasks again, none lost, none twice."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Final, Protocol, TypeVar

import joblib

from sim.errors import WorkersLostError

_MAX_DEATHS: Final = 3  # in a row, without one result between them

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers(Protocol):
    """Where tasks run.

    `deaths` are the errors of a worker that was killed; `num_jobs` is how many tasks run at once.
    """

    num_jobs: int
    deaths: tuple[type[Exception], ...]

    def stream(
        self, function: Callable[[Task], Result], tasks: Sequence[tuple[int, Task]]
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number, result) of the numbered tasks, in any order."""
        ...


class LocalWorkers:
    """Processes on this machine: all cores (`LOKY_MAX_CPU_COUNT` bounds them) or `num_jobs`.

    Only `num_jobs` = 1 runs tasks in this very process.
    """

    deaths: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def __init__(self, num_jobs: int | None = None) -> None:
        self.num_jobs = num_jobs or joblib.cpu_count()

    def stream(
        self, function: Callable[[Task], Result], tasks: Sequence[tuple[int, Task]]
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number, result) of the numbered tasks as they end."""
        num_jobs = min(self.num_jobs, max(2, len(tasks)))  # 1 would be this process: it may kill
        calls = (joblib.delayed(numbered)(function, number, task) for number, task in tasks)
        yield from joblib.Parallel(n_jobs=num_jobs, return_as="generator_unordered")(calls)


def numbered(function: Callable[[Task], Result], number: int, task: Task) -> tuple[int, Result]:
    """Run one task; return its number too, for results come in any order."""
    return number, function(task)


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: Workers | None = None
) -> Iterator[tuple[int, Result]]:
    """Yield (index of the task, its result) as tasks end, each exactly once.

    What a killed worker had in hand is run again, after all the rest, in case it is what kills; and few at a
    time until a result has come. `function` and the tasks are pickled: workers must be able to import them.

    Raises
    ------
    WorkersLostError
        If workers are killed three times in a row without one result between.
    """
    workers = workers or LocalWorkers()
    left = list(range(len(tasks)))
    num_deaths = 0
    while left:
        done: set[int] = set()
        some = left[: workers.num_jobs] if num_deaths else left
        try:
            for number, result in workers.stream(function, [(number, tasks[number]) for number in some]):
                done.add(number)
                num_deaths = 0
                yield number, result
        except workers.deaths as death:
            num_deaths += 1
            if num_deaths == _MAX_DEATHS:
                raise WorkersLostError(
                    f"workers were killed {_MAX_DEATHS} times in a row ({type(death).__name__}), "
                    f"{len(left) - len(done)} runs are left; give {workers.num_jobs} at once more memory, or "
                    "lower --jobs"
                ) from None
        left = [number for number in left if number not in done]
        in_hand = 2 * workers.num_jobs  # joblib hands out two per worker
        left = left[in_hand:] + left[:in_hand]
