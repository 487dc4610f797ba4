"""A model server that answers by a script, so that real agent clients run offline and their recordings can be
held against what the server saw.

It speaks Anthropic messages, OpenAI responses, chat completions and completions, streamed and not, and has
vLLM's /metrics of what it has served. As vLLM does, it sends the chunk of usage of a stream of chat
completions or completions only to who asks for it. The script is in the prompt: `SCRIPT[sh ls & pwd;
children 2; say done]` is one turn of the model after another, and the turn of a request is the number of
assistant messages after the last script. Tokens are characters / 4 of the tools and messages of a request;
cached ones are what it has in common with an earlier prompt of its session.

The verbs: `sh` runs commands, several at once with `&`; `children` starts sub-agents and waits for them;
`background` starts them beside the agent; `join` waits for the one of a number; `say` ends the turn.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tests.importers import scripted_answers as answers
from tests.importers.scripted_answers import Answer, ToolCall, Usage

FIRST_TOKEN_S: Final = 0.2
LAST_TOKEN_S: Final = 0.3
CHARACTERS_PER_TOKEN: Final = 4
CODEX_CONFIG: Final = """\
model = "m"
model_provider = "scripted"
[model_providers.scripted]
name = "scripted"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "SCRIPTED_KEY"
"""
"""What Codex has in `config.toml` to ask this server, at `url`."""
_SCRIPT: Final = re.compile(r"SCRIPT\[(.*?)\]")
_CHILD_SCRIPT: Final = "SCRIPT[sh ls; sh sleep {}; say child done]"
_SHELLS: Final = ("Bash", "bash", "exec_command", "terminal")
_SPAWNERS: Final = ("Agent", "Task", "task", "spawn_agent")
_STARTED: Final = re.compile(r"agent_id\W+([0-9a-f-]{36})")
_SESSION_HEADERS: Final = ("x-claude-code-session-id", "session-id", "x-session-id", "x-session-affinity")
_AGENT_HEADERS: Final = ("x-claude-code-agent-id", "thread-id")
_PARENT_HEADERS: Final = (
    "x-claude-code-parent-agent-id",
    "x-codex-parent-thread-id",
    "x-parent-session-id",
)


@dataclass(frozen=True, slots=True)
class Served:
    """A line of the server's log: one request, as the server saw it."""

    endpoint: str
    session: str
    agent: str
    parent: str
    received_s: float
    finished_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    is_scripted: bool


@dataclass(slots=True)
class ScriptedServer:
    """Answers requests by their scripts, and logs each when it has ended."""

    log: Path
    bodies: Path | None = None
    prompts: dict[str, list[str]] = field(default_factory=dict)
    number: int = 0
    num_running: int = 0
    most_running: int = 0
    served: list[Served] = field(default_factory=list)
    copies: Counter[str] = field(default_factory=Counter)
    last_token_s: float = field(default_factory=lambda: LAST_TOKEN_S)

    def app(self) -> web.Application:
        """Return the server as an application of aiohttp."""
        app = web.Application(client_max_size=1 << 28)
        for path in answers.DIALECTS:
            app.router.add_post(path, self.answer)
        app.router.add_get("/v1/models", _models)
        app.router.add_get("/health", _health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/v1/messages/count_tokens", self.count)
        return app

    async def count(self, request: web.Request) -> web.Response:
        """Answer how long a prompt is."""
        return web.json_response({"input_tokens": len(_prompt(await request.json())) // CHARACTERS_PER_TOKEN})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request with the turn of its script, and log it."""
        received_s = _now_s()
        body = await request.json()
        self.number += 1
        if self.bodies is not None:
            dump = {"headers": dict(request.headers), "body": body}
            (self.bodies / f"{self.number:04}.json").write_text(json.dumps(dump, indent=1), encoding="utf-8")
        session = _header(request, _SESSION_HEADERS)
        answer = _scripted(body, f"{self.number:04}")
        if answer is not None:
            self.copies[json.dumps([session, _header(request, _AGENT_HEADERS), body], sort_keys=True)] += 1
        usage = self._usage(session, _prompt(body), answer or answers.PLAIN)
        reply = answers.DIALECTS[request.path](answer or answers.PLAIN, usage, body)
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        try:
            response = await self._send(request, reply, body)
        finally:
            self.num_running -= 1
        served = Served(
            endpoint=request.path,
            session=session,
            agent=_header(request, _AGENT_HEADERS),
            parent=_header(request, _PARENT_HEADERS),
            received_s=received_s,
            finished_s=_now_s(),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            is_scripted=answer is not None,
        )
        self.served.append(served)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(served)) + "\n")
        return response

    def _usage(self, session: str, prompt: str, answer: Answer) -> Usage:
        earlier = self.prompts.setdefault(session, [])
        cached = max((_common_length(prompt, other) for other in earlier), default=0)
        earlier.append(prompt)
        return Usage(
            prompt_tokens=len(prompt) // CHARACTERS_PER_TOKEN,
            cached_tokens=cached // CHARACTERS_PER_TOKEN,
            output_tokens=max(1, len(json.dumps(asdict(answer))) // CHARACTERS_PER_TOKEN),
        )

    async def metrics(self, request: web.Request) -> web.Response:
        """Publish what has been served under vLLM's names."""
        served = self.served
        counters = {
            "prefix_cache_queries": sum(call.prompt_tokens for call in served),
            "prefix_cache_hits": sum(call.cached_tokens for call in served),
            "num_preemptions": 0,
            "prompt_tokens": sum(call.prompt_tokens for call in served),
            "generation_tokens": sum(call.output_tokens for call in served),
        }
        gauges = {"num_requests_running": self.num_running, "num_requests_waiting": 0}
        gauges |= {"kv_cache_usage_perc": 0}
        lines = [f'vllm:{name}{{engine="0"}} {float(value)}' for name, value in gauges.items()]
        lines += [f'vllm:{name}_total{{engine="0"}} {float(value)}' for name, value in counters.items()]
        return web.Response(text="\n".join([*lines, _SIZES, ""]))

    async def _send(
        self, request: web.Request, reply: answers.Reply, body: dict[str, Any]
    ) -> web.StreamResponse:
        await asyncio.sleep(FIRST_TOKEN_S)
        if not body.get("stream"):
            await asyncio.sleep(self.last_token_s)
            return web.json_response(reply.whole)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(reply.events[0])
        await asyncio.sleep(self.last_token_s)
        for event in reply.events[1:]:
            if _is_for(body, request.path, event):
                await response.write(event)
        await response.write_eof()
        return response


_SIZES: Final = (
    'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="4001",'
    'kv_cache_size_tokens="64016"} 1.0'
)


def _is_for(body: dict[str, Any], path: str, event: bytes) -> bool:
    """Whether a client gets an event: that of usage only if it asked for it."""
    if "completions" not in path or b'"choices": []' not in event:
        return True
    return bool((body.get("stream_options") or {}).get("include_usage"))


async def _models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "test"}]})


