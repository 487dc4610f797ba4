"""The model of the batch and the law on it: each part against theory first, then together."""

import math
from collections import Counter
from dataclasses import replace
from random import Random
from statistics import NormalDist

import pytest

from concur.controllers import make_controller
from concur.controllers.twin import Twin
from concur.measures.misses import MissMeter
from concur.signals import AgentView, CallView, Snapshot
from concur.sim.record.record import RunRecord
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario
from concur.sim.world.simulate import simulate
from concur.twin.calls import CallPool
from concur.twin.costs import CostMeter, StepCosts
from concur.twin.future import Future, FutureAgent, FutureCall, Policy
from concur.twin.lives import Lives
from concur.twin.model import Rollout
from concur.twin.plan import handicap
from tests.helpers import TRACES, make_scenario

COSTS = StepCosts(base_s=0.01, prefill_token_s=1e-4, decode_token_s=1e-3, context_token_s=0.0)
OPEN = Policy(admit_frac=100.0, slack_frac=1.0, window=1000)


def newcomer(*calls: FutureCall) -> FutureAgent:
    return FutureAgent(0.0, 0.0, False, 0.0, 0.0, calls)


def call(new: float, output: float, *, wait_s: float = 0.0, kept_frac: float = 1.0) -> FutureCall:
    return FutureCall(new, output, kept_frac, wait_s)


def end_s(*agents: FutureAgent, policy: Policy = OPEN, pool_tokens: float = 1e6) -> float:
    end = Rollout(Future(agents, COSTS, pool_tokens, newcomer_tokens=600.0), policy).run().end_s
    assert end is not None
    return end


