"""How a call waits: late commit, pings, budgets, second tries, and what is left when somebody has gone."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from concur.gateway.app import Gateway
from tests.gateway.helpers import (
    PATHS,
    STREAM,
    Door,
    Upstream,
    asking,
    gateway,
    named,
    one,
    says,
    until,
    whole,
)

QUICK = {"keep_alive_s": 0.01, "max_hold_s": 500.0}
PINGS = {
    "messages": b'event: ping\ndata: {"type": "ping"}\n\n',
    "chat": b": keep-alive\n\n",
    "responses": b": keep-alive\n\n",
    "completions": b": keep-alive\n\n",
}


def is_empty(made: Gateway) -> bool:
    """Whether nobody waits, calls or holds anything but the slots of agents in tool waits."""
    service, gate = made.service, made.control.gate.gate
    views = list(gate.views())
    return (
        not service.num_held
        and not service.num_running
        and not any(view.num_calls or view.waiting_since_s is not None for view in views)
        and not any(session.num_calls or session.waiting for session in made.sessions)
    )


def num_own_tasks() -> int:
    """Tasks but those of connections, which aiohttp keeps open."""
    return sum("RequestHandler.start" not in repr(task.get_coro()) for task in asyncio.all_tasks())


def num_asking(made: Gateway) -> int:
    """How many agents wait at the gate itself."""
    return sum(view.waiting_since_s is not None for view in made.control.gate.gate.views())


class Held:
    """One agent in a call that does not end, and so another one that is held."""

    def __init__(self, made: Gateway, client: aiohttp.ClientSession, door: Door) -> None:
        self.made, self.client, self.door = made, client, door
        self.holder: asyncio.Task[bytes]

    async def begin(self) -> None:
        self.holder = asyncio.create_task(self.call("holder"))
        await until(lambda: self.door.arrived == 1)

    async def call(self, agent: str, protocol: str = "chat", **body: Any) -> bytes:
        headers = named(agent) | body.pop("headers", {})
        async with self.client.post(
            self.made.url + PATHS[protocol], json=asking(protocol, **body), headers=headers
        ) as answer:
            return await answer.read()

    async def end(self) -> None:
        """Let the holder's call end, and the holder leave."""
        self.door.open()
        await self.holder
        await self.made.sessions.end(next(iter(self.made.sessions)), "idle")


@pytest.mark.parametrize("protocol", sorted(PATHS))
def test_a_held_stream_is_kept_alive_and_then_is_the_engines(protocol: str) -> None:
    async def main() -> None:
        door = Door(says(STREAM[protocol]))
        async with one(door, holding=QUICK) as (made, _, client):
            held = Held(made, client, door)
            await held.begin()
            asked = {"stream_options": {"include_usage": True}}
            waiting = asyncio.create_task(held.call("b", protocol, **asked))
            await until(lambda: made.service.num_held == 1)
            await until(lambda: b"_pings_total 0.0" in made.metrics.page())
            async with client.post(
                made.url + PATHS[protocol], json=asking(protocol), headers=named("c")
            ) as answer:
                assert answer.status == 200
                first = await answer.content.readexactly(2 * len(PINGS[protocol]))
                assert first == 2 * PINGS[protocol]
            await held.end()
            got = await waiting
            assert got.replace(PINGS[protocol], b"") == STREAM[protocol]
            assert got.endswith(STREAM[protocol])

    asyncio.run(main())


def test_a_quick_error_keeps_its_status() -> None:
    async def main() -> None:
        async with (
            one(whole({"error": {"message": "no such model"}}, status=404)) as (made, _, client),
            client.post(made.url + PATHS["chat"], json=asking(), headers=named("a")) as answer,
        ):
            assert answer.status == 404
            assert await answer.json() == {"error": {"message": "no such model"}}
            assert made.control.gate.num_steps == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("protocol", "word"),
    [
        ("chat", b'data: {"error"'),
        ("responses", b"event: response.failed"),
        ("messages", b"event: error"),
    ],
)
def test_a_late_error_is_an_event(protocol: str, word: bytes) -> None:
    async def main() -> None:
        door = Door(whole({"error": "the model is gone"}, status=500))
        async with one(door, holding=QUICK) as (made, _, client):
            async with client.post(
                made.url + PATHS[protocol], json=asking(protocol), headers=named("a")
            ) as answer:
                assert answer.status == 200
                await answer.content.readexactly(len(PINGS[protocol]))
                door.open()
                rest = await answer.read()
            event = rest.replace(PINGS[protocol], b"")
            assert event.startswith(word)
            assert b"the model is gone" in event
            assert event.endswith(b"\n\n")
            await until(lambda: is_empty(made))

    asyncio.run(main())


