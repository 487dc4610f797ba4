"""One workload on one side, timed; `benchmarks.run` runs each in a process of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.peers import dynamo_replay, reading_s
from benchmarks.workloads import BENCHMARKS, Case
from concur.sim.engine.core import EngineCore
from concur.sim.world.cores import core_of, reference_core_of
from concur.sim.world.simulate import simulate

Run = Callable[[], int]
"""A run of a workload; it returns how many calls it made."""


def _simulated(core: Callable[[Case], EngineCore]) -> Callable[[Case, Path], Run]:
    def prepare(case: Case, folder: Path) -> Run:
        fresh = core(case)
        return lambda: int(simulate(*case, core=fresh).metrics["num_requests"])

    return prepare


def _vllm(case: Case) -> EngineCore:
    from concur.validate.parity.parity import stepped  # vLLM's memory is not ours
    from concur.validate.parity.vllm_scheduler import VllmScheduler

    return stepped(case[0], VllmScheduler(case[0].vllm, case[1]))


SIDES: Final[Mapping[str, Callable[[Case, Path], Run]]] = {
    "fast": _simulated(lambda case: core_of(case[0])),
    "reference": _simulated(lambda case: reference_core_of(case[0])),
    "vllm": _simulated(_vllm),
    "dynamo": lambda case, folder: dynamo_replay(*case, folder),
}
_ONCE: Final = ("reference", "vllm")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_speed(benchmark: Any, name: str, side: str, tmp_path: Path) -> None:
    """Time full runs, each with a fresh engine."""
    case = BENCHMARKS[name].build()
    repeats = 1 if side in _ONCE else BENCHMARKS[name].repeats
    num_calls = benchmark.pedantic(
        lambda run: run(),
        setup=lambda: ((SIDES[side](case, tmp_path),), {}),
        rounds=repeats,
        warmup_rounds=int(repeats > 1),
    )
    benchmark.extra_info["num_calls"] = num_calls
    benchmark.extra_info["reading_s"] = reading_s(*case, tmp_path, repeats) if side == "dynamo" else 0.0
