"""Families of agents on an asyncio gate: random trees that call, wait, fork, join, give up, fail and hang."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from concur.controllers import Controller
from concur.gate import Gate
from concur.live.controlling import ControlledGate
from concur.live.gate import AsyncGate, LiveAgent
from concur.signals import Snapshot, Usage
from tests.laws.gate_watch import Watch

HANG_S = 1e6  # a tool that never returns


@dataclass
class World:
    """What happens, by one seed; `max_wait_s` is the longest that anyone waited for a turn it took."""

    rng: random.Random
    gate: AsyncGate
    num_hanging: int = 0
    num_begun: int = 0
    num_ended: int = 0
    max_wait_s: float = 0.0
    work_s: float = 0.0
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    async def agent(self, name: str, parent: LiveAgent | None, depth: int) -> None:
        """Live: some rounds of calls, each followed by a tool or by children."""
        rng = self.rng
        self.num_begun += 1
        with suppress(OSError):  # an agent that fails
            async with self.gate.agent(name, parent=parent, prefix_group=rng.choice([None, "g"])) as me:
                for number in range(rng.randrange(1, 5)):
                    await asyncio.gather(*(self.call(me) for _ in range(rng.choice([1, 1, 1, 2, 3]))))
                    if rng.random() < 0.02:
                        raise OSError("the agent fails")
                    await self.between(me, f"{name}/{number}", depth)
        self.num_ended += 1

    async def between(self, me: LiveAgent, name: str, depth: int) -> None:
        """Wait for a tool, or for children; some children go on beside their parent."""
        rng = self.rng
        kind = rng.random()
        if depth < 3 and kind < 0.35:
            await asyncio.gather(
                *(self.agent(f"{name}.{n}", me, depth + 1) for n in range(rng.randrange(1, 4)))
            )
        elif depth < 3 and kind < 0.45:
            self.tasks.append(asyncio.create_task(self.agent(f"{name}.b", me, depth + 1)))
        elif kind < 0.48 and self.num_hanging:
            self.num_hanging -= 1
            await asyncio.sleep(HANG_S)
        else:
            await self.working(rng.uniform(0.0, 4.0))

    async def call(self, me: LiveAgent) -> None:
        """Take one step; some give up waiting and ask again."""
        rng, asked_s = self.rng, self.gate.now_s()
        while True:
            patience_s = rng.choice([1e5, 1e5, 1e5, rng.uniform(1.0, 30.0)])
            turn = me.step()
            try:
                step = await asyncio.wait_for(turn.__aenter__(), patience_s)
            except TimeoutError:
                await self.working(0.5)
                continue
            break
        self.max_wait_s = max(self.max_wait_s, self.gate.now_s() - asked_s)
        await self.working(rng.uniform(0.1, 3.0))
        if rng.random() < 0.95:
            new_tokens = rng.randrange(2000)
            output_tokens = new_tokens // 4
            prompt_tokens = me.context_tokens + new_tokens - output_tokens
            step.usage = Usage(prompt_tokens, output_tokens)
        await turn.__aexit__(None, None, None)

    async def working(self, time_s: float) -> None:
        """Let time pass that no gate is to blame for."""
        self.work_s += time_s
        await asyncio.sleep(time_s)


async def run_families(
    controller: Controller, gate: Gate, *, seed: int, num_roots: int, num_hanging: int
) -> tuple[World, Watch]:
    """Run random families under a law to their end; those that hang are cancelled in the end."""
    rng, watch = random.Random(seed), Watch(gate, check_every=10)
    gate_and_loop = ControlledGate(controller, watch, engine(rng), interval_s=5.0)  # type: ignore[arg-type]
    async with gate_and_loop as shell:
        world = World(rng, shell, num_hanging=num_hanging)
        roots = [asyncio.create_task(world.agent(f"r{n}", None, 0)) for n in range(num_roots)]
        pending = {*roots}
        while pending:
            _, pending = await asyncio.wait(pending, timeout=600.0)
            pending |= {task for task in world.tasks if not task.done()}
            if not watch_moves(world) and not watch.num_asking:
                break  # who is left hangs
        for task in [*roots, *world.tasks]:
            task.cancel()
        results = await asyncio.gather(*roots, *world.tasks, return_exceptions=True)
        raise_unexpected(results)
    watch.check_empty()
    return world, watch


def watch_moves(world: World) -> bool:
    """Whether any work was done since this was last asked."""
    before, now = getattr(world, "_seen_s", None), world.work_s
    world._seen_s = now  # type: ignore[attr-defined]
    return before != now


def raise_unexpected(results: list[BaseException | None]) -> None:
    """Raise the first error that is no cancellation."""
    for result in results:
        if isinstance(result, Exception):
            raise result


def engine(rng: random.Random) -> Callable[[], object]:
    """An engine that reports anything that an engine may report."""
    sums = [0, 0, 0, 0]

    async def read() -> Snapshot:
        asked = rng.randrange(20_000)
        for index, more in enumerate(
            (asked, rng.randrange(asked + 1), rng.randrange(2000), rng.choice([0, 0, 0, 2]))
        ):
            sums[index] += more
        return Snapshot(
            time_s=asyncio.get_running_loop().time(),
            num_requests_running=rng.randrange(20),
            num_requests_waiting=rng.choice([0, 0, 0, 30]),
            kv_cache_usage_frac=rng.random(),
            prefix_cache_queries_tokens=sums[0],
            prefix_cache_hits_tokens=sums[1],
            prompt_tokens=sums[0],
            generation_tokens=sums[2],
            num_preemptions=sums[3],
            num_gpu_blocks=rng.choice([2000, 2000, 500]),
            block_size=16,
        )

    return read
