"""Other simulators on the workloads of the speed figures: Dynamo's mocker, by its Python binding.

`ai-dynamo-runtime` 1.6.1 (PyPI) is a simulator of vLLM's scheduler in Rust; `make bench-peers` installs it.
It reads a Mooncake trace with sessions: `session_id`, `timestamp` and `delay` in ms, and an id for each block
of a prompt. Its step time is its own, it keeps no table of calls and has no control loop: a ratio compares
what a user waits for, not the same work.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from concur.sim.scenario.scenario import Scenario
from concur.sim.workload.spec import Workload

DYNAMO: Final = "ai-dynamo-runtime"


def dynamo_replay(scenario: Scenario, workload: Workload, folder: Path) -> Callable[[], int]:
    """Return a replay of the workload by Dynamo's mocker; a call of it returns the number of calls made."""
    return _replay(scenario, _written(scenario, workload, folder), scenario.vllm.block_size)


def reading_s(scenario: Scenario, workload: Workload, folder: Path, rounds: int) -> float:
    """Return the CPU seconds that the mocker needs to read the trace, the least of several rounds.

    A replay reads its file each time; one that ends after a microsecond does nothing else.
    """
    path = _written(scenario, workload, folder)
    replay = _replay(scenario, path, scenario.vllm.block_size, max_sim_time_ms=0.001)
    seconds = []
    for _ in range(rounds):
        begin_s = time.process_time()
        replay()
        seconds.append(time.process_time() - begin_s)
    return min(seconds)


def _replay(scenario: Scenario, path: Path, block_size: int, **options: float) -> Callable[[], int]:
    from dynamo._core import run_mocker_trace_replay

    engine = {
        "num_gpu_blocks": scenario.vllm.num_gpu_blocks,
        "block_size": block_size,
        "max_num_seqs": scenario.vllm.max_num_seqs,
        "max_num_batched_tokens": scenario.vllm.max_num_batched_tokens,
        "enable_prefix_caching": True,
    }
    settings: dict[str, Any] = {"trace_block_size": block_size, "capture_planner_details": False}

    def replay() -> int:
        result = run_mocker_trace_replay([str(path)], {"engine": engine}, **settings, **options)
        return int(result.summary["completed_requests"])

    return replay


def _written(scenario: Scenario, workload: Workload, folder: Path) -> Path:
    path = folder / "mooncake.jsonl"
    if not path.exists():
        with path.open("w") as file:
            file.writelines(
                json.dumps(row) + "\n" for row in mooncake_rows(workload, scenario.vllm.block_size)
            )
    return path


def mooncake_rows(workload: Workload, block_size: int) -> Iterator[dict[str, object]]:
    """Yield the calls of a workload without shared prefixes as rows of a Mooncake trace with sessions."""
    num_ids = 0
    for agent in workload.agents:
        hash_ids: list[int] = []
        timing: dict[str, float] = {"timestamp": agent.arrival_s * 1000}
        for step in agent.steps:
            num_blocks = math.ceil(step.prompt_tokens / block_size)
            missing = max(0, num_blocks - len(hash_ids))
            hash_ids.extend(range(num_ids, num_ids + missing))
            num_ids += missing
            yield {
                "session_id": agent.agent_id,
                "input_length": step.prompt_tokens,
                "output_length": step.output_tokens,
                "hash_ids": hash_ids[:num_blocks],
                **timing,
            }
            timing = {"delay": step.tool_latency_s * 1000}
