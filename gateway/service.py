"""One call through the gate: who makes it, its turn, the engine, and what the gate is told of it."""

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from concur.errors import NoEngineError
from concur.gateway.config import GatewayConfig
from concur.gateway.downstream import Downstream
from concur.gateway.errors import Refusal, SupersededError
from concur.gateway.forward import Call, Forwarder, Outcome, upstream_headers
from concur.gateway.identity import Identity, identify
from concur.gateway.logs import EventLog
from concur.gateway.metrics import Metrics
from concur.gateway.protocols import Protocol, offers_tools
from concur.gateway.record import ServedCall
from concur.gateway.requests import make_call, object_of, read_body
from concur.gateway.sessions import Session, Sessions, Waiting, call_digest, choose_upstream
from concur.live.errors import ControlError
from concur.live.gate import AsyncGate, Step
from concur.routing import RoutedCall

_GONE: Final = 499  # a word of nginx for a client that closed its request
OnServed = Callable[[ServedCall], None]


class _CallFailedError(Exception):
    """A step that ends without an answer: its agent's history is what it was."""


@dataclass(slots=True)
class _Told:
    """What the log says of a call."""

    identity: Identity | None
    stage: str = "held"
    wait_s: float | None = None
    outcome: Outcome | None = None
    refused: str | None = None