async def _health(request: web.Request) -> web.Response:
    return web.Response()


def _now_s() -> float:
    return datetime.now(UTC).timestamp()


def _header(request: web.Request, names: tuple[str, ...]) -> str:
    return next((request.headers[name] for name in names if name in request.headers), "")


def _prompt(body: dict[str, Any]) -> str:
    """Return what a request says to the model, without the marks that move from call to call."""
    parts = [body.get("tools"), body.get("instructions"), body.get("system"), *_messages(body)]
    return "".join(json.dumps(_without_marks(part)) for part in parts if part)


def _without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_marks(item) for key, item in value.items() if key != "cache_control"}
    return [_without_marks(item) for item in value] if isinstance(value, list) else value


def _common_length(one: str, other: str) -> int:
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def _messages(body: dict[str, Any]) -> list[Any]:
    messages = body.get("messages", body.get("input", body.get("prompt", [])))
    return messages if isinstance(messages, list) else [{"role": "user", "content": messages}]


def _texts(message: Any) -> Iterator[str]:
    """Yield the texts that a user wrote in a message."""
    if not isinstance(message, dict) or message.get("role") != "user":
        return
    content = message.get("content")
    parts = [{"text": content}] if isinstance(content, str) else content or []
    yield from (part["text"] for part in parts if isinstance(part.get("text"), str))


def _is_answer(message: dict[str, Any]) -> bool:
    return message.get("role") == "assistant" or message.get("type") == "function_call"


def _tools(body: dict[str, Any]) -> dict[str, str]:
    """Return the names of the tools on offer, each with its namespace, mostly none."""
    found: dict[str, str] = {}
    for tool in body.get("tools") or []:
        if tool.get("type") == "namespace":
            found |= dict.fromkeys((inner["name"] for inner in tool["tools"]), tool["name"])
        elif name := tool.get("name") or tool.get("function", {}).get("name"):
            found[name] = ""
    return found


def _scripted(body: dict[str, Any], call_id: str) -> Answer | None:
    """Return the answer that the script in a request has for its turn; nothing where it offers no tools."""
    turns: list[str] = []
    turn, answered = 0, False
    for message in _messages(body):
        scripts = [found for text in _texts(message) for found in _SCRIPT.findall(text)]
        if scripts:
            turns, turn, answered = scripts[-1].split(";"), 0, False
        is_answer = _is_answer(message)
        turn += is_answer and not answered  # the calls of one turn may be messages of their own
        answered = is_answer
    tools = _tools(body)
    if not turns or not tools:
        return None
    started = list(dict.fromkeys(_STARTED.findall(json.dumps(body))))
    verb, _, rest = (turns[turn].strip() if turn < len(turns) else "say done").partition(" ")
    calls = _calls(verb, rest, tools, started)
    named = [ToolCall(f"call_{call_id}_{k}", name, tools[name], call) for k, (name, call) in enumerate(calls)]
    return Answer(f"I {verb}." if calls else rest, tuple(named))


def _calls(
    verb: str, rest: str, tools: Iterable[str], started: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Return the tools to call, each with its arguments."""
    shell = next((name for name in _SHELLS if name in tools), None)
    spawner = next((name for name in _SPAWNERS if name in tools), None)
    if verb == "sh" and shell:
        return [(shell, _shell_arguments(shell, command)) for command in rest.split(" & ")]
    if verb in ("children", "background") and spawner:
        return [(spawner, _spawner_arguments(spawner, k, verb)) for k in range(int(rest))]
    if verb == "join" and "wait_agent" in tools:
        return [("wait_agent", {"targets": [started[int(rest)]]})]
    return []


def _shell_arguments(shell: str, command: str) -> dict[str, Any]:
    if shell == "exec_command":
        return {"cmd": command}
    return {"command": command} | ({} if shell == "terminal" else {"description": "a command"})


def _spawner_arguments(spawner: str, number: int, verb: str) -> dict[str, Any]:
    script = _CHILD_SCRIPT.format(number + 1)
    if spawner == "spawn_agent":
        return {"message": script}
    arguments = {"description": "a child", "prompt": script}
    if spawner == "task":
        return arguments | {"subagent_type": "general"}
    return arguments | {"subagent_type": "general-purpose", "run_in_background": verb == "background"}
