"""The offload tier against vLLM's own, over traces, tiers, links, overlap and model runners, step by step.

`python -m benchmarks.tier_matrix TRACE...` in the environment of `make test-vllm`: whole agents of the named
traces, as many as `NUM_AGENTS` says, where the tests shorten all five (`tests/parity/test_offloading.py`).
It prints a line a world, keeps the sums so far in `examples/results/tier_matrix.json`, and ends with 1 if a
step differs.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Final, NamedTuple

from benchmarks.result_files import RESULTS, Result, read, write
from concur.validate.parity.explain import explain_difference
from concur.validate.parity.parity import ParityResult, run_parity
from concur.validate.parity.vllm_scheduler import vllm_version
from concur.validate.parity.worlds import World
from tests.parity.scenarios import TIERS, TRACE_CASES, TraceCase, offloading, trace_world

BANDWIDTHS_BYTES_PER_S: Final = (48.5e9, 2e9)
NUM_AGENTS: Final = {"weka": 6, "tau_airline": 48, "react_hotpotqa": 64, "lmcache_miniswe": 20} | {
    "sweagent_demos": 22
}
"""Of each trace; their calls are all that the trace has."""
POOLS: Final = {"tau_airline": 1501}
"""In blocks, where it is not the starved pool of the tests."""
_SUMMED: Final = ("num_steps", "num_requests", "num_preemptions", "num_loads", "num_stores", "num_flushes")


class Cell(NamedTuple):
    """One world of a trace."""

    tier: str
    bandwidth_bytes_per_s: float
    is_async: bool
    runner: str


def cells() -> Iterator[Cell]:
    """Yield the worlds of each trace."""
    yield from map(Cell._make, product(TIERS, BANDWIDTHS_BYTES_PER_S, (False, True), ("v1", "v2")))


def name_of(case: TraceCase) -> str:
    """Return a trace's name."""
    return case.file.split(".")[0]


def world(case: TraceCase, cell: Cell) -> World:
    """Return whole agents of a trace on an engine with that tier."""
    scenario, workload = trace_world(case, "starved", is_async=cell.is_async)
    name = name_of(case)
    engine = scenario.vllm.model_copy(
        update={"num_gpu_blocks": POOLS.get(name, scenario.vllm.num_gpu_blocks)}
    )
    few = replace(workload, agents=workload.agents[: NUM_AGENTS[name]])
    return offloading(
        (scenario.model_copy(update={"engine": engine}), few),
        tier=TIERS[cell.tier],
        runner=cell.runner,
        bandwidth_bytes_per_s=cell.bandwidth_bytes_per_s,
    )


def line(name: str, cell: Cell, result: ParityResult) -> str:
    """Say in a line what a world came to."""
    covered = result.coverage
    verdict = "identical" if result.difference is None else f"DIFFERS in step {result.difference.number}"
    return (
        f"{name:16} {cell.tier:6} {cell.bandwidth_bytes_per_s / 1e9:4} GB/s "
        f"{'async' if cell.is_async else 'sync':5} {cell.runner}  {verdict}  {covered.num_steps:,} steps, "
        f"{covered.num_loads:,} loads, {covered.num_stores:,} stores, {covered.num_flushes:,} flushes"
    )


def compare(case: TraceCase) -> Iterator[Result]:
    """Yield the sums over the worlds of a trace so far, world by world."""
    row: Result = {"vllm_version": vllm_version(), "num_agents": NUM_AGENTS[name_of(case)], "num_worlds": 0}
    row |= {"num_identical": 0} | dict.fromkeys(_SUMMED, 0)
    for cell in cells():
        result = run_parity(*world(case, cell))
        print(line(name_of(case), cell, result), flush=True)
        if result.difference is not None:
            print(explain_difference(result.difference, vllm_version()), flush=True)
        covered = asdict(result.coverage)
        row["num_worlds"] += 1
        row["num_identical"] += result.difference is None
        for name in _SUMMED:
            row[name] += covered[name]
        yield row


def main(arguments: Sequence[str]) -> int:
    """Compare the named traces, or all; the exit status is 1 if a step differs, 2 for a trace unknown."""
    by_name = {name_of(case): case for case in TRACE_CASES}
    unknown = [name for name in arguments if name not in by_name]
    if unknown:
        print(f"{unknown[0]!r} but must be one of {', '.join(by_name)}", file=sys.stderr)
        return 2
    kept = read("tier_matrix") if (RESULTS / "tier_matrix.json").is_file() else {}
    are_identical = True
    for name in arguments or by_name:
        for row in compare(by_name[name]):
            kept[name] = row
            write("tier_matrix", {each: kept[each] for each in by_name if each in kept})
        are_identical &= kept[name]["num_worlds"] == kept[name]["num_identical"]
    return 0 if are_identical else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
