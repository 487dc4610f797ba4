"""The rival laws, each against a sequence worked out by hand from its statement."""

from typing import Any

import pytest

from concur.controllers import make_controller
from concur.errors import ParameterError
from concur.signals import AgentView, Snapshot
from tests.helpers import make_snapshot

Fields = dict[str, Any]


def holder(number: int, tokens: int, *, in_step: bool = False, **fields: Any) -> AgentView:
    given: Fields = {"context_tokens": tokens, "steps_done": 1, "is_in_step": in_step, "holds_slot": True}
    return AgentView(f"a{number}", number, 0.0, **(given | fields))


def waiter(number: int, tokens: int = 0, *, since_s: float = 0.0, steps: int = 0) -> AgentView:
    return AgentView(
        f"w{number}", 100 + number, 0.0, waiting_since_s=since_s, context_tokens=tokens, steps_done=steps
    )


def books(*agents: AgentView, blocks: int = 100, time_s: float = 5.0) -> Snapshot:
    return make_snapshot(time_s, num_gpu_blocks=blocks, block_size=16, agents=agents)


class TestLedger:
    """Capacity is 1600 tokens; every agent costs its tokens plus 100."""

    def test_a_ledger_that_fits_lets_in_what_fits(self) -> None:
        law = make_controller("ledger")
        # used 500 + 500 = 1000 of 1600; of the waiting, 300 (past its first step), then 100 and 100 fit
        agents = (holder(0, 400), holder(1, 400, in_step=True), waiter(0), waiter(1), waiter(2, 200, steps=1))
        assert law.update(books(*agents), active=2) == 5
        assert law.log_state() == {"used_tokens": 1000.0}

    def test_best_fit_goes_on_past_one_that_does_not(self) -> None:
        law = make_controller("ledger")
        agents = (holder(0, 900), waiter(0, 5000, steps=1), waiter(1))
        assert law.update(books(*agents), active=1) == 2

    def test_an_overflow_pauses_agents_in_tools_first_smallest_first_and_no_more_than_needed(self) -> None:
        law = make_controller("ledger")
        # used 300 + 600 + 900 = 1800: 200 too many; the smallest in a tool frees 300
        agents = (holder(0, 200), holder(1, 500), holder(2, 800, in_step=True))
        assert law.update(books(*agents), active=3) == 2
        # one tick on, in calls only: used 2200, 600 too many: 300 and 500 go
        running = (holder(0, 200, in_step=True), holder(1, 400, in_step=True), holder(2, 1300, in_step=True))
        assert law.update(books(*running, time_s=10.0), active=3) == 1

    def test_a_shared_prefix_counts_once_unless_faithful(self) -> None:
        agents = [holder(n, 700, prefix_group="g", shared_prefix_tokens=600) for n in range(4)]
        # once: 600 + 4 * 200 = 1400 fits; per agent: 4 * 800 = 3200 does not
        assert make_controller("ledger").update(books(*agents), active=4) == 4
        assert make_controller("ledger", faithful=1).update(books(*agents), active=4) == 1

    def test_faithful_marks_all_in_tools_for_a_small_overflow(self) -> None:
        agents = (holder(0, 200), holder(1, 300), holder(2, 800, in_step=True))  # used 1600 + 100
        assert make_controller("ledger").update(books(*agents, blocks=99), active=3) == 2
        assert make_controller("ledger", faithful=1).update(books(*agents, blocks=99), active=3) == 1

    def test_what_agents_in_tools_keep_counts_for_half_after_each_half_life(self) -> None:
        # used 1000 of 1600, 400 + 100 of them in a tool for 4 s: with a half-life of 2 s only 125
        agents = (holder(0, 400, heard_s=1.0), holder(1, 400, in_step=True), waiter(0, 800, steps=1))
        assert make_controller("ledger").update(books(*agents), active=2) == 2
        assert make_controller("ledger", half_lives_per_s=0.5).update(books(*agents), active=2) == 3
        assert make_controller("ledger", half_lives_per_s=0.25).update(books(*agents), active=2) == 2, (
            "250: 50 lack"
        )

    def test_whoever_waited_too_long_is_let_in_although_it_does_not_fit(self) -> None:
        agents = (holder(0, 1400), waiter(0, 900, since_s=0.0, steps=1))
        law = make_controller("ledger", max_wait_s=60.0)
        assert law.update(books(*agents, time_s=59.0), active=1) == 1
        assert law.update(books(*agents, time_s=61.0), active=1) == 2