class TestModel:
    def test_one_agent_takes_what_its_calls_take(self) -> None:
        """A prompt's step generates the first token; a token on n others costs 1 + n / 30,000."""
        first_s = 0.01 + 1e-4 * 1000 * (1 + 500 / 30_000)
        second_s = 0.01 + 1e-4 * 200 * (1 + (1250 - 100) / 30_000)
        decodes_s = (49 + 29) * (0.01 + 1e-3)
        assert end_s(newcomer(call(1000, 50, wait_s=2.5), call(200, 30))) == pytest.approx(
            first_s + second_s + decodes_s + 2.5
        )

    def test_calls_that_decode_together_share_the_base_cost(self) -> None:
        alone_s = end_s(newcomer(call(10, 100)))
        both_s = end_s(newcomer(call(10, 100)), newcomer(call(10, 100)))
        assert both_s < 1.2 * alone_s

    def test_what_was_evicted_is_prefilled_again(self) -> None:
        agents = [newcomer(call(600, 10, wait_s=1.0), call(10, 10)) for _ in range(4)]
        ample_s, tight_s = (end_s(*agents, pool_tokens=tokens) for tokens in (1e6, 1500))
        assert tight_s - ample_s == pytest.approx(4 * 610e-4, rel=0.35)

    def test_a_history_that_is_dropped_is_not_computed_again(self) -> None:
        kept_s = end_s(newcomer(call(1000, 10), call(500, 10)))
        dropped_s = end_s(newcomer(call(1000, 10), call(500, 10, kept_frac=0.0)))
        assert dropped_s == pytest.approx(kept_s, rel=0.01)

    @pytest.mark.parametrize(
        "policy", [Policy(100.0, 1.0, 1), Policy(0.65, 0.3, 1000)], ids=["window", "tokens"]
    )
    def test_a_bound_that_holds_one_agent_runs_them_one_after_the_other(self, policy: Policy) -> None:
        agents = [newcomer(call(600, 10, wait_s=1.0), call(10, 10)) for _ in range(3)]
        assert end_s(*agents, policy=policy, pool_tokens=1000) == pytest.approx(3 * end_s(agents[0]))

    def test_whoever_holds_a_slot_in_flight_ends_its_call_first(self) -> None:
        agent = FutureAgent(1000.0, 900.0, True, 20.0, 3.0, (call(100, 10),))
        prefill_s, step_s = 0.01 + 1e-4 * 100 * (1 + 1050 / 30_000), 0.011
        assert end_s(agent) == pytest.approx(20 * step_s + 3.0 + prefill_s + 9 * step_s)

    def test_prompts_that_come_during_a_step_share_the_next(self) -> None:
        together_s = end_s(newcomer(call(100, 40)), newcomer(call(100, 40)), newcomer(call(100, 40)))
        work_s = 3 * 1e-4 * 100 * (1 + 50 / 30_000)
        assert together_s == pytest.approx(0.01 + work_s + 39 * (0.01 + 3e-3))

    def test_a_prompt_that_comes_during_a_step_waits_for_its_end(self) -> None:
        """At 15.5 ms the second of two steps of 11 ms is under way; the prompt's begins at 22 ms."""
        decoding = FutureAgent(100.0, 100.0, True, 3.0, 0.0, (call(1, 1, kept_frac=0.0),))
        asking = FutureAgent(100.0, 100.0, True, 0.0, 0.0155, (call(100, 10),))
        work_s = 1e-4 * 100 * (1 + 150 / 30_000)
        first_token_s = 0.022 + 0.011 + work_s
        other_s = 0.011 + 1e-4 * (
            1 + 0.5 / 30_000
        )  # the other's next call, of one token, in a step of its own
        assert end_s(decoding, asking) == pytest.approx(first_token_s + other_s + 8 * 0.011)

    def test_what_a_group_shares_is_computed_once_and_held_once(self) -> None:
        level = (("g", 900.0),)
        agents = [replace(newcomer(call(100, 10, wait_s=1.0), call(100, 10)), levels=level) for _ in range(3)]
        tokens = 900 + 3 * 220
        assert end_s(*agents, pool_tokens=tokens) == pytest.approx(end_s(*agents, pool_tokens=1e6))
        alone = [replace(agent, levels=((f"g{number}", 900.0),)) for number, agent in enumerate(agents)]
        assert end_s(*alone, pool_tokens=1e6) - end_s(*agents) == pytest.approx(2 * 900 * 1e-4, rel=0.1)

    def test_what_a_tier_gives_back_is_not_computed(self) -> None:
        agents = tuple(newcomer(call(600, 10, wait_s=1.0), call(10, 10)) for _ in range(4))
        kept, lost = (
            Rollout(Future(agents, COSTS, 1500.0, 0.0, recomputed_frac=frac), OPEN).run().end_s
            for frac in (0.0, 1.0)
        )
        assert kept is not None
        assert kept < end_s(*agents, pool_tokens=1500)
        assert lost == pytest.approx(end_s(*agents, pool_tokens=1500))

    def test_one_of_three_agents_stands_for_all(self) -> None:
        """A third of the agents, each token three times as dear, in a third of the pool."""
        rng = Random(3)
        agents = [
            newcomer(*[call(rng.randrange(50, 400), rng.randrange(20, 90), wait_s=1.0) for _ in range(6)])
            for _ in range(60)
        ]
        dear = StepCosts(0.01, 3e-4, 3e-3, 0.0)
        thinned = Rollout(Future(tuple(agents[::3]), dear, 6000.0, 600.0, scale=3), Policy(0.9, 0.3, 1000))
        all_s = end_s(*agents, policy=Policy(0.9, 0.3, 1000), pool_tokens=18_000.0)
        assert thinned.run().end_s == pytest.approx(all_s, rel=0.1)
        few = Policy(100.0, 0.3, 6)
        by_window = Rollout(Future(tuple(agents[::3]), dear, 1e6, 600.0, scale=3), few).run().end_s
        assert by_window == pytest.approx(end_s(*agents, policy=few), rel=0.1)

    def test_a_run_tells_under_which_other_policies_it_would_have_been_the_same(self) -> None:
        """A fixed bound decides as one above all that it was asked about, and as none below."""
        rng = Random(0)
        agents = [
            newcomer(*[call(rng.uniform(50, 900), 20, wait_s=rng.random()) for _ in range(rng.randint(2, 9))])
            for _ in range(12)
        ]
        future = Future(tuple(agents), COSTS, 10_000.0, newcomer_tokens=600.0)
        policies = [
            Policy(admit_frac=admit / 5, slack_frac=slack / 4, window=window)
            for admit in range(1, 15)
            for slack in (0, 1, 4)
            for window in (2, 5, 12, 13)
        ]
        ends_s, agreed = {}, 0
        runs = {policy: Rollout(future, policy) for policy in policies}
        for policy, rollout in runs.items():
            ends_s[policy] = rollout.run().end_s
        for policy, rollout in runs.items():
            assert rollout.agrees(policy)
            for other in policies:
                if rollout.agrees(other):
                    agreed += 1
                    assert ends_s[policy] == ends_s[other], (policy, other)
        assert len(policies) < agreed < len(policies) ** 2 / 2

    def test_the_promise_of_a_cut_future_is_that_of_its_first_calls(self) -> None:
        agents = [newcomer(*[call(10, 10)] * 10)]
        outcome = Rollout(Future(tuple(agents), COSTS, 1e6, 1.0, is_cut=True), OPEN).run()
        assert outcome.end_s is None
        assert outcome.cost_s == pytest.approx(end_s(*agents), rel=0.02)