def test_pings_come_between_two_events_and_never_into_one() -> None:
    async def main() -> None:
        pieces = [b"data: {", b'"choices": []}\n', b"\n", b"data: 2\n\n"]
        steps = [asyncio.Event() for _ in pieces]

        async def slow(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
            response = aiohttp.web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for piece, step in zip(pieces, steps, strict=True):
                await step.wait()
                await response.write(piece)
            return response

        asked = asking(stream_options={"include_usage": True})
        async with (
            one(slow, holding=QUICK) as (made, _, client),
            client.post(made.url + PATHS["chat"], json=asked, headers=named("a")) as answer,
        ):
            ping = PINGS["chat"]
            got = await answer.content.readexactly(len(ping))
            for step in steps[:3]:
                step.set()
                await asyncio.sleep(0.05)  # long enough for pings, were they allowed
            while not got.endswith(b"\n\n" + 2 * ping):
                got += await answer.content.readexactly(1)
            steps[3].set()
            got += await answer.read()
            assert got.replace(ping, b"") == b"".join(pieces)
            assert b"".join(pieces[:3]) in got

    asyncio.run(main())


@pytest.mark.parametrize("streams", [True, False])
def test_who_is_held_too_long_is_told_to_come_again_and_keeps_its_place(streams: bool) -> None:
    async def main() -> None:
        door = Door(says(STREAM["chat"]))
        hold = {"keep_alive_s": 0.02 if streams else 0.04, "max_hold_s": 0.05}
        async with one(door, holding=hold) as (made, _, client):
            held = Held(made, client, door)
            await held.begin()
            since = set()

            async def watch() -> None:
                while True:
                    views = {view.agent_id: view for view in made.control.gate.gate.views()}
                    since.add(views["session-id:b"].waiting_since_s if "session-id:b" in views else None)
                    await asyncio.sleep(0.001)

            watching = asyncio.create_task(watch())
            for _ in range(2):
                async with client.post(
                    made.url + PATHS["chat"], json=asking(stream=streams), headers=named("b")
                ) as answer:
                    body = await answer.read()
                    if streams:
                        assert answer.status == 200
                        error = json.loads(body.split(b"data: ")[-1])["error"]
                    else:
                        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
                        error = json.loads(body)["error"]
                    assert error["code"] == "held_too_long"
            watching.cancel()
            assert len(since - {None}) == 1
            await held.end()
            await until(lambda: is_empty(made))

    asyncio.run(main())


def test_a_second_try_takes_the_place_of_the_first() -> None:
    async def main() -> None:
        door = Door(says(STREAM["chat"]))
        async with one(door, holding=QUICK | {"resend_after_s": 0}) as (made, upstream, client):
            held = Held(made, client, door)
            await held.begin()
            first = asyncio.create_task(held.call("b"))
            await until(lambda: made.service.num_held == 1)
            gate = made.control.gate.gate
            since = {view.agent_id: view.waiting_since_s for view in gate.views()}
            later = asyncio.create_task(held.call("c"))
            await until(lambda: made.service.num_held == 2)
            again = asyncio.create_task(held.call("b"))
            assert b"superseded" in await first
            await until(lambda: made.service.num_held == 2)
            assert {view.agent_id: view.waiting_since_s for view in gate.views()}["session-id:b"] == since[
                "session-id:b"
            ]
            await held.end()
            assert b"hi" in await again
            await made.sessions.end(
                next(session for session in made.sessions if session.agent_id.endswith("b")), "idle"
            )
            assert b"hi" in await later
            assert made.sessions.num_resends == 1
            assert len(upstream.seen) == 3

    asyncio.run(main())


@pytest.mark.parametrize("named_by", ["first moment", "a guess"])
def test_two_equal_calls_are_two_calls_where_a_second_try_is_not_sure(named_by: str) -> None:
    async def main() -> None:
        door = Door(says(STREAM["chat"]))
        after_s = 3600 if named_by == "first moment" else 0
        async with one(door, holding=QUICK | {"resend_after_s": after_s}) as (made, upstream, client):
            held = Held(made, client, door)
            await held.begin()
            headers = named("b") if named_by == "first moment" else {}

            async def call() -> bytes:
                async with client.post(made.url + PATHS["chat"], json=asking(), headers=headers) as answer:
                    return await answer.read()

            calls = [asyncio.create_task(call()) for _ in range(3)]
            await until(lambda: made.service.num_held == 3)
            await held.end()
            assert all(b"hi" in got for got in await asyncio.gather(*calls))
            assert len(upstream.seen) == 4

    asyncio.run(main())


@pytest.mark.parametrize("point", ["held before commit", "between pings", "at the engine", "mid-stream"])
def test_a_client_that_goes_leaves_no_slot_no_task_and_no_connection(point: str) -> None:
    async def main() -> None:
        is_held = point in ("held before commit", "between pings")
        first = b"" if is_held or point == "at the engine" else STREAM["chat"][:30]
        door = Door(says(STREAM["chat"]), first)
        quiet = QUICK if point == "between pings" else {}
        async with one(door, holding=quiet) as (made, upstream, client):
            held = Held(made, client, door)
            if is_held:
                await held.begin()
            num_tasks = num_own_tasks()
            for number in range(1, 21):
                call = asyncio.create_task(held.call("b"))
                if is_held:
                    await until(lambda: made.service.num_held == 1)
                else:
                    await until(lambda number=number: door.arrived == number)  # type: ignore[misc]
                if point == "between pings":
                    await asyncio.sleep(0.03)
                call.cancel()
                await asyncio.wait([call])
                if is_held:
                    await until(lambda: not made.service.num_held and not num_asking(made))
                else:
                    await until(lambda number=number: upstream.num_cut == number)  # type: ignore[misc]
            if is_held:
                assert door.arrived == 1
                await held.end()
            await until(lambda: is_empty(made))
            await until(lambda: not upstream.num_open)
            await until(lambda: num_own_tasks() <= num_tasks)
            door.open()
            await held.call("b")  # its slot is its own, as before
            assert made.control.gate.gate.active == len(made.sessions) == 1

    asyncio.run(main())


def test_an_engine_that_dies_before_the_first_byte_is_a_clear_error_and_costs_no_slot() -> None:
    async def main() -> None:
        async def dies(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError

        async with one(dies) as (made, upstream, client):
            for _ in range(20):
                async with client.post(
                    made.url + PATHS["messages"], json=asking("messages"), headers=named("a")
                ) as answer:
                    assert answer.status == 502
                    assert (await answer.json())["error"]["type"] == "upstream_error"
            upstream.answer = says(STREAM["messages"])
            async with client.post(
                made.url + PATHS["messages"], json=asking("messages"), headers=named("a")
            ) as answer:
                assert answer.status == 200
            await until(lambda: is_empty(made))

    asyncio.run(main())


def test_an_engine_that_dies_in_mid_stream_breaks_the_answer_off() -> None:
    async def main() -> None:
        async def dies(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
            response = aiohttp.web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(STREAM["chat"][:40])
            await asyncio.sleep(0.01)
            assert request.transport is not None
            request.transport.abort()
            return response

        async with one(dies) as (made, _, client):
            for _ in range(20):
                with pytest.raises(aiohttp.ClientError):
                    async with client.post(
                        made.url + PATHS["chat"], json=asking(), headers=named("a")
                    ) as answer:
                        await answer.read()
            await until(lambda: is_empty(made))
            assert made.control.gate.num_steps == 0

    asyncio.run(main())


def test_an_engine_that_restarts_is_asked_again() -> None:
    async def main() -> None:
        upstream = Upstream(says(STREAM["chat"]))
        async with aiohttp.ClientSession() as client:
            async with upstream.running():
                port = int(upstream.url.rsplit(":", 1)[1])
                block = gateway(upstream)
                made = await block.__aenter__()
            call = {"json": asking(), "headers": named("a")}
            async with client.post(made.url + PATHS["chat"], **call) as answer:  # type: ignore[arg-type]
                assert answer.status == 502
            await until(lambda: made.control.num_stale)
            again = Upstream(says(STREAM["chat"]))
            async with again.running(port):
                async with client.post(made.url + PATHS["chat"], **call) as answer:  # type: ignore[arg-type]
                    assert answer.status == 200
                await until(lambda: not made.control.num_stale)
                await block.__aexit__(None, None, None)

    asyncio.run(main())


def test_a_thousand_calls_with_every_ending_leave_nothing_behind() -> None:
    async def main() -> None:
        number = 0

        async def anything(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
            nonlocal number
            number += 1
            kind = number % 5
            if kind == 0:
                assert request.transport is not None
                request.transport.abort()
                raise asyncio.CancelledError
            if kind == 1:
                return await whole({"error": "busy"}, status=500)(request)
            if kind == 2:
                await asyncio.sleep(0.02)
            return await says(STREAM["chat"][:50], STREAM["chat"][50:])(request)

        cap = {"kind": "agent_cap", "cap": 4, "interval_s": 0.05}
        async with one(anything, controller=cap, holding=QUICK, sessions={"turn_ends_s": 0.01}) as (
            made,
            upstream,
            client,
        ):
            held = Held(made, client, Door(anything))
            await held.call("warm")
            num_tasks = num_own_tasks()

            async def agent(name: str) -> None:
                for turn in range(50):
                    call = asyncio.create_task(held.call(name, headers={"x-session-final": "1"}))
                    if turn % 3 == 0:
                        await asyncio.wait([call], timeout=0.003 * (turn % 7))
                        call.cancel()
                    await asyncio.wait([call])

            async with asyncio.TaskGroup() as group:
                for each in range(20):
                    group.create_task(agent(f"agent-{each}"))
            await until(lambda: is_empty(made))
            await until(lambda: not upstream.num_open)
            await until(lambda: made.control.gate.gate.active == len(made.sessions) <= 1)
            await until(lambda: num_own_tasks() == num_tasks)
            assert len(upstream.seen) > 500

    asyncio.run(main())
