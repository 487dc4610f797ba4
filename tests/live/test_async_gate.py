"""The gate on asyncio: turns in the gate's order, and slots that never leak, however a task ends."""

import asyncio

import pytest

from concur.errors import GateError
from concur.gate import AgentGate, Gate, RequestGate
from concur.live.gate import AsyncGate
from tests.live.helpers import run_jumping


def is_empty(gate: Gate) -> bool:
    return (gate.active, gate.paused, gate.waiting) == (0, 0, 0)


async def agent_steps(
    gate: AsyncGate, name: str, log: list[tuple[float, str]], num_steps: int = 2, step_s: float = 1.0
) -> None:
    async with gate.agent(name) as agent:
        for _ in range(num_steps):
            async with agent.step() as step:
                log.append((gate.now_s(), name))
                await asyncio.sleep(step_s)
                step.context_tokens = 10


def test_agents_take_turns_and_a_slot_is_kept_between_two_steps() -> None:
    async def main() -> list[tuple[float, str]]:
        gate, log = AsyncGate(AgentGate(2)), list[tuple[float, str]]()
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(agent_steps(gate, name, log))
        assert is_empty(gate.gate)
        return log

    assert run_jumping(main()) == [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "c"), (3, "c")]


def test_a_shrunken_window_pauses_the_surplus_between_steps_and_growth_lets_it_resume() -> None:
    async def main() -> list[tuple[float, str]]:
        gate, log = AsyncGate(AgentGate(2)), list[tuple[float, str]]()
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(agent_steps(gate, name, log, num_steps=3))
            await asyncio.sleep(0.5)
            gate.resize(1)
            await asyncio.sleep(1.0)
            gate.resize(2)
        return log

    assert run_jumping(main()) == [(0, "a"), (0, "b"), (1, "a"), (1.5, "b"), (2, "a"), (2.5, "b")]


@pytest.mark.parametrize("kind", [AgentGate, RequestGate])
def test_an_agent_cancelled_while_it_waits_leaves_its_place(kind: type[Gate]) -> None:
    async def main() -> list[tuple[float, str]]:
        gate, log = AsyncGate(kind(1)), list[tuple[float, str]]()
        tasks = [asyncio.create_task(agent_steps(gate, name, log, num_steps=1)) for name in "abc"]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert tasks[1].cancelled()
        assert is_empty(gate.gate)
        return log

    assert run_jumping(main()) == [(0, "a"), (1, "c")]


@pytest.mark.parametrize("kind", [AgentGate, RequestGate])
def test_an_agent_cancelled_in_its_step_passes_its_slot_on_at_once(kind: type[Gate]) -> None:
    async def main() -> list[tuple[float, str]]:
        gate, log = AsyncGate(kind(1)), list[tuple[float, str]]()
        tasks = [asyncio.create_task(agent_steps(gate, name, log, num_steps=1)) for name in "ab"]
        await asyncio.sleep(0.25)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        assert is_empty(gate.gate)
        return log

    assert run_jumping(main()) == [(0, "a"), (0.25, "b")]


def test_an_agent_that_fails_passes_its_slot_on_and_its_error_is_seen() -> None:
    async def failing(gate: AsyncGate) -> None:
        async with gate.agent("bad") as agent, agent.step():
            await asyncio.sleep(0.5)
            raise OSError("tool broke")

    async def main() -> list[tuple[float, str]]:
        gate, log = AsyncGate(AgentGate(1)), list[tuple[float, str]]()
        bad = asyncio.create_task(failing(gate))
        good = asyncio.create_task(agent_steps(gate, "good", log))
        await asyncio.wait([bad, good])
        with pytest.raises(OSError, match="tool broke"):
            bad.result()
        assert is_empty(gate.gate)
        return log

    assert run_jumping(main()) == [(0.5, "good"), (1.5, "good")]


@pytest.mark.parametrize("kind", [AgentGate, RequestGate])
def test_a_turn_granted_in_the_instant_of_the_cancellation_is_not_lost(kind: type[Gate]) -> None:
    async def main() -> list[tuple[float, str]]:
        gate, log = AsyncGate(kind(1)), list[tuple[float, str]]()
        first = asyncio.create_task(agent_steps(gate, "a", log, num_steps=1))
        second = asyncio.create_task(agent_steps(gate, "b", log, num_steps=1))
        third = asyncio.create_task(agent_steps(gate, "c", log, num_steps=1))
        await asyncio.sleep(0)  # all have asked
        second.cancel()  # its wait is cancelled, but it has not run yet ...
        gate.resize(2)  # ... when the gate names it
        await asyncio.wait([first, second, third])
        assert is_empty(gate.gate)
        return log

    assert run_jumping(main()) == [(0, "a"), (0, "c")]