class TestLives:
    def test_lives_that_have_ended_are_drawn_as_often_as_they_were_seen(self) -> None:
        lives = Lives()
        for length in (2, 2, 2, 5):
            lives.ended(length)
        lives.see([])
        rng = Random(0)
        drawn = Counter(lives.draw_rest(0, rng, spread=0.5) for _ in range(4000))
        assert drawn[2] / 4000 == pytest.approx(0.75, abs=0.03)
        assert drawn[5] / 4000 == pytest.approx(0.25, abs=0.03)

    def test_those_who_are_still_here_make_lives_longer(self) -> None:
        """Kaplan and Meier by hand: of four, one ended at 2 and three are at 4; S(2) = 3/4."""
        lives = Lives()
        lives.ended(2)
        lives.see([4, 4, 4])
        rng = Random(0)
        drawn = [lives.draw_rest(0, rng, spread=0.5) for _ in range(4000)]
        assert sum(each == 2 for each in drawn) / 4000 == pytest.approx(0.25, abs=0.03)
        assert all(each > 2 for each in drawn if each != 2)

    def test_who_has_outlived_all_makes_at_least_one_more_call(self) -> None:
        lives = Lives()
        lives.ended(3)
        lives.see([9])
        rng = Random(0)
        assert min(lives.draw_rest(9, rng, spread=0.5) for _ in range(200)) >= 1

    def test_while_many_have_come_far_and_none_has_ended_lives_are_long(self) -> None:
        """The furthest of n survivors are at the quantile 1 / (2 n + 2) of a log-normal."""
        lives = Lives()
        lives.see([3] * 100)
        rng = Random(0)
        drawn = sorted(3 + lives.draw_rest(3, rng, spread=0.5) for _ in range(4000))
        expected = 3 * math.exp(0.5 * NormalDist().inv_cdf(1 - 0.5 / 101))
        assert drawn[2000] == pytest.approx(expected, abs=1.5)  # whole calls


def test_the_costs_of_steps_are_found_from_counters() -> None:
    """Not one by one, for they can hardly be told apart, but what they say of other loads."""
    meter, rng = CostMeter(), Random(1)
    time_s, steps, prompt, generated = 0.0, 0, 0, 0
    for number in range(400):
        more_steps, batch, uncached = rng.randrange(20, 60), rng.randrange(1, 80), rng.randrange(0, 9000)
        steps += more_steps
        generated += more_steps * batch
        prompt += uncached
        time_s += 0.012 * more_steps + 4e-5 * uncached + 1.5e-4 * more_steps * batch
        meter.update(
            Snapshot(
                time_s,
                num_requests_running=batch,
                prefix_cache_queries_tokens=prompt,
                generation_tokens=generated,
                num_engine_steps=steps,
                calls=(CallView("a", number, time_s, 1.0, 100, 50, 0, 0),),
            )
        )
    costs = meter.costs
    for batch, uncached in ((1, 0), (70, 0), (20, 4000)):
        expected_s = 0.012 + 1.5e-4 * batch + 4e-5 * uncached
        assert costs.step_s(batch, 0.0) + costs.prefill_s(uncached, 0.0) == pytest.approx(expected_s, rel=0.1)


