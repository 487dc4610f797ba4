"""`make bench`: CPU seconds of a simulation, against the reference and, if installed, vLLM's own scheduler.

Every figure is CPU time with record and metrics on, figures off: the minimum of several rounds of
pytest-benchmark, each workload and side in a process of its own, whose peak memory it is. Ratios compare
sides of one run on one machine.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.workloads import BENCHMARKS, Benchmark
from concur.validate.errors import VllmMissingError
from concur.validate.parity.vllm_scheduler import vllm_version


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of one workload: CPU seconds of a run, its model calls, peak memory of the process."""

    cpu_s: float
    num_calls: int
    peak_mb: float


def main() -> None:
    """Print the table."""
    vllm = _vllm_version()
    caption = f"vLLM {vllm}" if vllm else "vLLM is not installed here: `make bench-vllm` compares"
    table = Table(title="CPU seconds of one simulation", caption=caption)
    table.add_column("workload")
    for heading in ("calls", "CPU s", "calls/s", "peak MB", "figure", "reference", "vLLM's scheduler"):
        table.add_column(heading, justify="right")
    for name, benchmark in BENCHMARKS.items():
        table.add_row(benchmark.title, *_row(name, benchmark, has_vllm=vllm is not None))
    Console(width=160).print(table)


def _row(name: str, benchmark: Benchmark, *, has_vllm: bool) -> list[str]:
    ours = measure(name, "fast")
    ratios = []
    for side in ("reference", "vllm"):
        if side in benchmark.sides and (side != "vllm" or has_vllm):
            theirs = measure(name, side)
            ratios.append(f"{theirs.cpu_s:.2f} s, {theirs.cpu_s / ours.cpu_s:.1f}x")
        else:
            ratios.append("-")
    speed = f"{ours.num_calls / ours.cpu_s:,.0f}"
    return [
        f"{ours.num_calls:,}",
        f"{ours.cpu_s:.3f}",
        speed,
        f"{ours.peak_mb:.0f}",
        benchmark.figure,
        *ratios,
    ]


def measure(name: str, side: str) -> Measured:
    """Run one side of a workload in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "benchmark.json")
        command = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-W", "ignore", "-o", "addopts="]
        command += ["--import-mode=importlib", f"benchmarks/test_speed.py::test_speed[{name}-{side}]"]
        command += ["--benchmark-timer=time.process_time", f"--benchmark-json={path}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{name}-{side} failed:\n{output}")
        (result,) = json.loads(path.read_text())["benchmarks"]
    return Measured(result["stats"]["min"], result["extra_info"]["num_calls"], usage.ru_maxrss / 1024)


def _vllm_version() -> str | None:
    try:
        return vllm_version()
    except VllmMissingError:
        return None


if __name__ == "__main__":
    main()
