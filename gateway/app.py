"""The gateway as a server: its routes, its own pages, its life from the first reading to the drain."""

import asyncio
import hmac
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final

from aiohttp import web

from concur.gateway.config import GatewayConfig
from concur.gateway.control import Control
from concur.gateway.downstream import refusal_response
from concur.gateway.errors import GatewayError, Refusal
from concur.gateway.fleet_control import FleetControl
from concur.gateway.forward import Forwarder, client_session
from concur.gateway.logs import EventLog, utc_now
from concur.gateway.metrics import Metrics
from concur.gateway.protocols import PROTOCOLS, Protocol
from concur.gateway.record import Stretch, stretch_name
from concur.gateway.requests import check_target
from concur.gateway.service import Service
from concur.gateway.sessions import Sessions
from concur.gateway.status import page, status
from concur.live.errors import ControlError
from concur.sim.errors import RecordError

_LARGEST_HEADER: Final = 1 << 16
_LOOK_EVERY_S: Final = 1.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """One gateway. Life: the block of `running`; `drain` asks it to end.

    `url` is where it listens, once it does.
    """

    def __init__(self, config: GatewayConfig, log: EventLog) -> None:
        self.config = config
        self.url = ""
        self.metrics = Metrics()
        self.control: Control
        self.sessions: Sessions
        self.service: Service
        self._log = log
        self._is_over = asyncio.Event()
        self._num_stretches = 0
        self._token = _secret(config.auth.token_env)
        self._key = _secret(config.auth.upstream_key_env)
        self._start_s = 0.0

    def now_s(self) -> float:
        """Return seconds since the start, on the event loop's clock."""
        return asyncio.get_running_loop().time() - self._start_s

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Gateway"]:
        """Serve until the end of the block; then drain.

        Raises
        ------
        UpstreamError, MetricNamesError
            If the engines cannot be read at the start.
        OSError
            If the address is taken.
        """
        self._start_s = asyncio.get_running_loop().time()
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(client_session(self.config.limits.connect_s))
            kind = Control if self.config.fleet is None else FleetControl
            self.control = kind(self.config, session, self.metrics, self._log, self.now_s)
            await self.control.start()
            await self._serve(stack, session)
            try:
                yield self
            finally:
                await self._drain()

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._is_over.set)
        async with self.running():
            await self._is_over.wait()

    async def _serve(self, stack: AsyncExitStack, session: Any) -> None:
        config, control = self.config, self.control
        self.sessions = Sessions(
            control.gate,
            config.upstreams,
            config.sessions,
            config.holding,
            on_end=lambda ended, ending: self._log.write(
                "agent_left", agent=ended.agent_id, ending=ending, calls=ended.num_served
            ),
        )
        self.service = Service(
            config,
            control.gate,
            self.sessions,
            Forwarder(session),
            self.metrics,
            self._log,
            key=self._key,
            on_served=control.served,
            on_failed=control.failed,
            upstream_of=control.upstream_of,
        )
        control.num_held = lambda: self.service.num_held
        control.num_left = lambda: sum(self.sessions.num_ended.values())
        self.metrics.watch(control.gate, self.sessions, self.service)
        if config.record.folder is not None:
            control.stretch = self._new_stretch()
        await stack.enter_async_context(_controlled(control))
        watching = asyncio.create_task(self._watching(), name="concur gateway sessions")
        stack.push_async_callback(_stopped, watching)
        await self._listen(stack)

    async def _listen(self, stack: AsyncExitStack) -> None:
        runner = web.AppRunner(
            self._app(),
            handler_cancellation=True,
            shutdown_timeout=1.0,
            access_log=None,
            max_line_size=_LARGEST_HEADER,
            max_field_size=_LARGEST_HEADER,
            auto_decompress=False,
            keepalive_timeout=75.0,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        self._site = web.TCPSite(runner, self.config.host, self.config.port, backlog=4096)
        await self._site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._log.write("listening", url=self.url, controller=self.config.controller.label)

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=0, middlewares=[self._guard()])
        for protocol in PROTOCOLS:
            app.router.add_post(protocol.path, self._gated(protocol))
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/status", self._status_page)
        app.router.add_get("/health", self._health)
        app.router.add_route("*", "/{path:.*}", self._beside)
        return app

    def _gated(self, protocol: Protocol) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self.service.gated(request, protocol)

        return handle

    def _guard(self) -> Any:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                check_target(request.raw_path)
                if request.path != "/health":
                    check_token(request, self._token)
                return await handler(request)
            except Refusal as refusal:
                is_anthropic = request.path.startswith("/v1/messages")
                return refusal_response(refusal, is_anthropic=is_anthropic)

        return guard

    async def _beside(self, request: web.Request) -> web.StreamResponse:
        return await self.service.beside(request)

    async def _health(self, request: web.Request) -> web.StreamResponse:
        """The engine's own health, unless the gateway itself cannot serve."""
        if self.service.is_draining:
            raise Refusal(503, "draining", "the gateway ends", retry_after_s=1)
        return await self.service.beside(request)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        return web.Response(body=self.metrics.page(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _status_page(self, request: web.Request) -> web.Response:
        wants_page = "text/html" in request.headers.get("Accept", "") and "format" not in request.query
        if wants_page:
            return web.Response(text=page(), content_type="text/html")
        return web.json_response(status(self.config, self.control, self.sessions, self.service))

    async def _watching(self) -> None:
        """End sessions whose time is over, and records whose hour is."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            for session, ending in self.sessions.due(self.now_s()):
                await self.sessions.end(session, ending)
            stretch, config = self.control.stretch, self.config.record
            if stretch is not None and (
                self.now_s() - stretch.start_s >= config.rotate_s or stretch.num_calls >= config.max_calls
            ):
                self.control.stretch = self._new_stretch()
                await self._write(stretch)

    def _new_stretch(self) -> Stretch:
        self._num_stretches += 1
        return Stretch(self.now_s(), self.control.last, stretch_name(utc_now(), self._num_stretches))

    async def _write(self, stretch: Stretch) -> None:
        folder = self.config.record.folder
        assert folder is not None
        facts = {"upstreams": list(self.config.upstreams)}
        try:
            finished = await asyncio.to_thread(
                stretch.finish, self.config.controller, self.config.gate, facts
            )
            if finished is None:
                return
            path = await asyncio.to_thread(finished.write, folder, keep=self.config.record.keep)
        except (RecordError, OSError) as error:
            self._log.write("record_lost", cause=str(error))
        else:
            self._log.write("record", folder=str(path), calls=stretch.num_calls)

    async def _drain(self) -> None:
        """Take no new connection, send away who waits, let run what runs; then write what there is."""
        self._log.write("draining", held=self.service.num_held, running=self.service.num_running)
        await self._site.stop()
        self.service.drain()
        await self.service.drained(self.config.limits.drain_s)
        await self.sessions.end_all()
        if self.control.stretch is not None:
            await self._write(self.control.stretch)
        self._log.write("ended")


def check_token(request: web.Request, token: str | None) -> None:
    """Refuse a request without the gateway's token, if there is one.

    Raises
    ------
    Refusal
        If it is not in `Authorization: Bearer` or `x-api-key`.
    """
    if token is None:
        return
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    for each in (given, request.headers.get("x-api-key", "")):
        if hmac.compare_digest(each.encode(errors="surrogateescape"), token.encode()):
            return
    raise Refusal(401, "authentication_error", "the token is missing or wrong; send it as a bearer token")


@asynccontextmanager
async def _controlled(control: Control) -> AsyncIterator[None]:
    """Run the control loop; that it has failed was said when it did."""
    with suppress(ControlError):
        async with control.gate:
            yield


async def _stopped(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})


def _secret(variable: str | None) -> str | None:
    """Return what an environment variable has.

    Raises
    ------
    GatewayError
        If it is not set, or empty.
    """
    if variable is None:
        return None
    value = os.environ.get(variable, "")
    if not value:
        raise GatewayError(f"the environment variable {variable} is not set; set it, or leave [auth] out")
    return value
