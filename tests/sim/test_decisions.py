"""Decisions as a table and a figure: the record's own numbers, in the record's own order."""

import json

import numpy as np
import pytest

from concur.sim.record.record import RunRecord
from concur.sim.show.decisions import decision_states, decisions_figure
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario


@pytest.fixture(scope="module")
def record() -> RunRecord:
    run = simulate(make_scenario(workload={"num_agents": 24}, controller={"kind": "concur"}))
    assert run.ticks["window"].nunique() > 2, "a window that never moves proves nothing"
    return run


def test_states_are_those_that_were_logged(record: RunRecord) -> None:
    states = decision_states(record)
    assert states.index.tolist() == record.ticks["t_s"].tolist()
    logged = [json.loads(state)["hit_rate_frac"] for state in record.ticks["state"]]
    told = [number for number, value in enumerate(logged) if value is not None]
    assert len(told) > 2
    assert states["hit_rate_frac"].iloc[told].tolist() == [logged[number] for number in told]
    assert states["hit_rate_frac"].isna().sum() == len(logged) - len(told)


def test_the_figure_has_the_windows_in_force_and_those_of_others(record: RunRecord) -> None:
    name = decision_states(record).columns[0]
    unlimited = [2**31 - 1] * len(record.ticks)
    figure = decisions_figure(
        record, values=[name], others={"half": [1] * len(record.ticks), "no": unlimited}
    )
    top, below = figure.axes
    _, decided, half, no_limit = top.get_lines()
    assert np.asarray(decided.get_ydata()).tolist() == record.ticks["window"].tolist()
    assert set(np.asarray(half.get_ydata())) == {1.0}
    assert np.isnan(np.asarray(no_limit.get_ydata(), float)).all(), "a window that never binds is not drawn"
    assert below.get_ylabel() == name
    assert len(decisions_figure(record).axes) == 1
