"""Parity on random worlds; a world that differs is made as small as it gets."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from concur.validate.parity.explain import covered, explain_difference
from concur.validate.parity.parity import Coverage, ParityResult, run_parity
from concur.validate.parity.worlds import World, worlds


@dataclass(frozen=True, slots=True)
class FuzzResult:
    """How many worlds were identical, what they covered, and the smallest one found that was not."""

    num_worlds: int
    coverage: Coverage
    failure: tuple[World, ParityResult] | None


class _DifferenceError(AssertionError):
    """Tell Hypothesis that a world is worth shrinking."""


def fuzz(
    num_worlds: int,
    seed_number: int,
    *,
    drawn_from: Callable[[], SearchStrategy[World]] = worlds,
    on_progress: Callable[[], None] = lambda: None,
) -> FuzzResult:
    """Compare `num_worlds` random worlds with vLLM's scheduler, reproducibly from the seed.

    Raises
    ------
    VllmMissingError
        If vLLM cannot be imported.
    """
    passed: list[Coverage] = []
    failed: list[tuple[World, ParityResult]] = []

    def is_identical(world: World) -> bool:
        result = run_parity(*world)
        if result.difference is None:
            passed.append(result.coverage)
        else:
            failed.append((world, result))
        return result.difference is None

    search(is_identical, drawn_from(), num_worlds, seed_number, on_progress=on_progress)
    return FuzzResult(len(passed), total_coverage(passed), failed[-1] if failed else None)


def search(
    is_identical: Callable[[World], bool],
    strategy: SearchStrategy[World],
    num_worlds: int,
    seed_number: int,
    *,
    on_progress: Callable[[], None],
) -> None:
    """Draw worlds until one is not identical, and then smaller ones; the last that is not is the smallest."""
    has_failed = False

    @seed(seed_number)
    @settings(
        max_examples=num_worlds,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def compare(world: World) -> None:
        nonlocal has_failed
        if not is_identical(world):
            has_failed = True
            raise _DifferenceError
        if not has_failed:
            on_progress()

    with suppress(_DifferenceError):  # the last failure is the smallest: Hypothesis runs it once more
        compare()


def total_coverage(parts: list[Coverage]) -> Coverage:
    """Add up what several comparisons exercised."""
    names = Coverage.__dataclass_fields__
    return Coverage(**{name: sum(getattr(part, name) for part in parts) for name in names})


def explain_fuzz(result: FuzzResult, version: str) -> str:
    """Say how many random worlds were identical, or show the smallest that was not."""
    if result.failure is None:
        counts = f"{result.num_worlds} random worlds, {result.coverage.num_steps:,} steps"
        return f"{counts} identical to vLLM {version}\n{covered(result.coverage)}"
    (scenario, workload), outcome = result.failure
    assert outcome.difference is not None
    engine = "\n".join(f"  {name} = {value}" for name, value in scenario.engine.model_dump().items())
    agents = "\n".join(f"  {agent}" for agent in workload.agents)
    return (
        f"{explain_difference(outcome.difference, version)}\n\nthe smallest such world found:\n"
        f"controller: {scenario.controller.label}\nengine:\n{engine}\nagents:\n{agents}"
    )


def fuzz_json(result: FuzzResult, version: str) -> dict[str, Any]:
    """Return a fuzz run for machines."""
    return {
        "vllm_version": version,
        "identical": result.failure is None,
        "num_worlds": result.num_worlds,
        "coverage": asdict(result.coverage),
        "failure": None if result.failure is None else _failure_json(*result.failure),
    }


def _failure_json(world: World, outcome: ParityResult) -> dict[str, Any]:
    scenario, workload = world
    assert outcome.difference is not None
    return {
        "scenario": scenario.model_dump(mode="json"),
        "agents": [asdict(agent) for agent in workload.agents],
        "difference": asdict(outcome.difference),
    }
