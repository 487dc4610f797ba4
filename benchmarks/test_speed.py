"""One workload on one engine, timed; `benchmarks.run` runs each in a process of its own."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from benchmarks.workloads import BENCHMARKS, Case
from concur.sim.engine.core import EngineCore
from concur.sim.world.cores import core_of, reference_core_of
from concur.sim.world.simulate import simulate


def _vllm(case: Case) -> EngineCore:
    from concur.validate.parity.parity import stepped  # vLLM's memory is not ours
    from concur.validate.parity.vllm_scheduler import VllmScheduler

    return stepped(case[0], VllmScheduler(case[0].engine, case[1]))


SIDES: Final[Mapping[str, Callable[[Case], EngineCore]]] = {
    "fast": lambda case: core_of(case[0]),
    "reference": lambda case: reference_core_of(case[0]),
    "vllm": _vllm,
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_speed(benchmark: Any, name: str, side: str) -> None:
    """Time full runs, each with a fresh engine."""
    case = BENCHMARKS[name].build()
    repeats = BENCHMARKS[name].repeats if side == "fast" else 1

    def fresh_engine() -> tuple[tuple[EngineCore], dict[str, Any]]:
        return (SIDES[side](case),), {}

    record = benchmark.pedantic(
        lambda core: simulate(*case, core=core),
        setup=fresh_engine,
        rounds=repeats,
        warmup_rounds=int(repeats > 1),
    )
    benchmark.extra_info["num_calls"] = record.metrics["num_requests"]
    benchmark.extra_info["num_steps"] = record.metrics["num_engine_steps"]
