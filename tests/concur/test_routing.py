"""Routers: what each one is for, by hand-made loads; and the catalog that finds them."""

from collections import Counter
from collections.abc import Sequence

import pytest

from concur.errors import GateError, ParameterError
from concur.routing import ROUTERS, EngineLoad, RoutedCall, Router, make_router
from concur.routing.prefixes import SentPrefixes


def loads(*in_flight: int, down: Sequence[int] = ()) -> list[EngineLoad]:
    return [EngineLoad(number, is_up=index not in down) for index, number in enumerate(in_flight)]


def call(session: str = "s", *parts: tuple[str, int], tokens: int | None = None) -> RoutedCall:
    length = sum(each for _, each in parts)
    return RoutedCall(f"{session}/agent", session, length if tokens is None else tokens, parts)


def routed(router: Router, engines: list[EngineLoad], number: int = 1, time_s: float = 0.0) -> list[int]:
    return [router.route(call(f"s{n}"), engines, time_s=time_s) for n in range(number)]


def test_round_robin_takes_turns_among_those_that_are_up() -> None:
    assert routed(make_router("round_robin"), loads(9, 0, 0), 4) == [0, 1, 2, 0]
    assert routed(make_router("round_robin"), loads(0, 0, 0, down=[1]), 4) == [0, 2, 0, 2]


def test_least_loaded_takes_the_least_and_turns_among_equals() -> None:
    assert routed(make_router("least_loaded"), loads(3, 1, 2), 2) == [1, 1]
    assert routed(make_router("least_loaded"), loads(1, 1, 1), 4) == [0, 1, 2, 0]


def test_power_of_two_never_takes_the_most_loaded_of_three_and_draws_the_rest() -> None:
    counts = Counter(routed(make_router("power_of_two", seed=3), loads(9, 5, 0), 600))
    assert counts[0] == 0
    assert counts[2] / 600 == pytest.approx(2 / 3, abs=0.08)
    assert routed(make_router("power_of_two"), loads(4), 2) == [0, 0]


class TestSessions:
    def test_are_spread_evenly_and_stay(self) -> None:
        router = make_router("session")
        first = routed(router, loads(0, 0, 0, 0), 2000)
        assert first == routed(router, loads(9, 9, 0, 0), 2000)
        assert min(Counter(first).values()) > 350

    def test_of_an_engine_that_is_down_alone_go_elsewhere_and_come_back(self) -> None:
        router = make_router("session")
        before = routed(router, loads(0, 0, 0, 0), 500)
        during = routed(router, loads(0, 0, 0, 0, down=[2]), 500)
        moved = [n for n in range(500) if before[n] != during[n]]
        assert {before[n] for n in moved} == {2}
        assert {during[n] for n in moved} == {0, 1, 3}
        assert routed(router, loads(0, 0, 0, 0), 500) == before

    def test_move_past_both_thresholds_and_stay_there(self) -> None:
        router = make_router("session_moving", balance_abs_threshold=4, balance_rel_threshold=2.0)
        (own,) = routed(router, loads(0, 0))
        other = 1 - own

        def with_loads(here: int, there: int) -> list[EngineLoad]:
            return loads(*((here, there) if own == 0 else (there, here)))

        assert routed(router, with_loads(4, 0)) == [own]
        assert routed(router, with_loads(10, 5)) == [own]
        assert routed(router, with_loads(11, 5)) == [other]
        assert routed(router, with_loads(0, 0)) == [other]


class TestCacheAware:
    def test_follows_the_longest_match_above_the_threshold(self) -> None:
        router = make_router("cache_aware", cache_threshold=0.3)
        router.route(call("a", ("p", 100)), loads(0, 5), time_s=0.0)
        router.route(call("b", ("p", 60), ("q", 40)), loads(100, 0), time_s=0.0)
        assert router.route(call("c", ("p", 100)), loads(9, 0), time_s=1.0) == 0
        assert router.route(call("c", ("p", 60), ("q", 40)), loads(0, 9), time_s=1.0) == 1
        assert router.route(call("d", ("p", 30), tokens=100), loads(9, 0), time_s=1.0) == 1
        assert router.route(call("d", ("p", 31), tokens=100), loads(0, 9), time_s=1.0) == 0

    def test_follows_the_load_when_both_thresholds_are_passed(self) -> None:
        router = make_router("cache_aware", balance_abs_threshold=4, balance_rel_threshold=1.1)
        router.route(call("a", ("p", 100)), loads(0, 5), time_s=0.0)
        again = call("a", ("p", 100))
        assert router.route(again, loads(4, 0), time_s=0.0) == 0
        assert router.route(again, loads(5, 0), time_s=0.0) == 1
        assert make_router("cache_aware").route(again, loads(0, 0), time_s=0.0) in (0, 1)

    def test_must_pass_both(self) -> None:
        router = make_router("cache_aware", balance_abs_threshold=4, balance_rel_threshold=1.5)
        router.route(call("a", ("p", 100)), loads(0, 5), time_s=0.0)
        assert router.route(call("a", ("p", 100)), loads(30, 20), time_s=0.0) == 0
        assert router.route(call("a", ("p", 100)), loads(31, 20), time_s=0.0) == 1


