"""The fixed windows, the catalog, and the guards; see test_every_controller.py for what all laws share."""

from typing import Any

import pytest

from concur.controllers import CATALOG, WRAPPERS, make_controller, make_gate
from concur.controllers.wrappers import AppLimited, Fresh
from concur.errors import ParameterError
from concur.gate import AgentGate, RequestGate
from concur.signals import UNLIMITED, Snapshot
from tests.helpers import make_snapshot


def test_fixed_windows() -> None:
    assert make_controller("none").window == UNLIMITED
    assert make_controller("agent_cap", cap=7).window == 7
    assert make_controller("request_cap", cap=7).window == 7


def test_the_catalog_says_which_gate_a_window_applies_to() -> None:
    assert isinstance(make_gate("agent_cap", 3), AgentGate)
    assert isinstance(make_gate("request_cap", 3), RequestGate)


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("agent_cap", {}, "needs cap"),
        ("agent_cap", {"cap": 0}, "cap = 0 but must be between 1"),
        ("agent_cap", {"cap": "8"}, "cap = '8' but must be of type int"),
        ("agent_cap", {"cap": True}, "cap = True"),
        ("best", {}, "kind = 'best' but must be one of none"),
        ("none", {"cap": 3}, "cap is not a parameter of 'none'"),
    ],
)
def test_bad_parameters_name_value_and_bound(kind: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_controller(kind, **params)


def test_unknown_wrapper_is_refused() -> None:
    with pytest.raises(ParameterError, match="wrapper = 'lucky'"):
        make_controller("concur", wrappers=("lucky",))


def test_app_limited_refuses_growth_while_less_than_half_is_used() -> None:
    bare = make_controller("concur", initial_window=16)
    guarded = make_controller("concur", initial_window=16, wrappers=("app_limited",))
    idle = make_snapshot(5.0, kv_cache_usage_frac=0.0)
    assert bare.update(idle, active=7) == 18
    assert guarded.update(idle, active=7) == 16
    assert guarded.update(idle, active=8) == 18


def test_app_limited_lets_cuts_through() -> None:
    guarded = make_controller("concur", initial_window=16, wrappers=("app_limited",))
    guarded.update(make_snapshot(0.0, kv_cache_usage_frac=0.3), active=1)
    thrashing = make_snapshot(5.0, kv_cache_usage_frac=0.9, prefix_cache_queries_tokens=100)
    assert guarded.update(thrashing, active=1) == 8


@pytest.mark.parametrize("wrappers", [(), *((name,) for name in WRAPPERS), tuple(WRAPPERS)])
@pytest.mark.parametrize("kind", sorted(CATALOG))
def test_every_law_says_how_often_it_wants_to_decide(kind: str, wrappers: tuple[str, ...]) -> None:
    required = {"cap": 4} if "cap" in kind else {}
    default_s = 1.0 if kind in ("hybrid", "twin", "fleet_twin") else 5.0
    assert make_controller(kind, wrappers=wrappers, **required).interval_s == default_s
    assert make_controller(kind, wrappers=wrappers, **required, interval_s=0.7).interval_s == 0.7


def traffic(time_s: float, tokens: int) -> Snapshot:
    return make_snapshot(time_s, num_requests_running=3, kv_cache_usage_frac=0.1, generation_tokens=tokens)


def test_the_fresh_guard_knows_an_outage_by_the_interval_of_its_law() -> None:
    law = make_controller("concur", wrappers=("app_limited", "fresh"), interval_s=2.0)
    assert law.update(traffic(2.0, 10), active=16) == 18
    assert law.update(traffic(8.0, 20), active=16) == 20  # two readings missed: a hiccup
    assert law.update(traffic(14.1, 30), active=16) == 20  # three: an outage


def test_a_guard_goes_around_a_law_that_has_no_interval_to_say() -> None:
    class Growing:
        reads_agents = False

        def __init__(self) -> None:
            self.window = 4

        def update(self, snapshot: Snapshot, *, active: int) -> int:
            self.window += 1
            return self.window

        def log_state(self) -> dict[str, float | int | str | None]:
            return {}

    law: Any = Growing()
    guarded = AppLimited(Fresh(law))
    assert guarded.update(traffic(2.0, 10), active=4) == 5
    assert guarded.update(traffic(900.0, 20), active=4) == 6, "no outage is too long for it"
    assert guarded.update(traffic(901.0, 20), active=4) == 6, "but a counter that stands still is stale"
