"""The hybrid: each term of its bound against numbers worked out by hand, and each of its brakes."""

from dataclasses import replace
from typing import Any

import pytest

from concur.controllers import make_controller
from concur.signals import AgentView, CallView, Snapshot
from tests.helpers import make_snapshot

POOL_TOKENS = 16_000


def agent(number: int, tokens: int, steps: int, **fields: Any) -> AgentView:
    given = {"admitted_s": 0.0, "holds_slot": True, "steps_done": steps, "context_tokens": tokens}
    return AgentView(f"a{number}", number, 0.0, **(given | fields))


def reading(time_s: float, agents: list[AgentView], **fields: Any) -> Snapshot:
    """An engine with a pool of 16,000 tokens in blocks of two, so that a half block is one token."""
    given: dict[str, Any] = {"num_gpu_blocks": 8001, "block_size": 2, "num_requests_running": 1}
    return make_snapshot(time_s, agents=tuple(agents), **(given | fields))


def law(**params: Any) -> Any:
    return make_controller("hybrid", **{"initial_window": 4, "interval_s": 10.0} | params)


def cohort(tokens: int, steps: int, **fields: Any) -> list[AgentView]:
    return [agent(number, tokens, steps, **fields) for number in range(4)]


def calls(tokens: int = 399, index: int = 0, kept: int = 0) -> tuple[CallView, ...]:
    """One call of each of four agents, of 100 output tokens."""
    return tuple(CallView(f"a{n}", index, 20.0, None, tokens - 100, 100, kept, None) for n in range(4))


def test_the_first_reading_knows_nothing_and_moves_nothing() -> None:
    assert law().update(reading(10.0, []), active=4) == 4


def test_the_bound_by_hand() -> None:
    hybrid = law()
    hybrid.update(reading(10.0, cohort(0, 0), generation_tokens=1), active=4)
    # Ten seconds later each of four has made one call and grown to 399 tokens (+ 1 for the half block).
    after = reading(
        20.0,
        cohort(399, 1),
        generation_tokens=401,  # 400 generated
        prefix_cache_queries_tokens=1196,  # all of it new: 4 * 399 - 400
        calls=calls(),
    )
    assert hybrid.update(after, active=4) == 8  # four calls open four slots
    state = hybrid.log_state()
    assert state["growth_tokens"] == 399
    # Idle for 4 agents * 10 s over 4 calls = 10 s of tool wait; (400 + 1196) / 10 tokens a second; twice.
    assert state["allocated_tokens"] == pytest.approx(2 * 10 * 159.6)
    # Net growth (1600 - 4 * 1) / 10 s over one interval, for no call runs.
    assert state["ahead_tokens"] == pytest.approx(159.6 * 10)
    assert state["per_agent_tokens"] == 400
    assert state["lifelong_tokens"] == 2 * 399  # Lindy: nobody has left
    assert state["fit"] == pytest.approx((POOL_TOKENS - 3192 - 1596) / 400)
    assert state["sustained"] == pytest.approx((POOL_TOKENS - 3192) / 798)


def grown(hybrid: Any, *, tokens: int = 399, **fields: Any) -> int:
    """The reading of the test above, with changes, after its first one."""
    agents = fields.pop("agents", cohort(tokens, 1))
    hybrid.update(reading(10.0, cohort(0, 0), generation_tokens=1), active=4)
    active = fields.pop("active", 4)
    given = {"generation_tokens": 401, "prefix_cache_queries_tokens": 1196, "calls": calls(tokens)} | fields
    return int(hybrid.update(reading(20.0, agents, **given), active=active))


def test_an_overfull_ledger_pauses_down_to_what_fits() -> None:
    hybrid = law()
    assert grown(hybrid, tokens=4999, prefix_cache_queries_tokens=4 * 4999 - 400) == 1
    assert grown(law(tool_waits=0.0), tokens=3199, prefix_cache_queries_tokens=12_396) == 1  # F alone: 12,796


def test_a_shared_prefix_is_counted_once() -> None:
    shared = {"prefix_group": "g", "shared_prefix_tokens": 300}
    alone, together = law(), law()
    grown(alone)
    grown(together, agents=cohort(699, 1, **shared))
    assert together.log_state()["per_agent_tokens"] == alone.log_state()["per_agent_tokens"]
    lost = alone.log_state()["fit"] - together.log_state()["fit"]
    assert lost == pytest.approx(300 / 400)


def test_strangers_in_the_pool_are_seen_in_the_usage_gauge() -> None:
    hybrid = law()
    grown(hybrid, kv_cache_usage_frac=0.5)
    assert hybrid.log_state()["stranger_tokens"] == 8000
    alone = law()
    grown(alone)
    assert alone.log_state()["fit"] - hybrid.log_state()["fit"] == pytest.approx(8000 / 400)
    ours = [replace(view, is_in_step=True) for view in cohort(399, 1)]
    hybrid = law()
    grown(hybrid, kv_cache_usage_frac=0.5, agents=ours)
    assert hybrid.log_state()["stranger_tokens"] == 8000 - 4 * (400 + 399)  # and what the calls will add


