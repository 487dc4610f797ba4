import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.importers import scripted_server
from tests.importers.scripted_server import ScriptedServer

TOOLS: dict[str, list[dict[str, Any]]] = {
    "/v1/messages": [{"name": "Bash"}],
    "/v1/responses": [{"type": "function", "name": "exec_command"}],
    "/v1/chat/completions": [{"type": "function", "function": {"name": "bash"}}],
}


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripted_server, "FIRST_TOKEN_S", 0)
    monkeypatch.setattr(scripted_server, "LAST_TOKEN_S", 0)


def asked(server: ScriptedServer, path: str, *bodies: dict[str, Any]) -> list[str]:
    async def ask() -> list[str]:
        async with TestClient(TestServer(server.app())) as client:
            return [await (await client.post(path, json=body)).text() for body in bodies]

    return asyncio.run(ask())


def body(
    path: str, *more: dict[str, Any], script: str = "SCRIPT[sh ls & pwd; say all done]"
) -> dict[str, Any]:
    key = "input" if path == "/v1/responses" else "messages"
    return {"model": "m", "tools": TOOLS[path], key: [{"role": "user", "content": script}, *more]}


@pytest.mark.parametrize("path", TOOLS)
def test_the_turn_is_told_by_the_answers_so_far(tmp_path: Path, path: str) -> None:
    said = {"role": "assistant", "content": "I sh."}
    server = ScriptedServer(tmp_path / "server.jsonl")
    first, last = asked(server, path, body(path), body(path, said, {"role": "user", "content": "a.txt"}))
    assert "pwd" in first
    assert "all done" in last
    rows = [json.loads(line) for line in (tmp_path / "server.jsonl").read_text().splitlines()]
    assert rows[0]["cached_tokens"] == 0
    assert rows[1]["cached_tokens"] == rows[0]["prompt_tokens"] < rows[1]["prompt_tokens"]


@pytest.mark.parametrize("path", TOOLS)
def test_a_stream_says_what_the_whole_answer_says(tmp_path: Path, path: str) -> None:
    whole, stream = asked(
        ScriptedServer(tmp_path / "server.jsonl"),
        path,
        body(path),
        body(path) | {"stream": True, "stream_options": {"include_usage": True}},
    )
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    usages = [usage for event in events for usage in _usages(event)]
    (expected,) = _usages(json.loads(whole))
    output = "completion_tokens" if path == "/v1/chat/completions" else "output_tokens"
    assert usages[-1][output] == expected[output]


def _usages(event: dict[str, Any]) -> list[dict[str, Any]]:
    found = event.get("usage") or (event.get("response") or {}).get("usage")
    return [found] if found else []


def test_a_request_without_a_script_gets_a_plain_answer(tmp_path: Path) -> None:
    path = "/v1/chat/completions"
    (answer,) = asked(ScriptedServer(tmp_path / "server.jsonl"), path, body(path, script="name this"))
    assert json.loads(answer)["choices"][0]["message"]["content"] == "A title"
