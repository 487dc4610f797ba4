"""Mutation proof of `priority`: each deliberate change of a rule is caught by the parity suite."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.engine.vllm import policy
from concur.sim.engine.vllm.policy import PriorityPolicy
from concur.sim.engine.vllm.scheduler import Scheduler
from concur.validate.parity.worlds import World, priority_worlds
from tests.parity.mutating import Mutant, changed, is_caught_on, replace
from tests.parity.scenarios import corner, latecomers_world, offloading, with_priorities

pytestmark = pytest.mark.vllm


def known() -> Iterator[World]:
    for is_async in (False, True):
        world = latecomers_world(is_async=is_async)
        yield world
        yield offloading(world, tier=1.0, bandwidth_bytes_per_s=1e9)
        yield with_priorities(corner("crowded", is_async=is_async))


def is_caught() -> bool:
    return is_caught_on(known(), num_worlds=60, drawn_from=priority_worlds)


def last_in_running(self: PriorityPolicy, running: list[Request]) -> Request:
    return running[-1]


def to_the_front(self: PriorityPolicy, queue: deque[Request], requests: Any) -> None:
    queue.extendleft(reversed(requests))


def to_the_end(self: PriorityPolicy, queue: deque[Request], request: Request) -> None:
    queue.append(request)


def greatest_first(request: Request) -> tuple[int, int]:
    return -request.priority, request.arrival_number


def stays_in_the_step(self: Scheduler[Any], output: SchedulerOutput, request: Request) -> int:
    return 0


def those_after_are_passed_over(original: Mutant) -> Mutant:
    """The place in the list is kept although somebody before it has left."""

    def mutant(self: Scheduler[Any], *args: Any) -> tuple[bool, int, int]:
        has_room, num_given_back, _ = original(self, *args)
        return has_room, num_given_back, 0

    return mutant


MUTATIONS: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "the last to begin makes way": (PriorityPolicy, "victim", replace(last_in_running)),
    "who made way goes first": (PriorityPolicy, "put_back", replace(to_the_front)),
    "who comes goes last": (PriorityPolicy, "add", replace(to_the_end)),
    "the greatest priority goes first": (policy, "rank", replace(greatest_first)),
    "who makes way stays in the step": (Scheduler, "_take_back", replace(stays_in_the_step)),
    "those after are passed over": (Scheduler, "_make_room", those_after_are_passed_over),
}


def test_unchanged_rules_are_not_caught() -> None:
    assert not is_caught_on(known(), num_worlds=10, drawn_from=priority_worlds)


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_are_caught(name: str) -> None:
    with changed(MUTATIONS[name]):
        assert is_caught()
