"""The gate on asyncio: turns in the gate's order, and slots that never leak, however a task ends."""

import asyncio
from typing import Any

import pytest

from concur.errors import GateError, ParameterError
from concur.gate import AgentGate, Gate, RequestGate
from concur.live.gate import AsyncGate, LiveAgent
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


@pytest.mark.parametrize("kind", [AgentGate, RequestGate])
def test_a_turn_that_comes_too_late_is_given_back_and_may_be_asked_for_again(kind: type[Gate]) -> None:
    async def main() -> None:
        gate = AsyncGate(kind(1))
        async with gate.agent("holder") as holder, gate.agent("late") as late, holder.step():
            asking = asyncio.create_task(late.step().__aenter__())
            await asyncio.sleep(0)
            gate.resize(2)  # its turn has come ...
            asking.cancel()  # ... and nobody is there to take it
            await asyncio.wait([asking])
            assert asking.cancelled()
            assert not any(view.is_in_step for view in gate.gate.views() if view.agent_id == "late")
            async with asyncio.timeout(1.0), late.step():
                pass
        assert is_empty(gate.gate)

    run_jumping(main())


def test_after_its_last_step_an_agent_is_gone_though_it_lingers() -> None:
    async def lingering(gate: AsyncGate) -> None:
        async with gate.agent("a") as agent:
            async with agent.last_step():
                await asyncio.sleep(1.0)
            assert (agent.admitted_s, agent.left_s, agent.num_pauses) == (0, 1, 0)
            await asyncio.sleep(5.0)

    async def main() -> list[tuple[float, str]]:
        gate, log = AsyncGate(AgentGate(1)), list[tuple[float, str]]()
        async with asyncio.TaskGroup() as group:
            group.create_task(lingering(gate))
            group.create_task(agent_steps(gate, "b", log, num_steps=1))
        return log

    assert run_jumping(main()) == [(1, "b")]


def test_a_paused_agent_that_gave_up_waiting_gets_its_slot_back_when_there_is_one() -> None:
    gate = AgentGate(2)
    for name in "ab":
        gate.arrive(name, time_s=0.0)
        gate.request_step(name, time_s=0.0)
    gate.resize(1, time_s=1.0)
    gate.step_done("b", time_s=2.0, context_tokens=5)
    assert gate.request_step("b", time_s=3.0) == []
    gate.withdraw("b", time_s=3.5)
    assert gate.leave("a", time_s=4.0) == []  # it has a slot again, but no step begins: it does not ask
    assert (gate.active, gate.paused) == (1, 0)
    assert gate.request_step("b", time_s=5.0) == ["b"]
    with pytest.raises(GateError, match="not waiting"):
        gate.withdraw("b", time_s=3.5)


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


def test_an_agent_may_make_several_calls_at_once_in_one_slot() -> None:
    async def call(agent: LiveAgent, tokens: int) -> None:
        async with agent.step() as step:
            await asyncio.sleep(1.0)
            step.context_tokens = tokens

    async def main() -> None:
        gate = AsyncGate(AgentGate(1))
        async with gate.agent("a") as agent:
            await asyncio.gather(call(agent, 10), call(agent, 700), call(agent, 20))
            assert (gate.now_s(), agent.context_tokens) == (1.0, 700)
        assert is_empty(gate.gate)

    run_jumping(main())


@pytest.mark.parametrize("tokens", [None, -5, 1.5, True, "many"])
def test_a_context_that_is_no_number_is_refused_where_it_comes_in(tokens: Any) -> None:
    async def main() -> None:
        gate = AsyncGate(AgentGate(1))
        async with gate.agent("a") as agent:
            with pytest.raises(ParameterError, match=f"context_tokens = {tokens!r} but must be"):
                async with agent.step() as step:
                    step.context_tokens = tokens
            async with agent.step() as step:
                step.context_tokens = 7
            assert agent.context_tokens == 7
        assert is_empty(gate.gate)

    run_jumping(main())


