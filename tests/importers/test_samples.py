"""Recordings with their right answers, where they are at hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from concur.sim.traces.format import Prefix, to_line
from tests.importers import helpers
from tests.importers.helpers import imported, waits

pytestmark = pytest.mark.skipif(not helpers.SHARED.is_dir(), reason="no samples here")


def compared(expected: Any, found: Any) -> None:
    """Check that all that is expected was found; null and absent are equal."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            compared(value, found.get(key))
    elif isinstance(expected, list):
        assert len(expected) == len(found)
        for one, other in zip(expected, found, strict=True):
            compared(one, other)
    else:
        assert expected == found


def exact(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if value is not None}


@pytest.mark.parametrize(
    "name", ["claude_code.jsonl", "codex.jsonl", "atif.json", "dynamo_request_trace.jsonl"]
)
def test_samples_have_the_steps_that_are_expected(name: str) -> None:
    path = helpers.SHARED / name
    expected = [
        json.loads(line) for line in path.with_name(f"{path.stem}.expected.jsonl").read_text().splitlines()
    ]
    agents, _ = imported(path)
    found = [json.loads(to_line(agent)) for agent in agents]
    compared(expected, found)
    for one, other in zip(expected, found, strict=True):
        assert [exact(step) for step in one["steps"]] == [exact(step) for step in other["steps"]]


def test_sessions_of_the_delta_sample_share_three_blocks() -> None:
    (first, second), _ = imported(helpers.SHARED / "aiperf_delta.jsonl")
    assert first.prefixes == second.prefixes == (Prefix("blocks-1", 3 * 512),)
    assert [step.new_prompt_tokens for step in first.steps] == [42277 - 1536, 1855]
    assert waits(first) == [12.2193, None]


def test_the_prompt_of_the_spend_log_is_whole() -> None:
    (agent,), _ = imported(helpers.SHARED / "litellm_anthropic_spend.json")
    assert agent.steps[0].new_prompt_tokens == 1284


def test_helpers_find_the_samples() -> None:
    assert isinstance(helpers.SHARED, Path)