class Service:
    """Serve calls. `key` is sent upstream in place of the clients'; `is_open`: the gate has failed.

    `upstream_of` says where an engine that a fleet's gate has chosen is; `on_failed` is told which did not
    answer.
    """

    def __init__(
        self,
        config: GatewayConfig,
        gate: AsyncGate,
        sessions: Sessions,
        forwarder: Forwarder,
        metrics: Metrics,
        log: EventLog,
        *,
        key: str | None = None,
        on_served: OnServed = lambda _call: None,
        on_failed: Callable[[str], None] = lambda _upstream: None,
        upstream_of: Callable[[int | None], str | None] = lambda _engine: None,
    ) -> None:
        self.num_held = 0
        self.num_running = 0
        self.is_open = False
        self.is_draining = False
        self._config = config
        self._gate = gate
        self._sessions = sessions
        self._forwarder = forwarder
        self._metrics = metrics
        self._log = log
        self._key = key
        self._on_served = on_served
        self._on_failed = on_failed
        self._engine_url = upstream_of
        self._rules = config.identity.rules
        self._num_unknown = 0
        self._turns: set[asyncio.Task[Step]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def drain(self) -> None:
        """Begin no call any more, and send away those that wait; those that run go on."""
        self.is_draining = True
        for turn in self._turns:
            turn.cancel()

    async def drained(self, timeout_s: float) -> None:
        """Wait for the calls that run, and end those that take longer."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def gated(self, request: web.Request, protocol: Protocol) -> web.StreamResponse:
        """Serve a call of one of our protocols."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await self._gated(request, protocol)
        finally:
            self._tasks.discard(task)

    async def beside(self, request: web.Request) -> web.StreamResponse:
        """Pass on anything else, as it is."""
        raw = await read_body(request, self._config.limits.max_body_bytes)
        identity = identify(request.headers, {}, clients=self._rules, can_guess=False)
        down = self._downstream(request, None)
        call = Call(request.method, request.raw_path, self._headers(request), raw)
        upstream = self._upstream_of(identity)
        try:
            await self._forwarder.serve(call, upstream, down)
        except Refusal as refusal:
            self._sessions.upstream_failed(upstream)
            return await self._refused(refusal, down, request)
        assert down.response is not None
        return down.response

    async def _gated(self, request: web.Request, protocol: Protocol) -> web.StreamResponse:
        raw = await read_body(request, self._config.limits.max_body_bytes)
        body = object_of(raw)
        down = self._downstream(request, protocol if body.get("stream") is True else None)
        told = _Told(self._identity(request, body))
        try:
            if self.is_draining:
                raise Refusal(503, "draining", "the gateway ends; send it again", retry_after_s=1)
            call = make_call(request, protocol, self._headers(request), raw, body)
            if told.identity is None:
                self._metrics.passed.labels("unknown").inc()
                await self._run(call, self._upstream_of(None), down, told)
            else:
                await self._in_session(call, body, down, told)
        except Refusal as refusal:
            told.refused = refusal.kind
            return await self._refused(refusal, down, request)
        except NoEngineError as error:
            told.refused = "no_engine"
            nowhere = Refusal(503, "no_engine", f"{error}; send it again", retry_after_s=5)
            return await self._refused(nowhere, down, request)
        except asyncio.CancelledError:
            self._metrics.gone.labels(told.stage).inc()
            raise
        except ConnectionError:  # the client's: the upstream's are refusals
            self._metrics.gone.labels(told.stage).inc()
            return down.response or web.Response(status=_GONE)
        finally:
            self._write(request, protocol, down, told)
        assert down.response is not None
        return down.response

    async def _in_session(self, call: Call, body: Mapping[str, Any], down: Downstream, told: _Told) -> None:
        assert told.identity is not None
        session = await self._sessions.enter(told.identity)
        turn_ended = False
        try:
            if self.is_open:
                self._metrics.passed.labels("open").inc()
                await self._run(call, session.upstream, down, told)
            else:
                await self._in_step(call, session, down, told)
            outcome = told.outcome
            turn_ended = bool(outcome and outcome.is_good and offers_tools(body) and not outcome.calls_tool)
        except _CallFailedError:
            pass
        finally:
            await self._sessions.leave(session, turn_ended=turn_ended)

    async def _in_step(self, call: Call, session: Session, down: Downstream, told: _Told) -> None:
        ready_s = self._gate.now_s()
        async with AsyncExitStack() as stack:
            step = await self._turn(call, session, down, stack)
            told.wait_s = self._gate.now_s() - ready_s
            self._metrics.wait_s.observe(told.wait_s)
            chosen = self._engine_url(step.engine) if step is not None else None
            session.upstream = chosen or session.upstream
            outcome = await self._run(call, session.upstream, down, told)
            if outcome.usage is not None and step is not None:
                step.usage = outcome.usage
            if not outcome.is_good:
                raise _CallFailedError
            if outcome.usage is not None:
                self._tell_record(session, ready_s, ready_s + told.wait_s, outcome)

    async def _turn(
        self, call: Call, session: Session, down: Downstream, stack: AsyncExitStack
    ) -> Step | None:
        """Wait for the agent's turn; `None` if the gate has failed and calls pass it."""
        if self.num_held >= self._config.holding.max_held:
            raise Refusal(
                503,
                "too_many_held",
                f"{self.num_held} calls wait but at most {self._config.holding.max_held} may; raise "
                "holding.max_held",
                retry_after_s=5,
            )
        digest = call_digest(call.method, call.target, call.body)
        earlier = self._sessions.supersede(session, digest, call.headers)
        if earlier is not None:
            await asyncio.wait({earlier})
        waiting = Waiting(self._gate.now_s())
        turn: asyncio.Task[Step] = asyncio.create_task(
            stack.enter_async_context(session.agent.step(RoutedCall(session.agent_id, session.root, 0)))
        )
        waiting.turn = turn
        session.waiting[digest] = waiting
        self._turns.add(turn)
        self.num_held += 1
        limit_s = min(session.identity.hold_s, self._config.holding.max_hold_s)
        try:
            await down.quietly(turn, limit_s=limit_s)
            return turn.result()
        except asyncio.CancelledError:
            if waiting.is_superseded:
                raise SupersededError from None
            if self.is_draining and turn.cancelled():
                raise Refusal(503, "draining", "the gateway ends; send it again", retry_after_s=1) from None
            raise
        except ControlError as error:
            self._lost_control(error)
            return None
        finally:
            self.num_held -= 1
            self._turns.discard(turn)
            if session.waiting.get(digest) is waiting:
                del session.waiting[digest]
            await _ended(turn)

    def _lost_control(self, error: ControlError) -> None:
        """Go on without the gate, or refuse; say so once."""
        if not self.is_open:
            self._log.write("control_lost", cause=str(error), fail_open=self._config.fail_open)
        if not self._config.fail_open:
            raise Refusal(503, "gate_failed", f"{error}; restart the gateway") from None
        self.is_open = True

    async def _run(self, call: Call, upstream: str, down: Downstream, told: _Told) -> Outcome:
        """Make the call upstream, and count what came of it."""
        told.stage = "running"
        self.num_running += 1
        try:
            outcome = await self._forwarder.serve(call, upstream, down)
        except Refusal:
            self._metrics.broken.labels(upstream).inc()
            self._sessions.upstream_failed(upstream)
            self._on_failed(upstream)
            raise
        finally:
            self.num_running -= 1
        told.outcome = outcome
        assert call.protocol is not None
        if outcome.usage is not None:
            self._metrics.prompt_tokens.labels(upstream).inc(outcome.usage.prompt_tokens)
            self._metrics.cached_tokens.labels(upstream).inc(outcome.usage.cached_tokens or 0)
            self._metrics.output_tokens.labels(upstream).inc(outcome.usage.output_tokens)
        elif outcome.is_good:
            self._metrics.no_usage.labels(call.protocol.name).inc()
        elif outcome.status >= 500 or outcome.status == 200:
            self._metrics.broken.labels(upstream).inc()
        return outcome

    def _tell_record(self, session: Session, ready_s: float, began_s: float, outcome: Outcome) -> None:
        assert outcome.usage is not None
        session.num_served += 1
        gate, agent_id = self._gate.gate, session.agent_id
        self._on_served(
            ServedCall(
                agent_id=agent_id,
                arrived_s=session.began_s,
                ready_s=ready_s,
                began_s=began_s,
                first_byte_s=outcome.first_byte_s,
                finished_s=self._gate.now_s(),
                usage=outcome.usage,
                num_pauses=gate.num_pauses(agent_id) if gate.is_here(agent_id) else 0,
            )
        )

    def _identity(self, request: web.Request, body: Mapping[str, Any]) -> Identity | None:
        unknown = self._config.identity.unknown
        identity = identify(
            request.headers,
            body,
            clients=self._rules,
            peer=request.remote or "",
            can_guess=unknown == "fingerprint",
        )
        if identity is None and unknown == "gated":
            self._num_unknown += 1
            identity = Identity(f"call:{self._num_unknown}", None, "fingerprint", "unknown", is_final=True)
        source, client = (identity.source, identity.client) if identity else ("none", "unknown")
        self._metrics.identities.labels(source, client).inc()
        return identity

    def _headers(self, request: web.Request) -> Any:
        return upstream_headers(
            request.headers, key=self._key, drops_keys=self._config.auth.token_env is not None
        )

    def _downstream(self, request: web.Request, protocol: Protocol | None) -> Downstream:
        return Downstream(
            request, protocol, keep_alive_s=self._config.holding.keep_alive_s, clock=self._gate.now_s
        )

    def _upstream_of(self, identity: Identity | None) -> str:
        """Return where a call without a session goes: with its agent's others, or to the first."""
        standing = self._sessions.standing()
        return choose_upstream(identity.parent or identity.agent_id, standing) if identity else standing[0]

    async def _refused(self, refusal: Refusal, down: Downstream, request: web.Request) -> web.StreamResponse:
        self._metrics.refused.labels(refusal.kind).inc()
        try:
            return await down.refuse(refusal, is_anthropic=request.path.startswith("/v1/messages"))
        except ConnectionError:
            self._metrics.gone.labels("refused").inc()
            return down.response or web.Response(status=_GONE)

    def _write(self, request: web.Request, protocol: Protocol, down: Downstream, told: _Told) -> None:
        outcome, identity = told.outcome, told.identity
        status = outcome.status if outcome else _GONE
        if told.refused:
            status = down.response.status if down.response is not None else 0
        self._metrics.calls.labels(protocol.name, told.refused or str(status)).inc()
        self._metrics.pings.inc(down.num_pings)
        usage = outcome.usage if outcome else None
        self._log.write(
            "call",
            protocol=protocol.name,
            agent=identity.agent_id if identity else None,
            parent=identity.parent if identity else None,
            source=identity.source if identity else None,
            wait_s=_rounded(told.wait_s),
            status=status or None,
            refused=told.refused,
            is_good=outcome.is_good if outcome else None,
            prompt_tokens=usage.prompt_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            cached_tokens=usage.cached_tokens if usage else None,
            pings=down.num_pings or None,
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)


async def _ended(task: "asyncio.Task[Any]") -> None:
    """Take back a turn that nobody waits for any more."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
