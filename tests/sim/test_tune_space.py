"""The ranges that a search may use: the laws' own defaults and bounds hold in them."""

import pytest

from concur.controllers import CATALOG, controller_params
from concur.sim.errors import ScenarioError
from concur.sim.lab.tune_space import SPACE, settle, space_of, start_of


def test_every_law_with_something_to_choose_can_be_tuned() -> None:
    assert set(SPACE) == set(CATALOG) - {"none"}


@pytest.mark.parametrize("kind", SPACE)
def test_a_law_accepts_both_ends_of_every_range_and_starts_inside(kind: str) -> None:
    space = space_of(kind, num_agents=64)
    given = {"cap": 64} if "cap" in space else {}
    params = controller_params(kind, given)
    start = start_of(space, {name: getattr(params, name) for name in space})
    for name, within in space.items():
        for end in (within.low, within.high):
            assert within.low < within.high
            controller_params(kind, settle(kind, start | {name: end}))


def test_thresholds_are_put_in_order() -> None:
    settled = settle("concur", {"u_low_frac": 0.7, "u_high_frac": 0.3, "alpha": 2})
    assert settled == {"u_low_frac": 0.3, "u_high_frac": 0.7, "alpha": 2}


def test_a_cap_is_searched_up_to_the_number_of_agents() -> None:
    assert space_of("agent_cap", num_agents=50)["cap"].high == 50


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ScenarioError, match="none: nothing to tune"):
        space_of("none", num_agents=8)
    with pytest.raises(ScenarioError, match="magic: not a law"):
        space_of("magic", num_agents=8)
    space = space_of("gradient", num_agents=8)
    with pytest.raises(ScenarioError, match=r"interval_s = 60.0 but is searched from 0.1 to 30.0"):
        start_of(space, {"interval_s": 60.0, "initial_window": 16})
