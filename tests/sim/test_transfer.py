"""The host link shares its bandwidth: arrival times against arithmetic."""

from math import inf

import pytest

from concur.sim.engine.host_link import HostLink
from concur.sim.engine.request import Request
from concur.sim.kv.history import History


def arrivals(loads: list[tuple[float, int]], *, bandwidth: float = 100.0) -> list[tuple[str, float]]:
    """Arrival times of loads given as (start, bytes), in order of start."""
    link = HostLink(bandwidth)
    log: list[tuple[str, float]] = []

    def arrive_before(time_s: float) -> None:
        while link.next_arrival_s < time_s:
            at_s = link.next_arrival_s
            log.extend((request.request_id, at_s) for request in link.arrive())

    for number, (start_s, num_bytes) in enumerate(loads):
        arrive_before(start_s)
        link.start(Request(str(number), number, 0, 1, 1, History(()), 0, 0.0), num_bytes, time_s=start_s)
    arrive_before(inf)
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
