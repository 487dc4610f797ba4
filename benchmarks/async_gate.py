"""What the asyncio gate costs per step: `python -m benchmarks.async_gate`.

1,000 agents make steps that do nothing but let others run; the CPU time of the process per step, gated, less
that of the same loop without a gate. Waiting costs nothing here, so what is left is what an agent pays for
being gated: asking, being woken, ending, and its share of resizes. Median, least and most of several rounds.
"""

import asyncio
import statistics
import time
from contextlib import suppress
from typing import Final

from rich.console import Console
from rich.table import Table

from concur.gate import AgentGate, Gate, RequestGate
from concur.live.gate import AsyncGate

NUM_AGENTS: Final = 1000
NUM_STEPS: Final = 30
NUM_ROUNDS: Final = 7
RESIZE_S: Final = 0.005


async def free() -> None:
    """Run the loop without a gate."""

    async def agent() -> None:
        for _ in range(NUM_STEPS):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(NUM_AGENTS):
            group.create_task(agent())


async def gated(gate: Gate, windows: tuple[int, ...]) -> None:
    """Run the loop behind a gate whose window cycles through `windows`."""
    shell = AsyncGate(gate)

    async def agent(number: int) -> None:
        async with shell.agent(f"a{number}") as handle:
            for index in range(NUM_STEPS):
                async with handle.step() as step:
                    await asyncio.sleep(0)
                    step.context_tokens = index
                await asyncio.sleep(0)

    async def resizing() -> None:
        while True:
            for window in windows:
                shell.resize(window)
                await asyncio.sleep(RESIZE_S)

    changing = asyncio.create_task(resizing())
    async with asyncio.TaskGroup() as group:
        for number in range(NUM_AGENTS):
            group.create_task(agent(number))
    changing.cancel()
    with suppress(asyncio.CancelledError):
        await changing


def costs_us(kind: type[Gate], windows: tuple[int, ...]) -> list[float]:
    """Return the microseconds of CPU time per step that the gate costs, one value per round."""
    costs = []
    for _ in range(NUM_ROUNDS):
        begin_s = time.process_time()
        asyncio.run(free())
        middle_s = time.process_time()
        asyncio.run(gated(kind(windows[0]), windows))
        end_s = time.process_time()
        costs.append(1e6 * ((end_s - middle_s) - (middle_s - begin_s)) / (NUM_AGENTS * NUM_STEPS))
    return costs


def main() -> None:
    """Print the table."""
    table = Table(title=f"The asyncio gate, {NUM_AGENTS:,} agents: microseconds of CPU per step")
    table.add_column("gate")
    for heading in ("windows", "median", "least", "most"):
        table.add_column(heading, justify="right")
    for kind in (AgentGate, RequestGate):
        for windows in ((2 * NUM_AGENTS,), (64,), (64, 16, 256)):
            costs = costs_us(kind, windows)
            figures = [f"{figure:.1f}" for figure in (statistics.median(costs), min(costs), max(costs))]
            table.add_row(kind.__name__, ", ".join(map(str, windows)), *figures)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
