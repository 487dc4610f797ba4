"""One batch of agents on a live vLLM (CPU build), through the gateway and through the gate in this process.

    .venv-vllm/bin/python -W ignore -m benchmarks.gateway_live

Both stand behind the same window; agents come 20 ms apart, and the order in which the gate wakes them and the
hit rates must be the same. The third line has no gate: what the window is good for.
"""

import asyncio
import io
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.table import Table

from concur.gateway.app import Gateway
from concur.gateway.config import GatewayConfig
from concur.gateway.logs import EventLog
from concur.live.engine_gate import engine_gate
from concur.live.gate import AsyncGate, LiveAgent
from concur.signals import Usage
from concur.sim.engine.config import EngineConfig
from concur.validate.live.server import Server, ServerOptions, started

CAP: Final = 3
NUM_AGENTS: Final = 12
NUM_STEPS: Final = 4
OUTPUT_TOKENS: Final = 12
ENGINE: Final = EngineConfig(
    block_size=32, num_gpu_blocks=71, max_model_len=1024, max_num_batched_tokens=2048, max_num_seqs=32
)


@dataclass(slots=True)
class Arm:
    """What one way of running the batch gave."""

    woken: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    num_calls: int = 0

    def watch(self, gate: AsyncGate) -> None:
        """Note in which order the gate wakes agents, each time."""
        wake = gate.wake

        def noting(agent_ids: Iterable[str]) -> None:
            granted = list(agent_ids)
            self.woken += [each.removeprefix("session-id:") for each in granted]
            wake(granted)

        gate.wake = noting  # type: ignore[method-assign]


Place = Callable[[str], AbstractAsyncContextManager[LiveAgent | None]]


async def _batch(url: str, model: str, arm: Arm, place: Place) -> None:
    async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as group:
        for number in range(NUM_AGENTS):
            group.create_task(_agent(client, url, model, f"a{number}", number, arm, place))
            await asyncio.sleep(0.02)


async def _agent(
    client: aiohttp.ClientSession, url: str, model: str, name: str, number: int, arm: Arm, place: Place
) -> None:
    history = [(7 * number + place_ * 13) % 2000 + 10 for place_ in range(300)]
    async with place(name) as agent:
        for step in range(NUM_STEPS):
            headers = {"X-Session-ID": name} | ({"x-session-final": "1"} if step == NUM_STEPS - 1 else {})
            body = {
                "model": model,
                "prompt": history,
                "max_tokens": OUTPUT_TOKENS,
                "temperature": 0.0,
                "ignore_eos": True,
                "return_token_ids": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            async with agent.step() if agent is not None else nullcontext() as turn:
                usage, tokens = await _call(client, url, body, headers)
                cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
                if turn is not None:
                    turn.usage = Usage(usage["prompt_tokens"], usage["completion_tokens"], cached)
            arm.num_calls += 1
            arm.prompt_tokens += usage["prompt_tokens"]
            arm.cached_tokens += cached
            history = history + tokens + [(step * 31 + place_) % 2000 + 10 for place_ in range(40)]
            await asyncio.sleep(0.05)


async def _call(
    client: aiohttp.ClientSession, url: str, body: dict[str, Any], headers: dict[str, str]
) -> tuple[dict[str, Any], list[int]]:
    usage: dict[str, Any] = {}
    tokens: list[int] = []
    async with client.post(f"{url}/v1/completions", json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        for line in (await answer.read()).splitlines():
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                tokens += [token for choice in event["choices"] for token in choice.get("token_ids") or ()]
    return usage, tokens


@asynccontextmanager
async def _nowhere(name: str) -> AsyncIterator[LiveAgent | None]:
    yield None


async def _through_gateway(server: Server) -> Arm:
    raw = {"upstreams": [server.url], "port": 0, "controller": {"kind": "agent_cap", "cap": CAP}}
    arm = Arm()
    async with Gateway(GatewayConfig.model_validate(raw), EventLog(io.StringIO())).running() as made:
        arm.watch(made.control.gate)
        await _batch(made.url, server.model, arm, _nowhere)
    return arm


async def _in_process(server: Server) -> Arm:
    arm = Arm()
    async with engine_gate(server.url, "agent_cap", cap=CAP) as gate:
        arm.watch(gate)
        await _batch(server.url, server.model, arm, gate.agent)
    return arm


async def _without(server: Server) -> Arm:
    arm = Arm()
    await _batch(server.url, server.model, arm, _nowhere)
    return arm


def main() -> None:
    """Start the server, run the batch three times, and print what came of it."""
    table = Table("", "calls", "hit rate", "woken")
    with tempfile.TemporaryDirectory() as folder:
        options = ServerOptions(model="tiny", engine=ENGINE, extra=("--enforce-eager",))
        with started(options, Path(folder)) as server:
            for name, run in (
                ("gateway", _through_gateway),
                ("in process", _in_process),
                ("no gate", _without),
            ):
                server.reset_prefix_cache()
                arm = asyncio.run(run(server))
                rate = arm.cached_tokens / arm.prompt_tokens
                table.add_row(name, str(arm.num_calls), f"{rate:.2%}", " ".join(arm.woken))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