@pytest.mark.parametrize("kind", [AgentGate, RequestGate])
def test_an_agent_that_gave_up_waiting_may_ask_again(kind: type[Gate]) -> None:
    async def impatient(gate: AsyncGate, log: list[tuple[float, str]]) -> None:
        async with gate.agent("impatient") as agent:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5), agent.step():
                    log.append((gate.now_s(), "never"))
            await asyncio.sleep(2.0)  # a slot becomes free meanwhile: it must not be taken for it
            async with agent.step():
                log.append((gate.now_s(), "impatient"))

    async def main() -> list[tuple[float, str]]:
        gate, log = AsyncGate(kind(1)), list[tuple[float, str]]()
        async with asyncio.TaskGroup() as group:
            group.create_task(agent_steps(gate, "a", log, num_steps=1))
            group.create_task(impatient(gate, log))
            await asyncio.sleep(0)
            group.create_task(agent_steps(gate, "c", log, num_steps=1))
        assert is_empty(gate.gate)
        return log

    assert run_jumping(main()) == [(0, "a"), (1, "c"), (2.5, "impatient")]


def test_a_paused_agent_that_gave_up_waiting_gets_its_slot_back_when_there_is_one() -> None:
    gate = AgentGate(2)
    for name in "ab":
        gate.arrive(name, time_s=0.0)
        gate.request_step(name, time_s=0.0)
    gate.resize(1, time_s=1.0)
    gate.step_done("b", time_s=2.0, context_tokens=5)
    assert gate.request_step("b", time_s=3.0) == []
    gate.withdraw("b")
    assert gate.leave("a", time_s=4.0) == []  # it has a slot again, but no step begins: it does not ask
    assert (gate.active, gate.paused) == (1, 0)
    assert gate.request_step("b", time_s=5.0) == ["b"]
    with pytest.raises(GateError, match="not waiting"):
        gate.withdraw("b")


def test_an_agent_that_leaves_tells_a_task_of_its_that_still_waits() -> None:
    async def main() -> None:
        gate = AsyncGate(AgentGate(1))
        async with gate.agent("holder") as holder, holder.step():
            async with gate.agent("b") as agent:
                waiting = asyncio.create_task(agent.step().__aenter__())
                await asyncio.sleep(0)
            with pytest.raises(GateError, match="left while it waited"):
                await waiting
        assert is_empty(gate.gate)

    run_jumping(main())


def test_an_agent_has_one_step_at_a_time() -> None:
    async def main() -> None:
        gate = AsyncGate(AgentGate(1))
        async with gate.agent("a") as agent, agent.step():
            with pytest.raises(GateError, match="before its last one ended"):
                async with agent.step():
                    pass
        assert is_empty(gate.gate)

    run_jumping(main())


def test_a_thousand_agents_and_a_hundred_thousand_steps_leave_no_slot_behind() -> None:
    num_agents, num_steps, window = 1000, 110, 64
    state = {"running": 0, "most": 0, "steps": 0}

    async def agent(gate: AsyncGate, number: int) -> None:
        async with gate.agent(f"a{number}") as handle:
            for index in range(num_steps):
                async with handle.step() as step:
                    state["running"] += 1
                    state["steps"] += 1
                    state["most"] = max(state["most"], state["running"])
                    await asyncio.sleep(0)
                    step.context_tokens = index
                    state["running"] -= 1
                if (number + index) % 997 == 0:
                    raise TimeoutError("one in a while fails")

    async def main() -> None:
        gate = AsyncGate(AgentGate(window))
        tasks = [asyncio.create_task(agent(gate, number)) for number in range(num_agents)]
        for number, size in enumerate((48, 64, 8, 64)):
            await asyncio.sleep(0)
            gate.resize(size)
            tasks[500 + number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert is_empty(gate.gate)
        failed = sum(isinstance(result, TimeoutError) for result in results)
        cancelled = sum(isinstance(result, asyncio.CancelledError) for result in results)
        assert (failed, cancelled) == (111, 4)
        assert state["running"] == 0
        assert state["most"] == window
        assert state["steps"] > 100_000

    asyncio.run(main())
