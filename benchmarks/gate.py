"""`make bench-gate BASE=REVISION`: find out whether this tree is slower than that one.

Paired rounds: both trees run the same cases one right after the other, in alternating order, so that what
slows the machine slows both. A case fails only if this tree needs more than 10 % *and* more than 100 ms of
CPU time longer in at least 4 of 5 rounds. The cases are this tree's, run by either tree's simulator.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CASES: Final = {"closed": 8, "contexts": 6, "outputs": 6, "open": 4}  # and how many runs make one measurement
NUM_ROUNDS: Final = 5
MOST_SLOWER_ROUNDS: Final = 3
SLACK_FRAC: Final = 0.10
SLACK_S: Final = 0.100

_MEASURE: Final = """
import sys, time
from benchmarks.workloads import BENCHMARKS
from concur.sim.world.simulate import simulate
case = BENCHMARKS[sys.argv[1]].build()
simulate(*case)
begin_s = time.process_time()
for _ in range(int(sys.argv[2])):
    simulate(*case)
print(time.process_time() - begin_s)
"""


def is_slower(base_s: Sequence[float], head_s: Sequence[float]) -> bool:
    """Tell whether the head is slower than the base beyond both bounds in too many rounds."""
    pairs = zip(base_s, head_s, strict=True)
    slower = sum(head > base * (1 + SLACK_FRAC) and head > base + SLACK_S for base, head in pairs)
    return slower > MOST_SLOWER_ROUNDS


def main() -> None:
    """Compare with the revision on the command line; exit status 1 if a case is slower."""
    head = Path.cwd()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", base, sys.argv[1]], check=True)
        try:
            for case, num_runs in CASES.items():
                base_s, head_s = _paired(base, head, case, num_runs)
                failed |= is_slower(base_s, head_s)
                print(_verdict(case, base_s, head_s), flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", base], check=True)
    sys.exit(int(failed))


def _paired(base: Path, head: Path, case: str, num_runs: int) -> tuple[list[float], list[float]]:
    seconds: dict[Path, list[float]] = {base: [], head: []}
    for number in range(NUM_ROUNDS):
        for tree in (base, head) if number % 2 else (head, base):
            seconds[tree].append(_cpu_s(tree, head, case, num_runs))
    return seconds[base], seconds[head]


def _cpu_s(tree: Path, head: Path, case: str, num_runs: int) -> float:
    """Time a case on the packages of `tree`, with the workloads of `head`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "benchmarks").symlink_to(head / "benchmarks")
        environment = os.environ | {"PYTHONPATH": f"{folder}:{tree}"}
        command = [sys.executable, "-P", "-c", _MEASURE, case, str(num_runs)]
        result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(result.stdout)


def _verdict(case: str, base_s: Sequence[float], head_s: Sequence[float]) -> str:
    ratios = sorted(head / base for base, head in zip(base_s, head_s, strict=True))
    verdict = "SLOWER" if is_slower(base_s, head_s) else "ok"
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"{case:10} {verdict:6} head/base median {ratios[len(ratios) // 2]:.2f} of {listed}"


if __name__ == "__main__":
    main()