def test_prompts_longer_than_an_interval_do_not_look_cheap() -> None:
    """They are counted when they begin, and computed for many readings after that."""
    meter, rng = CostMeter(), Random(2)
    time_s, steps, prompt, work_s = 0.0, 0, 0, 0.0
    calls: tuple[CallView, ...] = ()
    for number in range(3000):
        if rng.random() < 0.15:
            prompt += 20_000
            work_s += 3 * 0.01 + 20_000 * 1e-4
            calls = (CallView("a", number, time_s, 1.0, 20_000, 10, 0, 0),)
        time_s += 1.0
        steps += 1 if work_s > 1 else 100
        work_s = max(0.0, work_s - 1.0)
        meter.update(
            Snapshot(
                time_s,
                num_requests_running=1,
                prefix_cache_queries_tokens=prompt,
                generation_tokens=steps,
                num_engine_steps=steps,
                calls=calls,
            )
        )
        calls = ()
    assert meter.costs.prefill_s(20_000, 20_000) == pytest.approx(2.0, rel=0.25)


def test_misses_are_dear_without_a_tier_and_cheap_with_one_that_has_them() -> None:
    reading = Snapshot(
        1.0,
        num_gpu_blocks=101,
        block_size=16,
        calls=(CallView("a", 1, 1.0, 1.0, 1000, 10, 900, 0),),
        external_prefix_cache_queries_tokens=10_000,
    )
    assert MissMeter().update(replace(reading, external_prefix_cache_queries_tokens=0)) == 1.0
    assert MissMeter().update(replace(reading, calls=(), external_prefix_cache_hits_tokens=9000)) < 0.05
    lost = MissMeter()
    shares = [lost.update(reading) for _ in range(8)]
    assert shares == sorted(shares), "a tier that has nothing is found out"
    assert shares[-1] > 0.9


def test_calls_are_kept_in_private_tokens() -> None:
    pool = CallPool()
    pool.add(CallView("a", 0, 1.0, None, 1300, 100, 1000, None), prefix_tokens=1000)
    pool.add(CallView("a", 1, 9.0, 4.0, 1300, 50, 1200, None), prefix_tokens=1000)
    assert list(pool.firsts) == [(300.0, 100.0)]
    (seen,) = pool.draw("a", 1, Random(0))
    assert seen == FutureCall(100.0, 50.0, 200 / 400, 4.0)


class Recorder:
    """The law, and what it was shown."""

    reads_agents = True
    interval_s = 1.0

    def __init__(self) -> None:
        self.law = make_controller("twin")
        self.readings: list[tuple[Snapshot, int]] = []

    @property
    def window(self) -> int:
        return self.law.window

    @window.setter
    def window(self, window: int) -> None:
        self.law.window = window

    @property
    def budget(self) -> object:
        assert isinstance(self.law, Twin)
        return self.law.budget

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        self.readings.append((snapshot, active))
        return self.law.update(snapshot, active=active)

    def log_state(self) -> dict[str, object]:
        return dict(self.law.log_state())


def thrashing() -> Scenario:
    """Prefill costs five times the default, so that what is evicted is dear."""
    return make_scenario(
        workload={"num_agents": 64},
        engine={"num_gpu_blocks": 4001},
        step_time={"per_prefill_token_s": 1e-4},
        controller={"kind": "twin"},
    )


@pytest.fixture(scope="module")
def run() -> RunRecord:
    return simulate(thrashing())


def test_it_bounds_tokens_and_beats_no_control_where_that_thrashes(run: RunRecord) -> None:
    none = simulate(thrashing().with_controller(make_scenario().controller), build_workload(thrashing()))
    assert none.metrics["recompute_time_fraction"] > 0.2
    assert run.metrics["makespan_s"] < 0.9 * none.metrics["makespan_s"]
    assert run.ticks["admit_tokens"].notna().any()
    assert (run.ticks["admit_tokens"].dropna() <= run.ticks["pause_tokens"].dropna()).all()


