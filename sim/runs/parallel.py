"""Many tasks on many workers: results as they come, a killed worker's tasks again, none lost, none twice."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Final, Protocol, TypeVar

import joblib

from concur.sim.errors import WorkersLostError
from concur.sim.runs.progress import warn

_MAX_DEATHS: Final = 3  # of a task that runs alone

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
        yield from joblib.Parallel(num_jobs, batch_size=1, return_as="generator_unordered")(calls)


def numbered(function: Callable[[Task], Result], number: int, task: Task) -> tuple[int, Result]:
    """Run one task; return its number too, for results come in any order."""
    return number, function(task)


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: Workers | None = None
) -> Iterator[tuple[int, Result]]:
    """Yield (index of the task, its result) as tasks end, each exactly once.

    What a killed worker had in hand is run again, after all the rest, in case it is what kills; and each task
    alone, from a death that came before any result until a result has come. A task that dies alone three
    times is given up. Each death is said on stderr, for the runs take longer. `function` and the tasks are
    pickled: workers must be able to import them.

    Raises
    ------
    WorkersLostError
        At the end, when all others have a result, if tasks were given up.
    """
    workers = workers or LocalWorkers()
    left = list(range(len(tasks)))
    killed_alone: Counter[int] = Counter()
    is_alone = False
    while left:
        some = left[:1] if is_alone else left
        done: set[int] = set()
        try:
            for number, result in workers.stream(function, [(number, tasks[number]) for number in some]):
                done.add(number)
                yield number, result
            is_alone = False
        except workers.deaths as death:
            warn([f"a worker was killed, and what it had in hand runs again ({type(death).__name__})"])
            is_alone = not done
            if len(some) == 1 and not done:
                killed_alone.update(some)
                done.update(number for number in some if killed_alone[number] == _MAX_DEATHS)
        in_hand = 1 if len(some) == 1 else 2 * workers.num_jobs  # joblib hands out two per worker
        left = [number for number in left if number not in done]
        left = left[in_hand:] + left[:in_hand]
    num_lost = sum(deaths == _MAX_DEATHS for deaths in killed_alone.values())
    if num_lost:
        raise WorkersLostError(
            f"{num_lost} of {len(tasks)} runs were killed with their worker, {_MAX_DEATHS} times each when "
            "alone; give them more memory"
        )
