"""How much CPU time a law's decision takes with 1,000 agents: `python -m benchmarks.decisions`.

A law runs the closed loop of 1,000 agents x 20 calls on an H100 profile, in a pool that holds a quarter of
them at their end; what is timed are its `update`s alone. `twin` plans every ten seconds and more: its longest
decision is a plan.
"""

import time
from typing import Final, cast

from rich.console import Console
from rich.table import Table

from benchmarks.workloads import thousand_agents
from concur.controllers import Law, make_controller
from concur.signals import Snapshot
from concur.sim.world.simulate import simulate

LAWS: Final = ("concur", "hybrid", "twin")
AIM_MS: Final = 10.0


class Timed:
    """Another law, and the CPU seconds of each of its decisions."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self.cpu_s: list[float] = []

    def __getattr__(self, name: str) -> object:
        """Forward what else the law has."""
        return getattr(self._law, name)

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        """Decide, and time it."""
        began_s = time.process_time()
        window = self._law.update(snapshot, active=active)
        self.cpu_s.append(time.process_time() - began_s)
        return window


def main() -> None:
    """Print the table."""
    title, aim = "CPU milliseconds of a decision, 1,000 agents", f"aim: {AIM_MS:.0f} on average"
    table = Table(title=title, caption=aim)
    for heading in ("law", "decisions", "mean", "longest"):
        table.add_column(heading, justify="left" if heading == "law" else "right")
    for kind in LAWS:
        cpu_ms = decisions_cpu_ms(kind)
        mean_ms = sum(cpu_ms) / len(cpu_ms)
        table.add_row(kind, str(len(cpu_ms)), f"{mean_ms:.2f}", f"{max(cpu_ms):.1f}")
    Console().print(table)


def decisions_cpu_ms(kind: str) -> list[float]:
    """Return what each decision of a law took."""
    timed = Timed(make_controller(kind))
    simulate(*thousand_agents(), law=lambda: cast("Law", timed))
    return [1e3 * cpu_s for cpu_s in timed.cpu_s]


if __name__ == "__main__":
    main()
