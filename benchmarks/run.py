"""`make bench`: CPU seconds of a simulation, against the reference and, if installed, vLLM's own scheduler.

Every figure is CPU time of one process with record and metrics on, figures off; the minimum of several runs.
Ratios compare sides of the same run on the same machine.
"""

import resource
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from benchmarks.workloads import Benchmark, Case, closed_loop, many_agents, open_loop
from sim.driver import simulate
from sim.engine.engine import StepScheduler, build_reference_scheduler
from validate.errors import VllmMissingError
from validate.vllm_scheduler import VllmScheduler, vllm_version

BENCHMARKS = (
    Benchmark("closed loop, 64 agents x 21 calls", closed_loop, "10,000 calls/s"),
    Benchmark("closed loop, contexts x10", lambda: closed_loop(contexts=10), "1.2x the CPU time"),
    Benchmark("closed loop, outputs x10", lambda: closed_loop(outputs=10), "1.5x the CPU time"),
    Benchmark("open loop, 3,000 requests", open_loop, "15,000 calls/s"),
    Benchmark("10,000 agents x 20 calls, cap 200", many_agents, "40 s"),
)
MOST_CALLS_FOR_REFERENCE = 5_000
MOST_CALLS_FOR_VLLM = 2_000


def main() -> None:
    """Print the table."""
    console = Console()
    table = Table(title="CPU seconds of one simulation", caption=_caption())
    table.add_column("workload")
    for heading in ("calls", "CPU s", "calls/s", "figure", "reference", "vLLM's scheduler", "peak MB"):
        table.add_column(heading, justify="right")
    for benchmark in BENCHMARKS:
        table.add_row(benchmark.name, *_row(benchmark))
    console.print(table)


def _row(benchmark: Benchmark) -> list[str]:
    case = benchmark.build()
    num_calls = sum(len(agent.steps) for agent in case[1].agents)
    few = num_calls <= MOST_CALLS_FOR_REFERENCE
    ours_s = _cpu_s(case, lambda: None, repeats=5 if few else 1)
    reference = vllm = "-"
    if few:
        reference = _ratio(_cpu_s(case, lambda: build_reference_scheduler(case[0].engine)), ours_s)
    if num_calls <= MOST_CALLS_FOR_VLLM and _has_vllm():
        vllm = _ratio(_cpu_s(case, lambda: VllmScheduler(case[0].engine, case[1])), ours_s)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    speed = f"{num_calls / ours_s:,.0f}"
    return [f"{num_calls:,}", f"{ours_s:.3f}", speed, benchmark.figure, reference, vllm, f"{peak_mb:.0f}"]


def _cpu_s(case: Case, scheduler: Callable[[], StepScheduler | None], *, repeats: int = 1) -> float:
    seconds = []
    for _ in range(repeats):
        begin_s = time.process_time()
        simulate(*case, scheduler=scheduler())
        seconds.append(time.process_time() - begin_s)
    return min(seconds)


def _ratio(seconds: float, ours_s: float) -> str:
    return f"{seconds:.2f} s, {seconds / ours_s:.1f}x"


def _has_vllm() -> bool:
    try:
        vllm_version()
    except VllmMissingError:
        return False
    return True


def _caption() -> str:
    return (
        f"vLLM {vllm_version()}" if _has_vllm() else "vLLM is not installed here: `make bench-vllm` compares"
    )


if __name__ == "__main__":
    main()
