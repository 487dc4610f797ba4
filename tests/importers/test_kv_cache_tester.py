import json
from pathlib import Path
from typing import Any

import pytest

from concur.sim.traces.format import Prefix
from tests.importers.helpers import imported, numbers, waits


def request(time_s: float, prompt: int, output: int, *blocks: int, took_s: float = 1.0) -> dict[str, Any]:
    tokens = {"in": prompt, "out": output, "hash_ids": list(blocks)}
    return {"t": time_s, "type": "n", "model": "m", "api_time": took_s} | tokens


@pytest.mark.parametrize("offset_s", [0.0, 3.0])
def test_a_session_with_a_sub_agent(tmp_path: Path, offset_s: float) -> None:
    """Times within a sub-agent count from its begin, or, shifted by it, from the session's."""
    inner = [request(offset_s, 64, 5, 1, took_s=2.0), request(offset_s + 4, 100, 5, 1, 9)]
    session = {
        "id": "t1",
        "block_size": 64,
        "tool_tokens": 40,
        "system_tokens": 20,
        "requests": [
            request(0, 128, 10, 1, 2),
            {"type": "subagent", "agent_id": "x", "t": 3.0, "requests": inner},
            request(8.5, 200, 10, 1, 2, 3),
            request(12, 200, 10, 1, 7, 8),
        ],
    }
    path = tmp_path / "t.json"
    path.write_text(json.dumps(session, indent=1))
    (parent, child), notes = imported(path)
    assert parent.prefixes == (Prefix("tools-40", 40), Prefix("tools-40-system-20", 20))
    assert numbers(parent) == [(None, 68, 10), (None, 62, 10), (64, 136, 10)]
    assert waits(parent) == [0.5, 2.5, None]
    assert (child.agent_id, child.parent_step, child.spawn_delay_s, child.joins) == ("t1/x", 0, 2.0, True)
    assert waits(child) == [2.0, None]
    assert notes.guessed == {"equally long tools and system prompts are the same ones": 1}