class TestKvAware:
    def test_weighs_what_is_missing_against_what_is_in_flight(self) -> None:
        router = make_router("kv_aware", block_size=1)
        first = call("a", ("p", 100))
        engine = router.route(first, loads(0, 0), time_s=0.0)
        other = 1 - engine
        assert router.route(call("b", ("p", 100)), loads(0, 0), time_s=1.0) == other, "200 in flight there"
        router.ended(first, engine)
        assert router.route(call("c", ("p", 100)), loads(0, 0), time_s=2.0) == engine

    def test_forgets_what_was_sent_long_ago(self) -> None:
        router = make_router("kv_aware", ttl_s=10.0)
        first = call("a", ("p", 1600))
        engine = router.route(first, loads(0, 0), time_s=0.0)
        router.ended(first, engine)
        kept = [make_router("kv_aware", ttl_s=10.0, seed=seed) for seed in range(20)]
        later = set()
        for each in kept:
            chosen = each.route(first, loads(0, 0), time_s=0.0)
            each.ended(first, chosen)
            assert each.route(first, loads(0, 0), time_s=9.0) == chosen
            each.ended(first, chosen)
            later.add(each.route(first, loads(0, 0), time_s=30.0) == chosen)
        assert later == {True, False}


def test_scorers_weigh_queue_usage_and_prefix() -> None:
    engines = [
        EngineLoad(num_requests_waiting=0, kv_cache_usage_frac=0.9),
        EngineLoad(num_requests_waiting=3, kv_cache_usage_frac=0.0),
    ]
    only = {"queue_weight": 0.0, "kv_cache_weight": 0.0, "prefix_weight": 0.0}
    assert routed(make_router("scorers", **(only | {"queue_weight": 1.0})), engines) == [0]
    assert routed(make_router("scorers", **(only | {"kv_cache_weight": 1.0})), engines) == [1]
    router = make_router("scorers", max_prefix_tokens=100)
    idle = [EngineLoad(), EngineLoad()]
    engine = router.route(call("a", ("p", 4000)), idle, time_s=0.0)
    assert {router.route(call("a", ("p", 100), ("x", 900)), idle, time_s=0.0) for _ in range(20)} == {engine}
    assert make_router("scorers").reads_every_s == 0.05


class TestVllmDp:
    def test_spreads_a_burst_and_rotates_among_equals(self) -> None:
        assert routed(make_router("vllm_dp"), loads(0, 0, 0, 0), 5) == [0, 1, 2, 3, 0]
        assert routed(make_router("vllm_dp", client_count=2, client_index=1), loads(0, 0, 0, 0), 2) == [2, 3]

    def test_charges_a_queue_behind_a_full_cache(self) -> None:
        router = make_router("vllm_dp")
        calm = EngineLoad(num_requests_running=20)
        full = EngineLoad(num_requests_running=2, num_requests_waiting=8, kv_cache_usage_frac=0.95)
        router.observe([calm, full])
        assert router.route(call(), [calm, full], time_s=0.0) == 0, "20 against 10 + 21.6"
        router.observe([calm, EngineLoad(num_requests_running=2, num_requests_waiting=8)])
        assert router.route(call(), [calm, full], time_s=0.0) == 1


def test_a_prefix_is_matched_as_far_as_it_is_the_same_and_forgotten_by_age_and_size() -> None:
    sent = SentPrefixes(max_tokens=150, ttl_s=10.0)
    sent.sent(0, (("p", 60), ("a", 40)), time_s=0.0)
    assert sent.matched_tokens(0, (("p", 60), ("a", 70)), time_s=1.0) == 100
    assert sent.matched_tokens(0, (("p", 50), ("b", 10)), time_s=1.0) == 50
    assert sent.matched_tokens(0, (("b", 10), ("p", 50)), time_s=1.0) == 0
    assert sent.matched_tokens(1, (("p", 60),), time_s=1.0) == 0
    assert sent.matched_tokens(0, (("p", 60),), time_s=11.0) == 0
    sent.sent(0, (("p", 60), ("c", 80)), time_s=2.0)
    assert sent.matched_tokens(0, (("p", 60), ("a", 40)), time_s=3.0) == 60, "a went first"
    sent.forget(0)
    assert sent.matched_tokens(0, (("p", 60),), time_s=3.0) == 0


@pytest.mark.parametrize("name", list(ROUTERS))
def test_every_router_takes_an_engine_that_is_up_and_says_when_none_is(name: str) -> None:
    router = make_router(name, seed=7)
    router.observe(loads(1, 1, 1))
    engines = loads(0, 3, 9, down=[0])
    for number in range(20):
        asked = call(f"s{number}", ("p", 50), (f"q{number}", 20))
        engine = router.route(asked, engines, time_s=float(number))
        assert engine in (1, 2)
        router.ended(asked, engine)
    with pytest.raises(GateError, match="none of the 2 engines is up"):
        router.route(call(), loads(0, 0, down=[0, 1]), time_s=0.0)


@pytest.mark.parametrize("name", list(ROUTERS))
def test_every_router_goes_the_same_ways_again(name: str) -> None:
    ways = []
    for _ in range(2):
        router = make_router(name, seed=5)
        asked = [call(f"s{n % 7}", (f"p{n % 5}", 90), ("q", 10)) for n in range(60)]
        ways.append([router.route(each, loads(0, 0, 0), time_s=float(n)) for n, each in enumerate(asked)])
    assert ways[0] == ways[1]


def test_a_router_that_is_none_is_refused() -> None:
    with pytest.raises(ParameterError, match="routing = 'best' but must be one of round_robin, least_loaded"):
        make_router("best")
    with pytest.raises(ParameterError, match=r"balance_rel_threshold = 0\.5 but must be at least 1"):
        make_router("session_moving", balance_rel_threshold=0.5)
    with pytest.raises(ParameterError, match="cap is not a parameter of 'session'"):
        make_router("session", cap=3)
