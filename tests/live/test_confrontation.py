"""A short `make validate`: thrashing on a real vLLM server, as the simulator says.

`make test-vllm` runs it by itself, after the others: agents' waits pass in real time, so a server that
shares its cores with other tests is another server. Even so a CI machine measures no durations; what is held
against the engine here are hit rates and what follows from them. Makespans are for `make validate`, on a
quiet machine.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIO = Path(__file__).parents[2] / "validate" / "scenarios" / "cpu_tiny.toml"
SMALL = ("workload.num_agents=24", "engine.num_gpu_blocks=700", "step_time.profile=cpu_tiny")


@pytest.mark.vllm
@pytest.mark.alone
def test_no_control_thrashes_and_a_cap_does_not_as_simulated(tmp_path: Path) -> None:
    out = tmp_path / "worlds"
    overrides = [text for key in SMALL for text in ("--set", key)]
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "concur.cli",
        "validate",
        "run",
        str(SCENARIO),
        *overrides,
    ]
    command += ["--controllers", "none", "agent_cap=8", "--out", str(out), "--no-judge", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    none, capped = (result["policies"][label] for label in ("none", "agent_cap=8"))
    assert none["hit_rate"]["live"] < 0.6 < 0.8 < capped["hit_rate"]["live"]
    assert abs(none["hit_rate"]["error"]) < 0.12  # who is evicted when depends on durations
    assert abs(capped["hit_rate"]["error"]) < 0.03
    timeline_is_there = [path.parent.name for path in sorted(out.glob("live/*/*/timeline.parquet"))]
    assert timeline_is_there == ["run-0", "run-0"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(again.stdout) == result, "complete runs are not repeated"
