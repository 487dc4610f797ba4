"""The log of the scripted server, and how imported agents are held against it."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from concur.sim.traces.checks import contexts
from concur.sim.traces.format import TraceAgent

RECORDINGS: Final = Path(__file__).parent / "recordings"
TOLERANCE_S: Final = 0.5
STARTING_S: Final = 1.0
"""What a client that starts anew for a person's next prompt takes more, before its first request."""

Rows = Sequence[Mapping[str, Any]]
"""Calls of an agent, as the server saw them."""


def scripted_rows(client: str) -> list[dict[str, Any]]:
    """Return the scripted calls in the order they came in."""
    lines = (RECORDINGS / client / "server.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["is_scripted"]]
    return sorted(rows, key=lambda row: float(row["received_s"]))


def by_agent(rows: Rows, agent_of: Callable[[Mapping[str, Any]], str]) -> dict[str, Rows]:
    """Return the calls of each agent."""
    names = dict.fromkeys(map(agent_of, rows))
    return {name: [row for row in rows if agent_of(row) == name] for name in names}


def assert_agrees(agents: Sequence[TraceAgent], rows: Mapping[str, Rows]) -> None:
    """Check the tokens of all calls, the waits between them and the starts of sub-agents."""
    assert {agent.agent_id for agent in agents} == rows.keys()
    for agent in agents:
        own = rows[agent.agent_id]
        prompts = [prompt for prompt, _ in contexts(agent)]
        assert prompts == [row["prompt_tokens"] for row in own]
        assert [step.output_tokens for step in agent.steps] == [row["output_tokens"] for row in own]
        gaps_s = [after["received_s"] - before["finished_s"] for before, after in pairwise(own)]
        waits_s = [_wait_s(agent, number, agents, rows) for number in range(len(gaps_s))]
        for wait_s, gap_s, step in zip(waits_s, gaps_s, agent.steps, strict=False):
            tolerance_s = TOLERANCE_S + (0.0 if step.user_wait_s is None else STARTING_S)
            assert wait_s == pytest.approx(gap_s, abs=tolerance_s)
        if agent.parent_step is not None:
            started_s = own[0]["received_s"] - rows[agent.parent or ""][agent.parent_step]["finished_s"]
            assert agent.spawn_delay_s == pytest.approx(started_s, abs=TOLERANCE_S)


def _wait_s(agent: TraceAgent, number: int, agents: Sequence[TraceAgent], rows: Mapping[str, Rows]) -> float:
    """Return how long an agent waits after a step, if its children take as long as they took."""
    step = agent.steps[number]
    ended_s: list[float] = [
        rows[child.agent_id][-1]["finished_s"] - rows[agent.agent_id][number]["finished_s"]
        for child in agents
        if child.parent == agent.agent_id and child.parent_step == number and child.joins
    ]
    return max([step.tool_latency_s or 0.0, *ended_s]) + (step.user_wait_s or 0.0)
