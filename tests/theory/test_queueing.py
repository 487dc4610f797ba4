"""The simulator against queueing theory, on an engine so simple that theory has an answer.

One sequence at a time (`max_num_seqs` = 1), no prefix cache, and a step time that is proportional to the
prompt: each call is one step, a single server, first come first served. Tolerances are four standard errors
over independent replications.
"""

from collections.abc import Callable
from functools import cache
from statistics import mean, stdev

import numpy as np
import pytest

from concur.sim.record.record import RunRecord
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario

NUM_CALLS = 3000
WARM_UP = 300
NUM_REPLICATIONS = 8
SECONDS_PER_TOKEN = 1e-3
MEAN_TOKENS = 1000  # so the mean service takes 1 s
Draw = Callable[[np.random.Generator], np.ndarray]


@cache  # what one law of theory is held to, others are too
def one_server(load: float, draw_tokens: Draw, seed: int) -> RunRecord:
    """One call per agent, Poisson arrivals at `load` per mean service time."""
    rng = np.random.default_rng(seed)
    arrivals_s = np.cumsum(rng.exponential(1.0 / load, NUM_CALLS))
    tokens = draw_tokens(rng)
    agents = tuple(
        AgentSpec(f"a{n}", n, None, 0, float(arrival_s), (StepSpec(0, int(size), 1, 0.0),))
        for n, (arrival_s, size) in enumerate(zip(arrivals_s, tokens, strict=True))
    )
    scenario = make_scenario(
        engine={
            "max_num_seqs": 1,
            "max_num_batched_tokens": 100_000,
            "max_model_len": 100_000,
            "num_gpu_blocks": 7000,
            "enable_prefix_caching": False,
        },
        step_time={
            "base_s": 0.0,
            "per_prefill_token_s": SECONDS_PER_TOKEN,
            "per_decode_seq_s": 0.0,
            "per_context_token_s": 0.0,
            "per_prefill_pair_s": 0.0,
        },
        record={"timeline_interval_s": 2.0},
    )
    return simulate(scenario, Workload(agents, source="theory"))


def exponential(rng: np.random.Generator) -> np.ndarray:
    return np.maximum(1, np.round(rng.exponential(MEAN_TOKENS, NUM_CALLS)))


def constant(rng: np.random.Generator) -> np.ndarray:
    return np.full(NUM_CALLS, MEAN_TOKENS)


def sojourns_s(record: RunRecord) -> np.ndarray:
    ordered = record.requests.sort_values("agent_index").iloc[WARM_UP:]
    return (ordered["finished_s"] - ordered["ready_s"]).to_numpy()


def assert_agrees(values: list[float], expected: float) -> None:
    standard_error = stdev(values) / len(values) ** 0.5
    assert standard_error < 0.1 * expected, "too noisy to say anything"
    assert mean(values) == pytest.approx(expected, abs=4 * standard_error)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_mm1_mean_time_in_system(load: float) -> None:
    """M/M/1: W = 1 / (mu - lambda)."""
    values = [
        float(sojourns_s(one_server(load, exponential, seed)).mean()) for seed in range(NUM_REPLICATIONS)
    ]
    assert_agrees(values, 1.0 / (1.0 - load))


def test_mm1_time_in_system_is_exponential() -> None:
    """M/M/1, first come first served: P(T > t) = exp(-(mu - lambda) t)."""
    runs = [sojourns_s(one_server(0.6, exponential, seed)) for seed in range(NUM_REPLICATIONS)]
    for t in (1.0, 3.0):
        assert_agrees([float((run > t).mean()) for run in runs], float(np.exp(-0.4 * t)))


def test_md1_mean_wait() -> None:
    """M/D/1 (Pollaczek-Khinchine): Wq = rho / (2 mu (1 - rho))."""
    values = [float(sojourns_s(one_server(0.6, constant, seed)).mean()) for seed in range(NUM_REPLICATIONS)]
    assert_agrees(values, 1.0 + 0.6 / (2 * 0.4))


def test_littles_law_between_the_gauges_and_the_request_times() -> None:
    """L = lambda W: time-averaged number of requests (sampled arrivals and departures) = rate x mean stay."""
    for seed in range(3):
        record = one_server(0.6, exponential, seed)
        times_s = record.timeline["t_s"].to_numpy()
        arrived = np.searchsorted(np.sort(record.requests["submitted_s"].to_numpy()), times_s, side="right")
        left = record.timeline["agents_finished"].to_numpy(np.float64)
        in_system = float((arrived - left)[:-1].mean())
        rate = len(record.requests) / record.metrics["makespan_s"]
        stay_s = float((record.requests["finished_s"] - record.requests["ready_s"]).mean())
        assert in_system == pytest.approx(rate * stay_s, rel=0.03)