def test_it_hurries_until_it_knows_the_calls_and_keeps_its_interval_after_that(run: RunRecord) -> None:
    times_s = run.ticks["t_s"].tolist()
    assert times_s[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [time_s for time_s in times_s if time_s > 10] == list(range(11, round(times_s[-1]) + 1))


def started(*, running: int, in_flight: int, usage_frac: float, shared_tokens: int = 0) -> Snapshot:
    """16 agents that hold a slot and have ended no call, in a pool of 16,000 tokens."""
    agents = [
        AgentView(
            f"a{index}",
            index,
            0.0,
            admitted_s=0.0,
            holds_slot=True,
            is_in_step=index < in_flight,
            num_calls=int(index < in_flight),
            prefix_group="group",
            shared_prefix_tokens=shared_tokens,
        )
        for index in range(16)
    ]
    return Snapshot(
        0.1,
        num_requests_running=running,
        generation_tokens=1000,
        kv_cache_usage_frac=usage_frac,
        num_gpu_blocks=1001,
        block_size=16,
        agents=tuple(agents),
    )


@pytest.mark.parametrize(
    ("reading", "window"),
    [
        (started(running=16, in_flight=16, usage_frac=0.05), 32),
        (started(running=8, in_flight=16, usage_frac=0.05), 16),  # the engine has not taken them yet
        (started(running=16, in_flight=16, usage_frac=0.2), 20),  # a quarter of the pool
        (started(running=16, in_flight=16, usage_frac=0.5), 16),
        (started(running=16, in_flight=16, usage_frac=0.5, shared_tokens=6400), 32),  # four tenths are shared
        (started(running=0, in_flight=0, usage_frac=0.0), 32),  # all wait for their tools
    ],
)
def test_at_the_start_running_calls_fill_a_quarter_of_the_pool(reading: Snapshot, window: int) -> None:
    assert make_controller("twin").update(reading, active=16) == window


def test_decisions_repeat_on_the_same_readings() -> None:
    recorder = Recorder()
    record = simulate(thrashing(), law=lambda: recorder)  # type: ignore[arg-type, return-value]
    again = make_controller("twin")
    windows = [again.update(snapshot, active=active) for snapshot, active in recorder.readings]
    assert windows == record.ticks["window"].tolist()
    assert again.log_state() == recorder.law.log_state()


def test_another_seed_draws_other_futures(run: RunRecord) -> None:
    config = thrashing().controller
    parameters = config.parameters | {"seed": 1}
    other = simulate(thrashing().with_controller(config.model_copy(update={"parameters": parameters})))
    assert other.ticks["state"].tolist() != run.ticks["state"].tolist()


def test_stale_signals_and_missing_usage_move_nothing() -> None:
    law = make_controller("twin")
    first = Snapshot(1.0, num_requests_running=3, num_gpu_blocks=1000, block_size=16)
    law.update(first, active=16)
    before = law.window
    assert law.update(replace(first, time_s=2.0), active=16) == before, "requests run and nothing moves"
    assert law.log_state() == {"is_stale": 1}


@pytest.mark.parametrize(
    ("policy", "without_tier", "all_reloaded"),
    [
        (Policy(2.0, 0.3, 1000), 1.0, 1.0),
        (Policy(2.1, 0.12, 1000), 1.0, 1.0),
        (Policy(1.9, 0.6, 1000), 1.0, 1.04),
        (Policy(2.0, 0.12, 1000), 1.0, 1.04),
        (Policy(2.0, 0.3, 20), 1.0, 1.0),
        (Policy(2.0, 0.3, 19), 1.012, 1.012 * 1.04),
    ],
)
def test_a_tighter_bound_has_to_promise_more_where_misses_are_reloaded(
    policy: Policy, without_tier: float, all_reloaded: float
) -> None:
    in_force = Policy(2.0, 0.3, 1000)
    assert handicap(policy, in_force, active=20, recomputed_frac=1.0) == without_tier
    assert handicap(policy, in_force, active=20, recomputed_frac=0.0) == pytest.approx(all_reloaded)


@pytest.mark.parametrize("seed", [105, 106])
def test_it_stands_aside_where_an_offload_tier_is_ample_and_fast(seed: int) -> None:
    """Of the orders of the agents on which it lost 6 and 7 % to no control."""
    tier = {"kind": "offloading", "capacity_tokens": 200_000, "bandwidth_bytes_per_s": 48.5e9}
    scenario = make_scenario(
        seed=seed,
        workload={
            "generator": None,
            "trace": str(TRACES / "tau_airline.jsonl.gz"),
            "num_agents": 48,
            "order": "shuffled",
        },
        engine={"num_gpu_blocks": 1501, "max_model_len": 32_768, "host_cache": tier},
        step_time={"profile": "h100-sxm_qwen3-32b_tp2"},
        controller={"kind": "twin"},
    )
    twin, none = simulate(scenario), simulate(scenario.with_controller(make_scenario().controller))
    assert none.metrics["host_tokens"] > 0.3 * none.metrics["cached_tokens"]
    assert twin.metrics["makespan_s"] < 1.02 * none.metrics["makespan_s"]
