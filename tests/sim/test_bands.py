"""What a profile's errors leave open: draws around it, and the bands of outcomes."""

import json

import numpy as np
import pytest

from concur.sim.runs.bands import bands
from concur.sim.step_time import draws
from concur.sim.step_time.draws import drawn, spread
from concur.sim.step_time.profile import RegimeErrors, RooflineCoefficients, load_profile
from concur.sim.world.simulate import simulate
from tests.helpers import concur, make_scenario

PROFILE = load_profile("h100-sxm_qwen3-32b_tp2")


def errors(median_ape: float, p95_ape: float) -> RegimeErrors:
    return RegimeErrors(num_steps=9, median_ape=median_ape, p95_ape=p95_ape, bias=0.0)


def test_draw_0_is_the_profile_and_a_number_is_always_the_same_draw() -> None:
    assert drawn(PROFILE, 0) is PROFILE
    assert drawn(PROFILE, 3) == drawn(PROFILE, 3)
    assert drawn(PROFILE, 3).coefficients != drawn(PROFILE, 4).coefficients


def test_every_time_of_a_step_is_of_prefill_or_of_decode() -> None:
    times = {name for name in RooflineCoefficients.model_fields if name.endswith("_s")}
    assert times == {*draws._DECODE, *draws._PREFILL}
    assert len(draws._DECODE) + len(draws._PREFILL) == len(times)


def test_a_draw_scales_decode_and_prefill_apart_and_shapes_not_at_all() -> None:
    old, new = PROFILE.coefficients, drawn(PROFILE, 5).coefficients
    decode = new.weights_s / old.weights_s
    prefill = new.per_gemm_token_s / old.per_gemm_token_s
    assert decode != pytest.approx(prefill)
    assert new.per_context_token_s / old.per_context_token_s == pytest.approx(decode)
    assert new.per_prefill_pair_s / old.per_prefill_pair_s == pytest.approx(prefill)
    assert (new.gemm_tile_tokens, new.roofline_sharpness) == (old.gemm_tile_tokens, old.roofline_sharpness)


def test_the_spread_is_that_of_the_errors_held_out() -> None:
    held_out = {"decode": errors(0.06745, 0.1), "prefill": errors(0.0, 0.0392), "mixed": errors(0.03, 0.05)}
    profile = PROFILE.model_copy(update={"held_out": held_out})
    assert spread(profile, "decode") == pytest.approx(0.1)
    assert spread(profile, "prefill") == pytest.approx(0.03 / 0.6745), "mixed steps prefill too"
    many = [drawn(profile, number).coefficients.weights_s for number in range(1, 2001)]
    logs = np.log(np.array(many) / PROFILE.coefficients.weights_s)
    assert logs.std() == pytest.approx(0.1, rel=0.1)
    assert logs.mean() == pytest.approx(0.0, abs=0.01)
    wider = [drawn(profile, number, 0.2).coefficients.weights_s for number in range(1, 2001)]
    logs = np.log(np.array(wider) / PROFILE.coefficients.weights_s)
    assert logs.std() == pytest.approx(np.hypot(0.1, 0.2), rel=0.1)
    only_all = PROFILE.model_copy(update={"held_out": {"all": errors(0.06745, 0.0)}})
    assert spread(only_all, "decode") == pytest.approx(0.1)


def test_bands_by_hand() -> None:
    found = bands({"none": [20.0, 30.0], "agent_cap=4": [10.0, 12.0], "agent_cap=8": [11.0, 10.0]})
    none, four, eight = found
    assert none.makespan_s.median == 25.0
    assert none.makespan_s.low == pytest.approx(20.5)
    assert none.speed_up is not None
    assert none.speed_up.median == pytest.approx((10 / 20 + 10 / 30) / 2), "against the best cap of each draw"
    assert [each.num_best for each in found] == [0, 1, 1]
    assert eight.to_json()["makespan_s"]["high"] == pytest.approx(10.95)
    assert four.num_draws == 2


def test_without_static_caps_there_is_nothing_to_be_faster_than() -> None:
    (only,) = bands({"none": [20.0, 30.0]})
    assert only.speed_up is None
    assert only.to_json()["speed_up_over_best_static"] is None


def test_a_run_says_which_draw_it_took() -> None:
    runs = [
        simulate(make_scenario(step_time={"profile": "h100-sxm_qwen3-32b_tp2", "draw": draw}))
        for draw in (0, 7)
    ]
    assert runs[1].run["scenario"]["step_time"]["draw"] == 7
    assert runs[0].metrics["makespan_s"] != runs[1].metrics["makespan_s"]


def test_compare_shows_bands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "examples/tau_airline.toml", "--set", "workload.num_agents=12", "--draws", "3"]
    policies = ["--controllers", "none", "agent_cap=6"]
    assert concur(monkeypatch, *command, *policies) == 0
    assert "of 3 draws: 6 in 3" in capsys.readouterr().out
    assert concur(monkeypatch, *command, "--json", *policies) == 0
    row = json.loads(capsys.readouterr().out)["none"]["profile_draws"]
    assert row["makespan_s"]["low"] < row["makespan_s"]["high"]
    assert row["num_draws"] == 3


def test_coefficients_that_nobody_measured_have_no_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "examples/families/drift_growth.toml", "--set", "step_time={kind='linear'}"]
    assert concur(monkeypatch, *command, "--set", "engine.num_gpu_blocks=999", "--draws", "3") != 0
    assert "draws need errors to draw from" in capsys.readouterr().err
