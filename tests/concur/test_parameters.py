"""Which values a law's parameters take: by what their annotations mean, however they are written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Optional
from unittest.mock import patch

import pytest

from concur.controllers import CATALOG, ControllerParams, ControllerSpec, controller_params
from concur.controllers.fixed import Fixed
from concur.errors import ParameterError
from concur.sim.scenario.sections import ControllerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MineParams(ControllerParams):
    """Annotations are text here, as in any module that postpones them."""

    is_bold: bool = False
    share: float = 0.5
    count: int = 3
    mode: Literal["up", "down", 3] = "up"
    steps: tuple[int, ...] = (1, 2)
    pair: tuple[str, float] = ("a", 1.0)
    limit: Optional[float] = None  # noqa: UP045 - the older spelling is to work, too
    name: str | int = "x"
    weights: tuple[float, ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class OddParams(ControllerParams):
    """A type that no scenario can write."""

    table: dict[str, int] = field(default_factory=dict)


SPECS = {
    "mine": ControllerSpec(MineParams, lambda params: Fixed(params.count)),
    "odd": ControllerSpec(OddParams, lambda params: Fixed(1)),
}


def given(kind: str = "mine", **values: Any) -> Any:
    with patch.dict(CATALOG.own, SPECS):
        return controller_params(kind, values)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("is_bold", True, True),
        ("share", 1, 1),
        ("share", 0.25, 0.25),
        ("count", 7, 7),
        ("mode", "down", "down"),
        ("mode", 3, 3),
        ("steps", [4, 5, 6], (4, 5, 6)),
        ("steps", (), ()),
        ("pair", ["b", 2], ("b", 2)),
        ("limit", None, None),
        ("limit", 2.5, 2.5),
        ("name", 5, 5),
        ("name", "y", "y"),
        ("weights", [0.5, 1], (0.5, 1)),
    ],
)
def test_a_value_of_the_type_is_taken(name: str, value: Any, kept: Any) -> None:
    taken = getattr(given(**{name: value}), name)
    assert taken == kept
    assert type(taken) is type(kept)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("is_bold", 1, "is_bold = 1 but must be of type bool"),
        ("is_bold", "yes", "is_bold = 'yes' but must be of type bool"),
        ("count", True, "count = True but must be of type int"),
        ("count", 1.0, "count = 1.0 but must be of type int"),
        ("share", True, "share = True but must be of type float"),
        ("share", math.nan, "share = nan but must be finite"),
        ("share", -math.inf, "share = -inf but must be finite"),
        ("share", 10**400, "must be of type float"),
        ("limit", math.inf, "limit = inf but must be finite"),
        ("mode", "sideways", "mode = 'sideways' but must be of type"),
        ("mode", 3.0, "mode = 3.0 but must be of type"),
        ("steps", [1, "2"], "steps = [1, '2'] but must be of type tuple[int, ...]"),
        ("steps", "12", "steps = '12' but must be of type tuple[int, ...]"),
        ("pair", ["b"], "pair = ['b'] but must be of type tuple[str, float]"),
        ("weights", [math.nan], "weights = [nan] but must be of type tuple[float, ...]"),
        ("name", None, "name = None but must be of type str | int"),
        ("interval_s", "5", "interval_s = '5' but must be of type float"),
    ],
)
def test_any_other_value_is_refused_by_name(name: str, value: Any, said: str) -> None:
    with pytest.raises(ParameterError) as caught:
        given(**{name: value})
    assert said in str(caught.value)


def test_a_parameter_that_no_scenario_can_give_is_said_to_be_one() -> None:
    with pytest.raises(ParameterError, match=r"table is declared as dict\[str, int\]"):
        given("odd", table={})


def test_such_a_law_goes_through_a_scenario_and_its_record() -> None:
    with patch.dict(CATALOG.own, SPECS):
        config = ControllerConfig.model_validate({"kind": "mine", "steps": [3, 4], "is_bold": True})
        assert config.parameters["steps"] == (3, 4)
        assert config.parameters["weights"] == ()
        again = ControllerConfig.model_validate_json(config.model_dump_json())
        assert again == config


@pytest.mark.parametrize("kind", sorted(CATALOG))
def test_no_number_of_any_law_is_nan_or_infinite(kind: str) -> None:
    required = {"cap": 4} if "cap" in kind else {}
    defaults = controller_params(kind, required)
    for name in type(defaults).__dataclass_fields__:
        if isinstance(getattr(defaults, name), float):
            for value in (math.nan, math.inf):
                with pytest.raises(ParameterError, match=name):
                    controller_params(kind, required | {name: value})
