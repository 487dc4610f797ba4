"""The fixed windows, the catalog, and the guards; see test_every_controller.py for what all laws share."""

from typing import Any

import pytest

from concur.controllers import make_controller, make_gate
from concur.errors import ParameterError
from concur.gate import AgentGate, RequestGate
from concur.signals import UNLIMITED
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
