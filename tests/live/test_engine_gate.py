"""One line in front of a running engine: everything is there, and what goes wrong is told."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from concur.errors import ParameterError
from concur.live.engine_gate import engine_gate
from concur.live.errors import ScrapeError
from concur.validate.live.fake_server import FakeEngine, FakeServer
from tests.helpers import ROOT
from tests.live.helpers import small_workload


def code_of(page: Path, words: str) -> str:
    """Return the Python block of a page that has these words."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if words in block]
    return str(block)


def test_the_code_of_the_tutorial_runs() -> None:
    async def main() -> None:
        async def call_the_model() -> SimpleNamespace:
            return SimpleNamespace(usage=SimpleNamespace(prompt_tokens=100, completion_tokens=23))

        async with FakeServer(FakeEngine()).running() as server:
            code = code_of(ROOT / "docs/pages/tutorial.md", "engine_gate").replace(
                "http://127.0.0.1:8000", server.url
            )
            lines = ["async def example():", *(f"    {line}" for line in code.splitlines()), "    return me"]
            scope: dict[str, Any] = {"call_the_model": call_the_model}
            exec("\n".join(lines), scope)
            agent = await scope["example"]()
            assert agent.context_tokens == 123

    asyncio.run(main())


def test_the_code_of_the_control_layers_page_runs() -> None:
    class Task(SimpleNamespace):
        num_left = 3

        @property
        def done(self) -> bool:
            return self.num_left == 0

    async def call_the_model(task: Task) -> SimpleNamespace:
        task.num_left -= 1
        return SimpleNamespace(usage=SimpleNamespace(prompt_tokens=80, completion_tokens=20))

    async def run_the_tool(task: Task, answer: SimpleNamespace) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        async with FakeServer(FakeEngine()).running() as server:
            code = code_of(ROOT / "concur/live/README.md", "async def run").replace(
                "http://127.0.0.1:8000", server.url
            )
            scope: dict[str, Any] = {}
            exec(code, scope)
            tasks = {spec.agent_id: Task() for spec in small_workload().agents}
            await scope["run"](tasks, call_the_model, run_the_tool)
            assert all(task.done for task in tasks.values())

    asyncio.run(main())


def test_what_is_wrong_is_told_before_the_block() -> None:
    async def main(url: str, law: str, **parameters: Any) -> None:
        async with engine_gate(url, law, **parameters):
            raise AssertionError("never here")

    with pytest.raises(ParameterError, match="kind = 'hybird'"):
        asyncio.run(main("http://127.0.0.1:9", "hybird"))
    with pytest.raises(ParameterError, match="cap"):
        asyncio.run(main("http://127.0.0.1:9", "agent_cap"))
    with pytest.raises(ScrapeError, match="no answer"):
        asyncio.run(main("http://127.0.0.1:9", "concur"))
