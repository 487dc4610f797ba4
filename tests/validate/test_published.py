"""Predictions of published tables: rules and signs by hand, and the committed ones come out again."""

import json
from pathlib import Path

import numpy as np
import pytest

from concur.sim.runs.intervals import Interval
from concur.sim.runs.parallel import LocalWorkers
from concur.validate.errors import PublishedError
from concur.validate.published.page import in_a_sentence, write_page
from concur.validate.published.predict import METRICS, ArmPrediction, Prediction, predict
from concur.validate.published.report import TITLES, draw
from concur.validate.published.table import Draw, load_table, table_names
from tests.helpers import ROOT

COMMITTED = ROOT / "validate" / "results" / "published"


def prediction(metric: str, predicted: float, *measured: float, within: float | None = None) -> Prediction:
    return Prediction(metric, Interval(predicted, None), measured, within)


ANY_HITS = prediction("hit_rate", 0.5)


def test_errors_are_relative_but_for_shares_and_have_their_sign() -> None:
    assert prediction("makespan_s", 99.0, 100.0, 120.0).error == pytest.approx(-0.1)
    assert prediction("hit_rate", 0.25, 0.2).error == pytest.approx(0.05)
    assert prediction("makespan_s", 99.0).error is None


def test_a_rule_judges_what_it_names_and_nothing_else() -> None:
    assert prediction("makespan_s", 97.0, 100.0, within=0.03).holds
    assert prediction("makespan_s", 96.9, 100.0, within=0.03).holds is False
    assert prediction("makespan_s", 1.0, 100.0).holds is None
    assert prediction("makespan_s", 1.0, within=0.03).holds is None, "nobody has measured it"


@pytest.mark.parametrize("name", table_names())
def test_a_table_says_where_it_is_from_what_is_assumed_and_names_known_metrics(name: str) -> None:
    table = load_table(name)
    assert table.source
    assert table.assumed
    assert any(arm.within for arm in table.arm)
    for arm in table.arm:
        assert set(arm.measured) <= set(METRICS) == set(TITLES)
        assert set(arm.within) <= set(arm.measured)
        assert table.scenario(arm, seed=0).controller.kind == arm.policy.partition("=")[0]


def test_sessions_are_those_of_the_table() -> None:
    agents = load_table("single_node").sessions.workload(seed=1).agents
    first = [agent.steps[0].new_prompt_tokens for agent in agents]
    assert (len(agents), min(first) >= 60_923, max(first) <= 61_514) == (80, True, True)
    assert abs(np.mean(first) - 61_200) < 3 * 130 / np.sqrt(80)
    assert [agents[n].arrival_s for n in (0, 1, 79)] == [0.0, 0.125, 9.875]
    assert all([step.new_prompt_tokens for step in agent.steps[1:]] == [29, 29] for agent in agents)
    assert Draw(mean=0.0, sd=1.0, least=5, most=9).draw(np.random.default_rng(0)) == 5


def test_what_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(PublishedError, match=r"'nothing'; there are .*single_node"):
        load_table("nothing")


def test_the_page_counts_the_rules_and_names_those_that_are_broken(tmp_path: Path) -> None:
    table = load_table("single_node")
    arms = [ArmPrediction("good", (prediction("makespan_s", 99.0, 100.0, within=0.03), ANY_HITS))]
    assert in_a_sentence({"single_node": arms}) == "1 of 1 rules hold."
    arms.append(ArmPrediction("bad", (prediction("makespan_s", 50.0, 100.0, within=0.03), ANY_HITS)))
    draw(table, arms, tmp_path / "single_node.png")
    page = write_page({"single_node": table}, {"single_node": arms}, tmp_path, seeds=[0, 7]).read_text()
    assert '<p class="verdict">1 of 2 rules hold; broken: single_node, bad: makespan_s.</p>' in page
    assert "<dd>80 of published sessions</dd>" in page
    assert "<dd>0, 7</dd>" in page
    assert page.count("data:image/png;base64,") == 1


def test_the_committed_prediction_comes_out_again_and_keeps_its_rules() -> None:
    committed = json.loads((COMMITTED / "single_node.json").read_text())["arms"]
    assert all(each["holds"] is not False for arm in committed.values() for each in arm.values())
    for arm in predict("single_node", [0, 1, 2], workers=LocalWorkers(2))[:1]:
        for each in arm.metrics:
            assert each.predicted.mean == pytest.approx(committed[arm.name][each.metric]["predicted"]["mean"])
