"""Real SDKs, many turns, through the gateway in front of vLLM's own server (CPU build)."""

import asyncio
import io
import json
from collections.abc import Iterator

import pytest

from concur.gateway.app import Gateway
from concur.gateway.config import GatewayConfig
from concur.gateway.logs import EventLog
from concur.validate.live.server import Server
from tests.gateway.chat_server import chat_server

pytestmark = pytest.mark.vllm
NUM_TURNS = 4
TEXT = "The quick brown fox jumps over the lazy dog, and again. "


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("vllm")
    with chat_server() as made:
        yield made


def final(turn: int) -> dict[str, str]:
    return {"x-session-final": "1"} if turn == NUM_TURNS - 1 else {}


async def openai_agent(url: str, model: str, name: str) -> list[int]:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", default_headers={"X-Session-ID": name})
    messages = [{"role": "user", "content": f"I am {name}. {TEXT * 4}"}]
    cached = []
    for turn in range(NUM_TURNS):
        text, usage = "", None
        async for chunk in await client.chat.completions.create(
            model=model,
            messages=messages,
            max_tokens=16,
            temperature=0.0,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers=final(turn),
        ):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            usage = chunk.usage or usage
        assert usage is not None
        cached.append(usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": TEXT}]
    return cached


async def anthropic_agent(url: str, model: str, name: str) -> list[int]:
    from anthropic import AsyncAnthropic

    client = AsyncAnthropic(base_url=url, api_key="none", default_headers={"X-Session-ID": name})
    messages = [{"role": "user", "content": f"I am {name}. {TEXT * 4}"}]
    lengths = []
    for turn in range(NUM_TURNS):
        async with client.messages.stream(
            model=model,
            messages=messages,
            max_tokens=16,
            extra_headers=final(turn),
        ) as stream:
            text = await stream.get_final_text()
            lengths.append((await stream.get_final_message()).usage.output_tokens)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": TEXT}]
    return lengths


def test_sdks_run_many_turns_one_after_the_other_and_keep_their_prefixes(server: Server) -> None:
    async def main() -> None:
        raw = {"upstreams": [server.url], "port": 0, "controller": {"kind": "agent_cap", "cap": 1}}
        log = io.StringIO()
        async with Gateway(GatewayConfig.model_validate(raw), EventLog(log)).running() as gateway:
            names = ("a", "b")
            cached = await asyncio.gather(*(openai_agent(gateway.url, server.model, name) for name in names))
            lengths = await anthropic_agent(gateway.url, server.model, "c")
            assert not gateway.service.num_held
        assert lengths == [16] * NUM_TURNS
        assert all(turns[0] < 64 <= turns[1] < turns[2] < turns[3] for turns in cached)
        calls = [each for each in map(json.loads, log.getvalue().splitlines()) if each["event"] == "call"]
        assert len(calls) == 3 * NUM_TURNS
        assert {call["status"] for call in calls} == {200}
        assert all(call["output_tokens"] == 16 for call in calls)

    asyncio.run(main())