def test_misses_shrink_the_bound() -> None:
    hit, missed = law(), law()
    grown(hit)
    grown(missed, prefix_cache_queries_tokens=2196)
    assert missed.log_state()["fit"] < hit.log_state()["fit"]
    assert missed.log_state()["shortfall_frac"] == pytest.approx(1000 / 2196)


def test_what_a_cut_history_needs_is_no_shortfall() -> None:
    """Contexts stay at 399, but each prompt keeps 100 of them and brings 199."""
    hybrid = law()
    grown(hybrid)
    cut = reading(
        30.0,
        cohort(399, 2),
        generation_tokens=801,
        prefix_cache_queries_tokens=2 * 1196,
        prefix_cache_hits_tokens=400,
        calls=calls(399, 1, kept=100),
    )
    hybrid.update(cut, active=4)
    assert hybrid.log_state()["shortfall_frac"] == 0


def test_a_life_is_its_first_prompt_and_half_of_what_it_grows_by() -> None:
    hybrid = law(window_s=1000.0)
    grown(hybrid)
    later = reading(
        30.0,
        cohort(499, 2),
        generation_tokens=801,
        prefix_cache_queries_tokens=1196 + 4 * 399,
        prefix_cache_hits_tokens=4 * 399,
        calls=calls(499, 1, kept=399),
    )
    hybrid.update(later, active=4)
    assert hybrid.log_state()["lifelong_tokens"] == 399 + 100 * 2  # two calls done, two to come


@pytest.mark.parametrize(
    "distress", [{"prefix_cache_queries_tokens": 1196 * 2}, {"num_requests_waiting": 1}, {"active": 5}]
)
def test_no_growth_in_distress_nor_while_a_cut_drains(distress: dict[str, Any]) -> None:
    assert grown(law(), **distress) == 4


def test_lasting_distress_takes_the_pool_for_smaller_and_quiet_gives_it_back() -> None:
    hybrid = law(window_s=20.0)
    tokens = 100

    def tick(number: int, waiting: int) -> float:
        agents = cohort(tokens, number)
        hybrid.update(
            reading(10.0 * number, agents, generation_tokens=number, num_requests_waiting=waiting),
            active=hybrid.window,
        )
        return float(hybrid.log_state().get("usable_frac", 1.0))

    fractions = [tick(number, waiting=9) for number in range(1, 9)]
    assert fractions == pytest.approx([1, 1, 1, 0.9, 0.9, 0.81, 0.81, 0.729])
    assert tick(9, waiting=0) == pytest.approx(0.729 * 1.01)
    per_agent_tokens = tokens + 1
    assert hybrid.log_state()["fit"] == pytest.approx(0.73629 * POOL_TOKENS / per_agent_tokens, rel=0.01)


def test_who_holds_no_slot_is_not_in_the_ledger() -> None:
    hybrid = law()
    paused = [replace(view, agent_id=f"p{view.index}", holds_slot=False) for view in cohort(399, 1)]
    grown(hybrid, agents=[*cohort(399, 1), *paused])
    assert hybrid.log_state()["per_agent_tokens"] == 400
    assert hybrid.log_state()["ahead_tokens"] == pytest.approx(159.6 * 10)


def test_stale_readings_freeze_it() -> None:
    hybrid = law()
    assert grown(hybrid) == 8
    overfull = reading(20.0, cohort(9999, 2), generation_tokens=500)
    assert hybrid.update(overfull, active=4) == 8
    assert hybrid.log_state() == {"is_stale": 1}


def test_an_agent_that_waits_too_long_opens_a_slot_of_its_own_for_as_long_as_it_waits() -> None:
    hybrid = law(max_wait_s=15.0)
    late = [AgentView(f"w{n}", 50 + n, 0.0, waiting_since_s=since_s) for n, since_s in enumerate((0, 5, 6))]
    assert grown(hybrid, tokens=4999, agents=[*cohort(4999, 1), *late], num_requests_waiting=9) == 4 + 2
    gone = reading(30.0, cohort(4999, 2), generation_tokens=500, prefix_cache_queries_tokens=1196)
    assert hybrid.update(gone, active=4) == 1


def test_lindys_guess_gives_way_to_what_a_turnover_has_shown() -> None:
    hybrid = law(window_s=1000.0)
    for number in range(1, 8):  # each reading all four agents are new ones that end after one call of 399
        agents = [replace(agent(n, 399, 5), agent_id=f"{number}-{n}", index=4 * number + n) for n in range(4)]
        hybrid.update(
            reading(
                10.0 * number,
                agents,
                generation_tokens=400 * number,
                prefix_cache_queries_tokens=1196 * number,
                calls=calls(),
            ),
            active=4,
        )
    assert hybrid.log_state()["lifelong_tokens"] == 399  # per call, after it
