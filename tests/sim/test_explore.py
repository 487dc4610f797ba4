"""The explorer: every knob turns something, and what was simulated is not simulated again."""

from pathlib import Path
from typing import Any, Final

import pytest

from concur.errors import ConcurError
from concur.sim.lab.explore import Explorer, Knobs
from concur.sim.record.record import RunRecord
from concur.sim.show.figures import overview_figure
from tests.helpers import ROOT

SMALL: Final[dict[str, Any]] = {"agents": 8}


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer(ROOT / "examples" / "react.toml")


def last(explorer: Explorer, policy: str = "none", **knobs: Any) -> RunRecord:
    return explorer.runs(policy, Knobs(**(SMALL | knobs)))[-1]


def test_no_control_and_caps_stand_before_the_policy_each_once(explorer: Explorer) -> None:
    chosen = ("hybrid", "agent_cap=5")
    labels = [[run.label for run in explorer.runs(text, Knobs(**SMALL))] for text in chosen]
    assert labels == [
        ["none", *(f"agent_cap={cap}" for cap in (4, 5, 6, 7)), "hybrid"],
        ["none", *(f"agent_cap={cap}" for cap in (4, 6, 7, 5))],
    ]


def test_the_caps_are_around_what_the_pool_holds_and_never_beyond_all(explorer: Explorer) -> None:
    caps = {
        frac: [run.label for run in explorer.runs("none", Knobs(agents=8, pool_frac=frac))][:-1]
        for frac in (0.1, 0.6, 2.0)
    }
    assert caps == {
        0.1: ["agent_cap=1", "agent_cap=2"],
        0.6: ["agent_cap=6", "agent_cap=7", "agent_cap=8"],
        2.0: ["agent_cap=8"],
    }


def test_a_small_pool_is_recomputed_and_an_ample_one_is_not(explorer: Explorer) -> None:
    small, ample = (last(explorer, pool_frac=frac).metrics for frac in (0.3, 1.1))
    assert small["recompute_time_fraction"] > 0.05
    assert ample["recompute_time_fraction"] < 0.005


def test_a_tier_gives_back_what_the_pool_lost(explorer: Explorer) -> None:
    without, with_tier = (last(explorer, pool_frac=0.3, tier_frac=frac) for frac in (0.0, 1.0))
    assert with_tier.metrics["makespan_s"] < 0.95 * without.metrics["makespan_s"]
    assert with_tier.metrics["host_reload_wait_s"] > 0


def test_slow_tools_make_it_longer_and_the_engine_is_the_one_that_was_asked_for(explorer: Explorer) -> None:
    assert last(explorer, tool_s=20.0).metrics["makespan_s"] > 2 * last(explorer).metrics["makespan_s"]
    assert last(explorer, engine="SGLang").run["scenario"]["engine"]["kind"] == "sglang"
    assert last(explorer, engine="SGLang", pool_frac=0.3).metrics["recompute_time_fraction"] > 0.05


def test_what_was_simulated_is_kept(explorer: Explorer) -> None:
    first, again = (explorer.runs(text, Knobs(**SMALL)) for text in ("hybrid", "concur"))
    assert all(one is other for one, other in zip(first[:-1], again[:-1], strict=True))
    assert last(explorer, "concur") is again[-1]


def test_the_figure_has_timeline_knee_and_split(explorer: Explorer) -> None:
    axes = overview_figure(explorer.runs("hybrid", Knobs(**SMALL))).axes
    assert [ax.get_xlabel() for ax in axes] == ["time (s)", "static cap (agents)", "time (s)"]
    assert len(axes[1].lines[0].get_xdata()) == 4  # type: ignore[arg-type]
    assert list(axes[1].get_xticks()) == [4, 5, 6, 7], "few caps: each has its tick"


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"agents": 1}, "agents = 1 but must be 2 to 256"),
        ({"pool_frac": 0.0}, r"pool_frac = 0\.0 but must be 0\.1 to 4"),
        ({"engine": "SGLang", "tier_frac": 0.5}, "tier_frac = 0.5 but the explorer has no tier for SGLang"),
    ],
)
def test_a_knob_beyond_its_end_is_told(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConcurError, match=words):
        Knobs(**knobs)


def test_a_scenario_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConcurError, match="nowhere"):
        Explorer(tmp_path / "nowhere.toml").runs("none", Knobs())