class TestTurnover:
    def tick(self, law: Any, number: int, ids: str, **fields: Any) -> int:
        agents = tuple(AgentView(name, 0, 0.0, holds_slot=True) for name in ids)
        fields = {"num_requests_running": 4, "generation_tokens": 10 * number} | fields
        return int(law.update(make_snapshot(5.0 * number, agents=agents, **fields), active=10))

    def test_it_grows_once_per_turnover_and_less_the_fuller_the_pool(self) -> None:
        law = make_controller("turnover", initial_window=10)
        assert self.tick(law, 1, "abcdefghijkl") == 10
        assert self.tick(law, 2, "ghijkl", kv_cache_usage_frac=0.4) == 10  # 6 of 10 have turned
        assert (
            self.tick(law, 3, "kl", kv_cache_usage_frac=0.4) == 11
        )  # 10 of 10: * (1 + 0.2 * (1 - 0.4 / 0.8))
        assert self.tick(law, 4, "kl", kv_cache_usage_frac=0.4) == 11  # the next turnover starts at zero

    def test_it_does_not_grow_where_the_window_does_not_bind(self) -> None:
        law = make_controller("turnover", initial_window=20)
        self.tick(law, 1, "abcdefghijkl")
        assert self.tick(law, 2, "", kv_cache_usage_frac=0.1) == 20

    def test_a_full_pool_drains_and_freezes_until_drained_and_quiet(self) -> None:
        law = make_controller("turnover", initial_window=10)
        self.tick(law, 1, "abc")
        assert self.tick(law, 2, "abc", kv_cache_usage_frac=0.9) == 7  # floor(10 * 0.7 / 0.9)
        assert self.tick(law, 3, "abc", kv_cache_usage_frac=0.9, num_preemptions=9) == 7  # 10 > 7: draining

        assert self.tick(law, 4, "abc", kv_cache_usage_frac=0.9, num_preemptions=19) == 7  # still draining

    def test_cuts_end_at_one(self) -> None:
        law = make_controller("turnover", initial_window=1)
        windows = [self.tick(law, n, "abc", num_preemptions=n) for n in range(1, 9)]
        assert set(windows) == {1}

    def test_a_preemption_takes_a_fifth(self) -> None:
        law = make_controller("turnover", initial_window=10)
        self.tick(law, 1, "abc")
        assert self.tick(law, 2, "abc", num_preemptions=1) == 8

    def test_a_queue_must_last_six_polls_and_costs_half_the_second_time(self) -> None:
        law = make_controller("turnover", initial_window=100)
        windows = [self.tick(law, n, "abc", num_requests_waiting=3) for n in range(1, 9)]
        assert windows == [100, 100, 100, 100, 100, 100, 90, 90]  # the first reading has none before it
        self.tick(law, 9, "abc")  # drained and quiet
        windows = [self.tick(law, n, "abc", num_requests_waiting=3) for n in range(10, 16)]
        assert windows == [90, 90, 90, 90, 90, 45]

    def test_it_can_start_at_the_pool_over_the_longest_context(self) -> None:
        law = make_controller("turnover", max_model_len=1000)
        law.update(make_snapshot(0.0, num_gpu_blocks=500, block_size=16), active=0)
        assert law.window == 8


