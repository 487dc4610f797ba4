"""Workers that are killed cost nothing but time: no result is lost, none comes twice."""

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from concur.sim.errors import ScenarioError, WorkersLostError
from concur.sim.runs.parallel import LocalWorkers, Workers, run_tasks


def killed_once(task: tuple[int, Path]) -> int:
    """Square a number; kill the worker at the first 5 that any worker sees."""
    number, marker = task
    if number == 5:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return number**2
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def always_killed(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refused(number: int) -> int:
    if number == 3:
        raise ScenarioError("three is not a scenario")
    return number


def ray_workers() -> AbstractContextManager[Workers]:
    pytest.importorskip("ray")
    from concur.sim.lab.ray_workers import ray_workers as start  # needs the extra `ray`

    return start(None, 2)


@pytest.fixture(params=["loky", "ray"])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    with nullcontext(LocalWorkers(2)) if request.param == "loky" else ray_workers() as found:
        yield found


def test_a_killed_workers_tasks_run_again_and_each_result_comes_once(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "killed"
    numbers = range(20) if isinstance(workers, LocalWorkers) else range(4, 6)  # a pool takes Ray seconds
    results = list(run_tasks(killed_once, [(number, marker) for number in numbers], workers=workers))
    assert marker.exists(), "no worker was killed"
    assert capsys.readouterr().err.count("concur: warning: a worker was killed, and what it had in hand") == 1
    assert sorted(results) == [(index, number**2) for index, number in enumerate(numbers)]


def test_a_task_that_always_kills_is_given_up_and_the_others_are_not() -> None:
    results = run_tasks(always_killed, range(20), workers=LocalWorkers(2))
    numbers: list[int] = []
    with pytest.raises(WorkersLostError, match="1 of 20 runs were killed"):
        numbers.extend(number for number, _ in results)
    assert sorted(numbers) == [number for number in range(20) if number != 3]


def test_an_error_of_the_task_is_no_death() -> None:
    with pytest.raises(ScenarioError, match="three is not"):
        list(run_tasks(refused, range(20), workers=LocalWorkers(2)))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_does_not_answer_is_refused_at_once(address: str) -> None:
    pytest.importorskip("ray")
    from concur.sim.lab.ray_workers import ray_workers as join  # needs the extra `ray`

    with pytest.raises(WorkersLostError, match="no cluster answers"), join(address, None):
        raise AssertionError
