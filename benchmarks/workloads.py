"""The workloads of the speed figures, drawn once from fixed seeds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from concur.sim.scenario.build import build_workload
from concur.sim.scenario.engine_texts import engine_variants
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload

Case = tuple[Scenario, Workload]
WEKA: Final = Path(__file__).parents[1] / "examples" / "traces" / "weka.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One row of the table: what is run, what is aimed at, and the sides it is run on.

    `repeats` for the fast sides; the reference and vLLM's scheduler run once, and not at all on the large
    ones, on which they take minutes. Dynamo's mocker has no cap on sessions: left out where there is one.
    """

    title: str
    build: Callable[[], Case]
    figure: str
    repeats: int = 5
    sides: tuple[str, ...] = ("fast", "compiled", "reference", "vllm", "dynamo")


def closed_loop(*, contexts: int = 1, outputs: int = 1) -> Case:
    """64 agents x 21 calls: 2,048-token start, responses 100-300, tool outputs 100-900, waits exp(3 s).

    `contexts` multiplies the start and the tool outputs, `outputs` the responses.
    """
    workload = _looping_agents(64, 21, contexts=contexts, outputs=outputs)
    return _scenario(30_000 * contexts * outputs), workload


def ahead(case: Case) -> Case:
    """Return the case under asynchronous scheduling, vLLM's default on GPUs."""
    scenario, workload = case
    engine = scenario.engine.model_copy(update={"async_scheduling": True})
    return scenario.model_copy(update={"engine": engine}), workload


def on_sglang(case: Case) -> Case:
    """Return the case on an SGLang with the same pool."""
    scenario, workload = case
    return engine_variants(scenario, ["sglang"])["sglang"], workload


def open_loop() -> Case:
    """3,000 requests of 2,048 prompt and 200 output tokens, Poisson 4/s."""
    rng = np.random.default_rng(0)
    arrivals_s = np.cumsum(rng.exponential(0.25, 3000))
    step = StepSpec(0, 2048, 200, 0.0)
    agents = tuple(
        AgentSpec(f"request-{index}", index, None, 0, float(arrival_s), (step,))
        for index, arrival_s in enumerate(arrivals_s)
    )
    return _scenario(30_000), Workload(agents, source="open loop")


def thousand_agents() -> Case:
    """1,000 agents x 20 calls on an H100 profile, in a pool that holds a quarter of them at their end."""
    scenario = _scenario(200_000, step_time={"profile": "h100-sxm_qwen3-32b_tp8"})
    return scenario, _looping_agents(1000, 20)


def many_agents() -> Case:
    """10,000 agents x 20 calls behind a cap of 200."""
    scenario = _scenario(200_000, controller={"kind": "agent_cap", "cap": 200})
    return scenario, _looping_agents(10_000, 20)


def weka() -> Case:
    """The fresh Claude Code sessions of the trace that fit 262,144 tokens, cap 24, a pool of 1.5M tokens."""
    scenario = _scenario(
        1_500_000 // 16,
        workload={"trace": str(WEKA), "num_agents": 0, "max_context_tokens": 262_144},
        controller={"kind": "agent_cap", "cap": 24},
    )
    return scenario, build_workload(scenario)


_OURS: Final = ("fast", "compiled")
_SYNC: Final = ("fast", "compiled", "reference", "vllm")
_SGLANG: Final = ("fast", "compiled", "reference")

BENCHMARKS: Final[Mapping[str, Benchmark]] = MappingProxyType(
    {
        "closed": Benchmark("closed loop, 64 agents x 21 calls", closed_loop, "Dynamo 2x (5x)\nvLLM (300x)"),
        "async": Benchmark(
            "the same under async scheduling", lambda: ahead(closed_loop()), "1.3x the time", sides=_SYNC
        ),
        "sglang": Benchmark(
            "the same on SGLang, overlapped",
            lambda: on_sglang(ahead(closed_loop())),
            "10,000 calls a CPU s",
            sides=_SGLANG,
        ),
        "contexts": Benchmark("the same, contexts x10", lambda: closed_loop(contexts=10), "1.5x the time"),
        "outputs": Benchmark("the same, outputs x10", lambda: closed_loop(outputs=10), "1.3x the time"),
        "open": Benchmark("open loop, 3,000 requests", open_loop, "Dynamo 1.4x (3x)\nvLLM (120x)"),
        "weka": Benchmark("471 Claude Code sessions, cap 24", weka, "5.5 s (2 s, 250 MB)", 2, _OURS),
        "agents": Benchmark("10,000 agents x 20 calls, cap 200", many_agents, "15 s (4 s, 350 MB)", 2, _OURS),
    }
)


def _looping_agents(num_agents: int, num_calls: int, *, contexts: int = 1, outputs: int = 1) -> Workload:
    rng = np.random.default_rng(0)
    agents = []
    for index in range(num_agents):
        steps: list[StepSpec] = []
        history = 0
        for call in range(num_calls):
            new = (2048 if call == 0 else int(rng.integers(100, 901))) * contexts
            response = int(rng.integers(100, 301)) * outputs
            steps.append(StepSpec(history, new, response, float(rng.exponential(3.0))))
            history = steps[-1].context_tokens
        agents.append(AgentSpec(f"agent-{index}", index, None, 0, 0.0, tuple(steps)))
    return Workload(tuple(agents), source="closed loop")


def _scenario(num_gpu_blocks: int, **sections: dict[str, object]) -> Scenario:
    return parse_scenario(
        {
            "workload": {"generator": "react", "num_agents": 1},
            "engine": {"num_gpu_blocks": num_gpu_blocks, "max_model_len": 1 << 20},
            "record": {"timeline_interval_s": 5.0},
        }
        | sections
    )