def test_a_turn_cancelled_in_the_instant_it_came_is_no_step() -> None:
    async def main() -> None:
        gate = AsyncGate(AgentGate(1))
        async with gate.agent("holder") as holder, gate.agent("late") as late:
            async with holder.step():
                asking = asyncio.create_task(late.step().__aenter__())
                await asyncio.sleep(0)
                gate.resize(2)
                asking.cancel()
                await asyncio.wait([asking])
            assert [view.steps_done for view in gate.gate.views()] == [1, 0]

    run_jumping(main())


@pytest.mark.parametrize("order", ["cancel first", "leave first", "granted first"])
def test_cancelled_and_gone_in_one_instant_is_a_cancellation_and_nothing_else(order: str) -> None:
    async def main() -> None:
        gate = AsyncGate(AgentGate(1))
        async with gate.agent("holder") as holder, holder.step(), gate.agent("b") as agent:
            asking = asyncio.create_task(agent.step().__aenter__())
            await asyncio.sleep(0)
            if order == "granted first":
                gate.resize(2)
            if order != "leave first":
                asking.cancel()
            agent.leave()
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
        assert is_empty(gate.gate)

    run_jumping(main())


def test_parents_and_children_never_wait_for_each_others_slots() -> None:
    async def child(gate: AsyncGate, name: str, parent: LiveAgent) -> None:
        async with gate.agent(name, parent=parent) as me, me.step():
            await asyncio.sleep(1.0)

    async def parent(gate: AsyncGate, name: str) -> None:
        async with gate.agent(name) as me:
            async with me.step():
                await asyncio.sleep(1.0)
            await asyncio.gather(*(child(gate, f"{name}/{n}", me) for n in range(2)))
            async with me.step():
                await asyncio.sleep(1.0)

    async def main() -> float:
        gate = AsyncGate(AgentGate(8))
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(parent(gate, f"p{number}"))
        assert is_empty(gate.gate)
        return gate.now_s()

    assert run_jumping(main()) == 4.0, "a call, two children one after the other in its slot, a call"


def test_a_child_of_a_parent_that_has_left_is_its_grandparents() -> None:
    async def main() -> None:
        gate = AsyncGate(AgentGate(4))
        async with gate.agent("g") as grandparent:
            async with gate.agent("p", parent="g") as parent:
                pass
            async with gate.agent("c", parent=parent):
                assert [view.parent for view in gate.gate.views()] == [None, "g"]
        with pytest.raises(GateError, match="'g' is not at the gate"):
            async with gate.agent("c", parent="g"):
                pass
        async with gate.agent("c", parent=grandparent):
            assert [view.parent for view in gate.gate.views()] == [None]

    run_jumping(main())


def test_a_tool_that_never_returns_loses_its_slot_without_anyone_doing_anything() -> None:
    async def hanging(gate: AsyncGate) -> None:
        async with gate.agent("hangs") as agent:
            async with agent.step():
                await asyncio.sleep(1.0)
            await asyncio.sleep(5000.0)
            async with agent.step():
                pass

    async def main() -> list[tuple[float, str]]:
        gate, log = AsyncGate(AgentGate(1, lease_s=600.0)), list[tuple[float, str]]()
        async with asyncio.TaskGroup() as group:
            group.create_task(hanging(gate))
            await asyncio.sleep(0.5)
            group.create_task(agent_steps(gate, "b", log, num_steps=1))
        assert is_empty(gate.gate)
        return log

    assert run_jumping(main()) == [(601.0, "b")]


def test_a_call_from_another_loop_or_from_none_is_an_error_at_once() -> None:
    gate = AsyncGate(AgentGate(1))

    async def main() -> None:
        async with gate.agent("a") as agent, agent.step():
            pass

    async def resize() -> None:
        gate.resize(2)

    asyncio.run(main())
    with pytest.raises(GateError, match="another event loop"):
        asyncio.run(main())
    with pytest.raises(GateError, match="another event loop"):
        asyncio.run(resize())
    with pytest.raises(GateError, match="outside of an event loop"):
        gate.resize(3)
    assert gate.gate.window == 1
    assert not gate.gate.is_here("a")


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
