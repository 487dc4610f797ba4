"""For tests of the gateway: an upstream that does as a test says, and a gateway in front of it."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp import web

from concur.gateway.app import Gateway
from concur.gateway.config import GatewayConfig
from concur.gateway.logs import EventLog

METRICS: Final = "\n".join(
    [
        *(
            f'vllm:{name}{{engine="0"}} 0.0'
            for name in (
                "num_requests_running",
                "num_requests_waiting",
                "kv_cache_usage_perc",
                "prefix_cache_queries_total",
                "prefix_cache_hits_total",
                "num_preemptions_total",
                "prompt_tokens_total",
                "generation_tokens_total",
            )
        ),
        'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="101",'
        'kv_cache_size_tokens="1616"} 1',
        "",
    ]
)
PATHS: Final = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
STREAM: Final = {
    "chat": b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\ndata: {"choices": [], "usage": '
    b'{"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}}\n\n'
    b"data: [DONE]\n\n",
    "completions": b'data: {"choices": [{"text": "hi"}]}\n\ndata: {"choices": [], "usage": '
    b'{"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}}\n\n'
    b"data: [DONE]\n\n",
    "responses": b'event: response.created\ndata: {"type": "response.created", '
    b'"response": {"usage": null}}\n\n'
    b'event: response.completed\ndata: {"type": "response.completed", "response": {"usage": '
    b'{"input_tokens": 11, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 8}}}}\n\n',
    "messages": b'event: message_start\ndata: {"type": "message_start", "message": {"usage": '
    b'{"input_tokens": 3, "cache_read_input_tokens": 8, "output_tokens": 1}}}\n\n'
    b'event: message_delta\ndata: {"type": "message_delta", "usage": {"output_tokens": 3}}\n\n',
}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Seen:
    """A request, as the upstream got it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Upstream:
    """An engine by the word of a test: `answer` answers every call."""

    answer: Answer | None = None
    seen: list[Seen] = field(default_factory=list)
    num_open: int = 0
    num_cut: int = 0
    url: str = ""
    metrics_status: int = 200
    runner: web.AppRunner | None = None

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["Upstream"]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_route("*", "/{path:.*}", self._call)
        self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", port).start()
        self.url = "http://{}:{}".format(*self.runner.addresses[0][:2])
        try:
            yield self
        finally:
            await self.runner.cleanup()

    @property
    def num_connections(self) -> int:
        assert self.runner is not None
        assert self.runner.server is not None
        return len(self.runner.server.connections)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=METRICS, status=self.metrics_status)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.method, request.raw_path, dict(request.headers), await request.read())
        self.seen.append(seen)
        self.num_open += 1
        try:
            assert self.answer is not None
            return await self.answer(request)
        except asyncio.CancelledError:
            self.num_cut += 1
            raise
        finally:
            self.num_open -= 1


def says(
    *chunks: bytes, status: int = 200, content_type: str = "text/event-stream", **headers: str
) -> Answer:
    """Answer with these chunks, each written by itself."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": content_type, **headers})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0)
        return response

    return answer


def whole(body: Any, status: int = 200) -> Answer:
    """Answer with JSON in one piece."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return answer


class Door:
    """Answers that begin when a test opens the door: `arrived` counts who stands in front of it."""

    def __init__(self, then: Answer, first: bytes = b"") -> None:
        self.arrived = 0
        self._then, self._first = then, first
        self._is_open = asyncio.Event()

    def open(self) -> None:
        self._is_open.set()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.arrived += 1
        if self._first:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(self._first)
            await self._is_open.wait()
            return response
        await self._is_open.wait()
        return await self._then(request)


def config(*upstreams: str, **sections: Any) -> GatewayConfig:
    """A gateway on a free port, under a cap of one agent unless said."""
    raw: dict[str, Any] = {
        "upstreams": upstreams or ("http://127.0.0.1:9",),
        "port": 0,
        "controller": {"kind": "agent_cap", "cap": 1, "interval_s": 0.05},
        "limits": {"start_s": 0, "drain_s": 5},
    }
    return GatewayConfig.model_validate(raw | sections)


@asynccontextmanager
async def gateway(*upstreams: Upstream, **sections: Any) -> AsyncIterator[Gateway]:
    """A gateway in front of upstreams that run."""
    made = Gateway(config(*(each.url for each in upstreams), **sections), EventLog(io.StringIO()))
    async with made.running():
        yield made


@asynccontextmanager
async def one(
    answer: Answer | None = None, **sections: Any
) -> AsyncIterator[tuple[Gateway, Upstream, aiohttp.ClientSession]]:
    """An upstream, a gateway in front of it, and a client."""
    async with (
        Upstream(answer).running() as upstream,
        gateway(upstream, **sections) as made,
        aiohttp.ClientSession(auto_decompress=False) as client,
    ):
        yield made, upstream, client


def named(agent: str, **more: str) -> dict[str, str]:
    """Headers that name an agent."""
    return {"x-session-id": agent, **{name.replace("_", "-"): value for name, value in more.items()}}


def asking(protocol: str = "chat", **more: Any) -> dict[str, Any]:
    """A body that asks for a stream."""
    messages = [{"role": "user", "content": "hello"}]
    key = {"responses": "input", "completions": "prompt"}.get(protocol, "messages")
    return {"model": "m", "stream": True, key: messages} | more


async def until(holds: Callable[[], Any]) -> None:
    """Let others run until something holds; a test that waits in vain is ended by its caller."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.002)
