"""One workload on one engine, timed; `benchmarks.run` runs each in a process of its own."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from benchmarks.workloads import BENCHMARKS, Case
from concur.sim.world.engine import StepScheduler, build_reference_scheduler, build_scheduler
from concur.sim.world.simulate import simulate


def _vllm(case: Case) -> StepScheduler:
    from concur.validate.parity.vllm_scheduler import VllmScheduler  # its memory is not ours

    return VllmScheduler(case[0].engine, case[1])


SIDES: Final[Mapping[str, Callable[[Case], StepScheduler]]] = {
    "fast": lambda case: build_scheduler(case[0].engine),
    "reference": lambda case: build_reference_scheduler(case[0].engine),
    "vllm": _vllm,
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_speed(benchmark: Any, name: str, side: str) -> None:
    """Time full runs, each with a fresh engine."""
    case = BENCHMARKS[name].build()
    repeats = BENCHMARKS[name].repeats if side == "fast" else 1

    def fresh_engine() -> tuple[tuple[StepScheduler], dict[str, Any]]:
        return (SIDES[side](case),), {}

    record = benchmark.pedantic(
        lambda scheduler: simulate(*case, scheduler=scheduler),
        setup=fresh_engine,
        rounds=repeats,
        warmup_rounds=int(repeats > 1),
    )
    benchmark.extra_info["num_calls"] = record.metrics["num_requests"]
    benchmark.extra_info["num_steps"] = record.metrics["num_engine_steps"]