def work_readings(*works: float) -> list[Snapshot]:
    """Readings in which each interval computed that many tokens per generated one."""
    uncached, readings = 0, [make_snapshot(0.0)]
    for number, work in enumerate(works, start=1):
        uncached += round(100 * (work - 1))
        readings.append(
            make_snapshot(5.0 * number, prefix_cache_queries_tokens=uncached, generation_tokens=100 * number)
        )
    return readings


def test_vegas_by_hand() -> None:
    law = make_controller("vegas", initial_window=100)  # log10 = 2: queue <= 2: + 12; < 6: + 2; > 12: - 2
    windows = [law.update(reading, active=100) for reading in work_readings(2.0, 2.0, 2.08, 2.2, 4.0)]
    # 112: log10 = 2.049, queue 0: + 12.295 -> 124.295; queue 4.78: + 2.094 -> 126.39; queue 11.5: hold;
    # queue 63: - 2.1017 -> 124.288
    assert windows == [100, 112, 124, 126, 126, 124]


def test_vegas_and_gradient_do_not_grow_while_half_unused() -> None:
    for kind in ("vegas", "gradient"):
        law = make_controller(kind, initial_window=100)
        assert {law.update(reading, active=49) for reading in work_readings(2.0, 2.0, 2.0)} == {100}


def test_vegas_forgets_the_least_work_after_its_probe() -> None:
    law = make_controller("vegas", initial_window=100, probe_ticks=3)
    for reading in work_readings(2.0, 4.0, 4.0):
        law.update(reading, active=100)
    assert law.log_state() == {"least_work": 4.0}


def test_gradient_by_hand() -> None:
    law = make_controller("gradient", initial_window=20)
    windows = [law.update(reading, active=20) for reading in work_readings(2.0, 2.0, 8.0)]
    # + 0.2 * 4 = 20.8, 21.6; then the long-term mean is 4, gradient 0.75:
    # 21.6 + 0.2 * (21.6 * 0.75 + 4 - 21.6) = 21.32
    assert windows == [20, 20, 21, 21]
    assert law.log_state() == {"long_work": 4.0}


def test_gradient_cuts_by_a_tenth_at_most() -> None:
    law = make_controller("gradient", initial_window=100)
    windows = [law.update(reading, active=100) for reading in work_readings(*[2.0] * 11, 50.0)]
    assert windows[-2] == 108
    assert windows[-1] == 98  # 108.8 + 0.2 * (108.8 * 0.5 + 4 - 108.8)


@pytest.mark.parametrize(
    ("kind", "params", "name"),
    [
        ("ledger", {"tool_weight": 1.5}, "tool_weight"),
        ("ledger", {"buffer_tokens": -1}, "buffer_tokens"),
        ("ledger", {"max_wait_s": 0.0}, "max_wait_s"),
        ("ledger", {"faithful": 2}, "faithful"),
        ("ledger", {"initial_window": 0}, "initial_window"),
        ("turnover", {"initial_window": 0}, "initial_window"),
        ("turnover", {"max_model_len": -1}, "max_model_len"),
        ("vegas", {"initial_window": 0}, "initial_window"),
        ("vegas", {"probe_ticks": 0}, "probe_ticks"),
        ("gradient", {"initial_window": 0}, "initial_window"),
        ("hybrid", {"initial_window": 0}, "initial_window"),
        ("hybrid", {"max_window": 2**31}, "max_window"),
        ("hybrid", {"window_s": 0.0}, "window_s"),
        ("hybrid", {"tool_waits": -1.0}, "tool_waits"),
        ("hybrid", {"shortfall_frac": 0.0}, "shortfall_frac"),
        ("hybrid", {"max_wait_s": 0.0}, "max_wait_s"),
    ],
)
def test_a_parameter_out_of_bounds_is_refused_by_name(kind: str, params: Fields, name: str) -> None:
    with pytest.raises(ParameterError, match=name):
        make_controller(kind, **params)
