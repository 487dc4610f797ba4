"""Answers without `usage`: a law that adds up contexts holds, and says so."""

import pytest

from concur.controllers import make_controller
from concur.measures.usage import calls_without_usage
from concur.signals import AgentView, Departures, Snapshot
from tests.helpers import make_snapshot


def agent(number: int, *, steps: int, tokens: int) -> AgentView:
    return AgentView(
        f"a{number}", number, 0.0, admitted_s=0.0, steps_done=steps, context_tokens=tokens, holds_slot=True
    )


@pytest.mark.parametrize(
    ("agents", "departed", "expected"),
    [
        ((), Departures(), 0),
        ((agent(0, steps=0, tokens=0),), Departures(), 0),  # no call has ended
        ((agent(0, steps=2, tokens=0), agent(1, steps=1, tokens=0)), Departures(), 3),
        (
            (agent(0, steps=2, tokens=0), agent(1, steps=1, tokens=9)),
            Departures(),
            0,
        ),  # one failed, one knows
        ((agent(0, steps=0, tokens=0),), Departures(4, 4, 0, 0), 4),
        ((agent(0, steps=0, tokens=0),), Departures(4, 4, 80, 80), 0),
        ((agent(0, steps=1, tokens=0),), Departures(4, 4, 80, 80), 0),  # one failed, those who left knew
    ],
)
def test_calls_that_end_without_usage_are_counted(
    agents: tuple[AgentView, ...], departed: Departures, expected: int
) -> None:
    assert calls_without_usage(make_snapshot(agents=agents, departed=departed)) == expected


def reading(number: int, tokens: int) -> Snapshot:
    """Sixteen agents that make one call a reading, in a pool of 96,000 tokens, and a queue."""
    agents = [agent(each, steps=number, tokens=tokens if number else 0) for each in range(16)]
    queue = [AgentView(f"q{each}", 50 + each, 0.0, waiting_since_s=0.0) for each in range(900)]
    return make_snapshot(
        number + 1.0,
        agents=(*agents, *queue),
        num_gpu_blocks=6001,
        block_size=16,
        num_requests_running=16,
        generation_tokens=1600 * number,
        prompt_tokens=1600 * number,
        prefix_cache_queries_tokens=1600 * number,
        prefix_cache_hits_tokens=1600 * number,
    )


@pytest.mark.parametrize("kind", ["hybrid", "ledger"])
def test_a_law_that_gets_no_usage_holds_and_says_so(kind: str) -> None:
    law = make_controller(kind, initial_window=16, interval_s=1.0)
    for number in range(1, 60):
        assert law.update(reading(number, tokens=0), active=16) == 16
        assert law.log_state() == {"has_usage": 0}
    law.update(reading(60, tokens=160), active=16)
    assert "has_usage" not in law.log_state(), "the first answer with usage ends it"
    assert law.update(reading(61, tokens=160), active=16) > 16


def test_who_waits_too_long_gets_in_without_usage_too() -> None:
    law = make_controller("hybrid", initial_window=16, interval_s=1.0, max_wait_s=30.0)
    windows = [law.update(reading(number, tokens=0), active=16) for number in range(1, 40)]
    assert (windows[0], windows[-1]) == (16, 16 + 900)
