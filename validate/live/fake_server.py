"""A small deterministic server with vLLM's endpoints whose truth is known; for tests of what speaks to one.

Never a source of results: its "engine" is a sleep per token. It knows which tokens it really credited from
its (never-evicting) prefix cache, and when it really sent each one. Faults are scripted by the number of the
request, counted from 0: completions in `Faults.calls`, readings of /metrics in `Faults.metrics`.

`python -m concur.validate.live.fake_server` serves until it is interrupted, to try the gateway on; a prompt
is a list of token numbers there.

Token i of an answer to a prompt of n tokens is `10 + (n + i) % 2000`.
"""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

HANG: Final = "hang"  # no answer, until the client gives up
BREAK_OFF: Final = "break off"  # half an answer, then the connection is cut
NO_USAGE: Final = "no usage"  # an answer that ends in good order, but too early
SHORT: Final = "short"  # one token less than was asked for
MALFORMED: Final = "malformed"
CUT_OFF: Final = "cut off"
MISSING_NAME: Final = "missing name"
RESET: Final = "reset"  # the counters begin anew, as after a restart
_LARGEST_BODY: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong: by request number, a status to answer with or one of this module's words.

    `die_at_call`: the server is gone, in the middle of its answer, at that call.
    """

    calls: Mapping[int, int | str] = field(default_factory=dict)
    metrics: Mapping[int, int | str] = field(default_factory=dict)
    die_at_call: int | None = None


@dataclass(frozen=True, slots=True)
class FakeEngine:
    """Sizes of the pretended engine, the seconds that it takes per token, and what it tells of itself.

    `tells_cached_tokens`: in the usage of every call, as with --enable-prompt-tokens-details. `is_dev`: its
    prefix cache can be emptied and /server_info answers, with `resolved` as the engine's configuration.
    """

    block_size: int = 16
    num_gpu_blocks: int = 101
    token_s: float = 0.0
    tells_cached_tokens: bool = True
    is_dev: bool = True
    resolved: Mapping[str, Any] = field(default_factory=dict)
    max_model_len: int | None = None


@dataclass(slots=True)
class Served:
    """The truth about one call: what was asked and credited, and when each token was sent (loop time)."""

    number: int
    prompt: tuple[int, ...]
    cached_tokens: int
    priority: int = 0
    sent_s: list[float] = field(default_factory=list)
    is_complete: bool = False


class FakeServer:
    """vLLM's endpoints over a sleep. `served` is the truth, in order of arrival; `url` where it runs."""

    def __init__(self, engine: FakeEngine | None = None, faults: Faults | None = None) -> None:
        self.engine = engine or FakeEngine()
        self.faults = faults or Faults()
        self.url = ""
        self.served: list[Served] = []
        self.num_calls = 0
        self.num_scrapes = 0
        self.most_running = 0
        self._running: dict[int, int] = {}  # tokens of each call in flight
        self._blocks: set[int] = set()
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self._hanging = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["FakeServer"]:
        """Serve on a port of this machine, 0 for any that is free, until the end of the block."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_post("/v1/completions", self._complete)
        if self.engine.is_dev:
            app.router.add_post("/reset_prefix_cache", self._reset)
        if self.engine.is_dev and self.engine.resolved:
            app.router.add_get("/server_info", self._server_info)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", _ok)
        app.router.add_get("/version", self._version)
        app.router.add_get("/v1/models", self._models)
        self._loop = asyncio.get_running_loop()
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = _address(self._runner)
        try:
            yield self
        finally:
            server = self._runner.server
            await self._runner.cleanup()
            assert server is not None
            await _cut_all(server)

    @contextmanager
    def in_thread(self) -> Iterator["FakeServer"]:
        """Serve from a thread until the end of the block, for a caller that has no event loop to spare."""
        is_ready, is_over = threading.Event(), threading.Event()

        async def serve() -> None:
            try:
                async with self.running():
                    is_ready.set()
                    await asyncio.to_thread(is_over.wait)
            finally:
                is_ready.set()  # one that could not start keeps nobody waiting

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            is_ready.wait()
            yield self
        finally:
            is_over.set()
            thread.join()

    def die_from_outside(self) -> None:
        """Die, for a caller in another thread than the one that serves."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self.die(), self._loop).result()

    async def die(self) -> None:
        """Refuse connections and cut those that are open, at once, as a killed process does."""
        assert self._runner is not None
        assert self._runner.server is not None
        for site in list(self._runner.sites):
            await site.stop()
        await _cut_all(self._runner.server)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        number = self.num_calls
        self.num_calls += 1
        fault = self.faults.calls.get(number)
        if isinstance(fault, int):
            return web.json_response({"error": {"message": "scripted", "code": fault}}, status=fault)
        if fault == HANG:
            await self._hanging.wait()
        body = await request.json()
        served = self._schedule(number, body["prompt"], body.get("priority", 0))
        num_tokens = body["max_tokens"] - (fault == SHORT)
        try:
            if body.get("stream"):
                return await self._stream(request, served, num_tokens, fault)
            token_ids = [token async for token in self._generate(served, num_tokens)]
            choice = {"token_ids": token_ids, "finish_reason": "length"}
            self._finish(served)
            return web.json_response({"choices": [choice], "usage": self._usage(served, len(token_ids))})
        finally:
            self._running.pop(number)

    def _schedule(self, number: int, prompt: Sequence[int], priority: int) -> Served:
        blocks = list(_block_names(prompt, self.engine.block_size))
        known = next((n for n, block in enumerate(blocks) if block not in self._blocks), len(blocks))
        cached = min(known, (len(prompt) - 1) // self.engine.block_size) * self.engine.block_size
        self._blocks.update(blocks)
        served = Served(number, tuple(prompt), cached, priority)
        self.served.append(served)
        self._running[number] = len(prompt)
        self.most_running = max(self.most_running, len(self._running))
        self._counters["prefix_cache_queries"] += len(prompt)
        self._counters["prefix_cache_hits"] += cached
        self._counters["prompt_tokens"] += len(prompt)
        return served

    async def _generate(self, served: Served, max_tokens: int) -> AsyncIterator[int]:
        for position in range(max_tokens):
            await asyncio.sleep(self.engine.token_s)
            if served.number == self.faults.die_at_call and position == max_tokens // 2:
                await self.die()
                await self._hanging.wait()
            served.sent_s.append(asyncio.get_running_loop().time())
            self._counters["generation_tokens"] += 1
            yield 10 + (len(served.prompt) + position) % 2000

    async def _stream(
        self, request: web.Request, served: Served, max_tokens: int, fault: int | str | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for token in self._generate(served, max_tokens):
            choice: dict[str, Any] = {"token_ids": [token], "finish_reason": None}
            await _send(response, {"choices": [choice]})
            if fault == BREAK_OFF:
                assert request.transport is not None
                request.transport.abort()
                return response
        if fault == NO_USAGE:
            return response
        self._finish(served)
        await _send(response, {"choices": [], "usage": self._usage(served, max_tokens)})
        await response.write(b"data: [DONE]\n\n")
        return response

    def _finish(self, served: Served) -> None:
        served.is_complete = True
        answer = [10 + (len(served.prompt) + i) % 2000 for i in range(len(served.sent_s) - 1)]
        self._blocks.update(_block_names([*served.prompt, *answer], self.engine.block_size))

    def _usage(self, served: Served, num_tokens: int) -> dict[str, Any]:
        details = {"cached_tokens": served.cached_tokens} if self.engine.tells_cached_tokens else None
        counts = {"prompt_tokens": len(served.prompt), "completion_tokens": num_tokens}
        return counts | {"prompt_tokens_details": details}

    async def _reset(self, request: web.Request) -> web.Response:
        if self._running:
            return web.json_response({"success": False})
        self._blocks.clear()
        return web.json_response({"success": True})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0"})

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "fake", "max_model_len": self.engine.max_model_len}]})

    async def _server_info(self, request: web.Request) -> web.Response:
        return web.json_response({"vllm_config": dict(self.engine.resolved)})

    async def _metrics(self, request: web.Request) -> web.Response:
        fault = self.faults.metrics.get(self.num_scrapes)
        self.num_scrapes += 1
        if isinstance(fault, int):
            return web.Response(status=fault)
        if fault == HANG:
            await self._hanging.wait()
        if fault == RESET:
            self._counters = dict.fromkeys(_COUNTERS, 0)
        return web.Response(text=_spoil(self._metrics_text(), fault))

    def _metrics_text(self) -> str:
        engine = self.engine
        used = sum(-(-tokens // engine.block_size) for tokens in self._running.values())
        gauges = {
            "num_requests_running": len(self._running),
            "num_requests_waiting": 0,
            "kv_cache_usage_perc": min(used / (engine.num_gpu_blocks - 1), 1.0),
        }
        lines = []
        for name, value in gauges.items():
            lines += [f"# TYPE vllm:{name} gauge", f'vllm:{name}{{engine="0"}} {float(value)}']
        for name, value in self._counters.items():
            lines += [f"# TYPE vllm:{name}_total counter", f'vllm:{name}_total{{engine="0"}} {float(value)}']
        sizes = {
            "block_size": engine.block_size,
            "num_gpu_blocks": engine.num_gpu_blocks,
            "kv_cache_size_tokens": engine.num_gpu_blocks * engine.block_size,
        }
        labels = ",".join(['engine="0"', *(f'{name}="{size}"' for name, size in sizes.items())])
        lines += ["# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{labels}}} 1.0"]
        return "\n".join(lines) + "\n"


_COUNTERS: Final = (
    "prefix_cache_queries",
    "prefix_cache_hits",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
)


def _spoil(text: str, fault: int | str | None) -> str:
    if fault == MALFORMED:
        return text.replace('engine="0"}', 'engine="0"', 1)
    if fault == CUT_OFF:
        return text[: len(text) * 2 // 3]
    if fault == MISSING_NAME:
        return text.replace("vllm:prefix_cache_hits_total", "vllm:prefix_cache_hit_tokens_total")
    return text


def _block_names(tokens: Sequence[int], block_size: int) -> list[int]:
    """Name every full block by everything up to its end."""
    names, name = [], 0
    for end in range(block_size, len(tokens) + 1, block_size):
        name = hash((name, *tokens[end - block_size : end]))
        names.append(name)
    return names


async def _cut_all(server: web.Server) -> None:
    """Cut all connections at once; one that is just being accepted is there after a turn of the loop."""
    for _ in range(3):
        for connection in server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)


async def _ok(request: web.Request) -> web.Response:
    return web.Response()


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


def _address(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


async def _serve(port: int) -> None:
    async with FakeServer(FakeEngine(num_gpu_blocks=20_001, token_s=0.02)).running(port) as server:
        print(f"a pretended engine at {server.url}; ctrl-c ends it")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]) if len(sys.argv) > 1 else 8000))
