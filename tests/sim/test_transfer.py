"""The host link shares its bandwidth: arrival times against arithmetic."""

import pytest
import simpy

from concur.sim.engine.host_link import HostLink
from concur.sim.engine.request import Request


def arrivals(loads: list[tuple[float, int]], *, bandwidth: float = 100.0) -> list[tuple[str, float]]:
    """Arrival times of loads given as (start, bytes)."""
    env = simpy.Environment()
    log: list[tuple[str, float]] = []
    link = HostLink(env, bandwidth, lambda request: log.append((request.request_id, env.now)))

    def starting(number: int, start_s: float, num_bytes: int):  # type: ignore[no-untyped-def]
        yield env.timeout(start_s)
        link.start(Request(str(number), number, 0, 1, 1, [], 0, 0.0), num_bytes)

    for number, (start_s, num_bytes) in enumerate(loads):
        env.process(starting(number, start_s, num_bytes))
    env.run(until=1000)
    return log


def test_alone_a_load_takes_bytes_over_bandwidth() -> None:
    assert arrivals([(1.0, 500)]) == [("0", 6.0)]


def test_equal_loads_share_equally_and_arrive_in_order_of_start() -> None:
    assert arrivals([(0.0, 100), (0.0, 100), (0.0, 100)]) == [("0", 3.0), ("1", 3.0), ("2", 3.0)]


def test_a_late_load_slows_the_first_and_then_has_the_link_alone() -> None:
    # 0: 200 bytes alone for 1 s, 100 left at half speed: 3 s. 1: 100 done by then, 100 alone: 4 s.
    log = arrivals([(0.0, 200), (1.0, 200)])
    assert [name for name, _ in log] == ["0", "1"]
    assert [time_s for _, time_s in log] == pytest.approx([3.0, 4.0])


def test_the_link_wakes_up_again() -> None:
    assert arrivals([(0.0, 100), (10.0, 100)]) == [("0", 1.0), ("1", 11.0)]
