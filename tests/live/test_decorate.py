"""A function whose calls are steps of whoever's block they happen in."""

import asyncio
from types import SimpleNamespace

import pytest

from concur.gate import AgentGate
from concur.live.decorate import as_agent, current_agent, gated, openai_usage
from concur.live.gate import AsyncGate
from concur.signals import Usage


def answer(prompt: int, output: int) -> SimpleNamespace:
    return SimpleNamespace(usage=SimpleNamespace(prompt_tokens=prompt, completion_tokens=output))


def test_calls_wait_for_their_agents_turn_also_in_tasks_of_a_framework() -> None:
    async def main() -> None:
        gate = AsyncGate(AgentGate(1))
        begun: list[str] = []
        door = asyncio.Event()

        @gated(usage=openai_usage)
        async def ask(name: str) -> SimpleNamespace:
            begun.append(name)
            await door.wait()
            return answer(100, 23)

        async def agent(name: str) -> None:
            async with gate.agent(name) as me, asyncio.TaskGroup() as group:
                with as_agent(me):
                    group.create_task(ask(name))

        first, second = (asyncio.create_task(agent(name)) for name in "ab")
        for _ in range(20):
            await asyncio.sleep(0)
        assert begun == ["a"]
        door.set()
        await asyncio.gather(first, second)
        assert begun == ["a", "b"]
        assert gate.num_usages == 2

    asyncio.run(main())


def test_outside_of_an_agents_block_the_function_is_what_it_was() -> None:
    @gated(usage=openai_usage)
    async def ask() -> SimpleNamespace:
        assert current_agent() is None
        return answer(1, 1)

    assert asyncio.run(ask()).usage.prompt_tokens == 1


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        (SimpleNamespace(prompt_tokens=5, completion_tokens=2, prompt_tokens_details=None), Usage(5, 2)),
        (
            SimpleNamespace(
                input_tokens=5, output_tokens=2, input_tokens_details=SimpleNamespace(cached_tokens=4)
            ),
            Usage(5, 2, 4),
        ),
    ],
)
def test_usage_of_openais_answers(usage: SimpleNamespace | None, expected: Usage | None) -> None:
    assert openai_usage(SimpleNamespace(usage=usage)) == expected
