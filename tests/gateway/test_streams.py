"""Bytes that pass: nothing comes into an event, and nothing is taken but what only the gateway asked for."""

import asyncio
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from concur.gateway.events import EventSplitter
from concur.gateway.protocols import PROTOCOLS, UsageReader, ask_for_usage
from concur.gateway.relay import Relay
from concur.signals import Usage
from tests.gateway.chat_server import STREAMS
from tests.gateway.helpers import PATHS, STREAM, asking, named, one, says

BY_NAME = {protocol.name: protocol for protocol in PROTOCOLS}
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}\n\n'

_LINES = st.sampled_from(
    [
        b'data: {"choices": [{"delta": {"content": "a"}}], "usage": null}',
        b'data: {"usage": "of a tool", "choices": [{"delta": {"tool_calls": [{"id": 1}]}}]}',
        b": a comment",
        b"event: ping",
        b"id: 7",
        b"data: \xc3\xa4\xff not utf-8",
        b"data: [DONE]",
        b"",
    ]
)
_EVENTS = st.tuples(st.lists(_LINES, min_size=1, max_size=3), st.sampled_from([b"\n", b"\r\n"])).map(
    lambda parts: parts[1].join(parts[0]) + parts[1] * 2
)
_STREAMS = st.tuples(st.lists(_EVENTS, max_size=6), st.sampled_from([b"", b"data: half"])).map(
    lambda parts: b"".join(parts[0]) + parts[1]
)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[start:end] for start, end in pairwise(marks)]


_PLACES = st.lists(st.integers(0, 10_000), max_size=30)


@given(_STREAMS, _PLACES, st.booleans())
def test_what_passes_is_what_came_however_it_was_cut(stream: bytes, places: list[int], takes: bool) -> None:
    relay = Relay(BY_NAME["chat"], takes_usage_out=takes)
    passed = b"".join(relay.feed(chunk) for chunk in cut(stream, places)) + relay.end()
    assert passed == stream


@given(_STREAMS, _STREAMS, _PLACES)
def test_the_chunk_of_usage_and_no_other_is_taken_out(before: bytes, after: bytes, places: list[int]) -> None:
    before = before.removesuffix(b"data: half")
    relay = Relay(BY_NAME["chat"], takes_usage_out=True)
    stream = before + USAGE + after
    passed = b"".join(relay.feed(chunk) for chunk in cut(stream, places)) + relay.end()
    assert passed == before + after
    assert relay.reader.usage == Usage(5, 1, None)


@given(_STREAMS, _PLACES)
def test_a_ping_never_comes_into_an_event(stream: bytes, places: list[int]) -> None:
    splitter, sent, whole = EventSplitter(), b"", b""
    for chunk in cut(stream, places):
        whole += b"".join(splitter.feed(chunk))
        sent += chunk
        if splitter.is_between:
            assert sent == whole


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(_STREAMS, _PLACES), min_size=1, max_size=8), st.sampled_from(sorted(PATHS)))
def test_streams_through_the_gateway_are_the_engines_byte_for_byte(
    streams: list[tuple[bytes, list[int]]], protocol: str
) -> None:
    async def main() -> None:
        async with one(controller={"kind": "none"}) as (gateway, upstream, client):
            for number, (stream, places) in enumerate(streams):
                upstream.answer = says(*cut(stream, places))
                for asks in (True, False):
                    body = asking(protocol, stream_options={"include_usage": asks})
                    got = []
                    for url in (upstream.url, gateway.url):
                        async with client.post(
                            url + PATHS[protocol], json=body, headers=named(f"{number}")
                        ) as answer:
                            got.append((answer.status, answer.headers["Content-Type"], await answer.read()))
                    assert got[0] == got[1]
                    assert got[0][2] == stream

    asyncio.run(main())


@pytest.mark.parametrize("protocol", sorted(PATHS))
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_usage_is_read_of_every_protocol_and_reaches_the_gate(protocol: str, step: int) -> None:
    async def main() -> None:
        stream = STREAM[protocol]
        chunks = [stream[at : at + step] for at in range(0, len(stream), step)]
        async with one(says(*chunks)) as (gateway, _, client):
            async with client.post(
                gateway.url + PATHS[protocol], json=asking(protocol), headers=named("a")
            ) as answer:
                await answer.read()
            assert gateway.control.gate.num_usages == 1
            assert gateway.control.gate.gate.context_tokens("session-id:a") == 14
            page = gateway.metrics.page().decode()
            assert f'cached_tokens_total{{upstream="{gateway.config.upstreams[0]}"}} 8.0' in page

    asyncio.run(main())


def test_usage_of_an_answer_in_one_piece() -> None:
    counts = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None}
    answers = {
        "chat": ({"usage": counts}, Usage(9, 2)),
        "completions": ({"usage": counts}, Usage(9, 2)),
        "responses": ({"usage": {"input_tokens": 9, "output_tokens": 2}}, Usage(9, 2)),
        "messages": (
            {"usage": {"input_tokens": 4, "cache_creation_input_tokens": 5, "output_tokens": 2}},
            Usage(9, 2),
        ),
    }
    for name, (body, expected) in answers.items():
        reader = UsageReader(BY_NAME[name])
        reader.read_whole(json.dumps(body).encode())
        assert reader.usage == expected
        for odd in (b"", b"[]", b'{"usage": []}', b'{"usage": {"prompt_tokens": true}}', b"[" * 100_000):
            UsageReader(BY_NAME[name]).read_whole(odd)


def test_a_prompt_that_message_delta_repeats_is_better_than_that_of_message_start() -> None:
    reader = UsageReader(BY_NAME["messages"])
    reader.read_event(b'data: {"message": {"usage": {"input_tokens": 100, "output_tokens": 0}}}\n\n')
    reader.read_event(
        b'data: {"usage": {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 7}}\n\n'
    )
    assert reader.usage == Usage(100, 7, 80)


@pytest.mark.parametrize(
    "raw", [b'{"stream":true, "model" : "m"}', b" \n{ }", b'{"stream_options": null, "stream": true}']
)
def test_a_request_asks_for_usage_and_keeps_its_other_bytes(raw: bytes) -> None:
    body = json.loads(raw)
    asked = ask_for_usage(raw, body)
    assert json.loads(asked) == body | {"stream_options": {"include_usage": True}}
    if "stream_options" not in body:
        assert asked.endswith(raw.lstrip(b" \n{"))


def test_a_request_that_is_not_utf_8_is_written_anew() -> None:
    body = asking()
    raw = json.dumps(body).encode("utf-16")
    assert json.loads(ask_for_usage(raw, body)) == body | {"stream_options": {"include_usage": True}}


def test_the_engine_is_asked_for_usage_only_where_the_client_did_not() -> None:
    async def main() -> None:
        async with one(says(STREAM["chat"])) as (gateway, upstream, client):
            bodies = [asking(), asking(stream_options={"include_usage": True, "x": 1}), asking(stream=False)]
            got = []
            for body in bodies:
                async with client.post(gateway.url + PATHS["chat"], json=body, headers=named("a")) as answer:
                    got.append(await answer.read())
            asked = [seen.json.get("stream_options") for seen in upstream.seen]
            assert asked == [{"include_usage": True}, {"include_usage": True, "x": 1}, None]
            assert b'"usage"' not in got[0]
            assert got[1] == STREAM["chat"]

    asyncio.run(main())


def test_requests_pass_with_their_query_headers_and_bytes_and_without_what_is_of_one_hop() -> None:
    async def main() -> None:
        async with one(says(b"{}", status=418, content_type="application/json", X_Answer="1")) as (
            gateway,
            upstream,
            client,
        ):
            raw = b'{"model": "m",  "messages": []}'
            headers = {
                "anthropic-beta": "a,b",
                "Authorization": "Bearer mine",
                "Connection": "x-hop",
                "x-hop": "1",
                "Content-Type": "application/json",
                "Accept-Encoding": "gzip",
            }
            url = URL(f"{gateway.url}/v1/messages?beta=true&x=%2F%20", encoded=True)
            async with client.post(url, data=raw, headers=headers | named("a")) as answer:
                assert (answer.status, await answer.read()) == (418, b"{}")
                assert answer.headers["X_Answer"] == "1"
            (seen,) = upstream.seen
            assert (seen.target, seen.body) == ("/v1/messages?beta=true&x=%2F%20", raw)
            assert seen.headers["anthropic-beta"] == "a,b"
            assert seen.headers["Authorization"] == "Bearer mine"
            assert seen.headers["Accept-Encoding"] == "identity"
            assert not {"x-hop", "Connection"} & seen.headers.keys()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/messages/count_tokens?beta=true"),
        ("GET", "/health"),
        ("DELETE", "/v1/responses/r"),
    ],
)
def test_everything_else_passes_beside_the_gate(method: str, path: str) -> None:
    async def main() -> None:
        async with one(says(b"yes", content_type="text/x")) as (gateway, upstream, client):
            async with client.request(method, gateway.url + path, data=b"b", headers=named("a")) as answer:
                assert (answer.status, await answer.read()) == (200, b"yes")
            assert (upstream.seen[0].method, upstream.seen[0].target) == (method, path)
            assert len(gateway.sessions) == 0

    asyncio.run(main())


@pytest.mark.parametrize("protocol", sorted(PATHS))
@given(places=_PLACES)
def test_what_vllm_streamed_passes_as_it_was_recorded(protocol: str, places: list[int]) -> None:
    stream = (STREAMS / f"{protocol}.sse").read_bytes()
    relay = Relay(BY_NAME[protocol], takes_usage_out=False)
    passed = b"".join(relay.feed(chunk) for chunk in cut(stream, places)) + relay.end()
    assert passed == stream
    assert relay.reader.usage is not None
    assert relay.reader.usage.output_tokens == 24


@pytest.mark.parametrize("protocol", sorted(PATHS))
def test_recorded_streams_reach_the_client_byte_for_byte(protocol: str) -> None:
    async def main() -> None:
        stream = (STREAMS / f"{protocol}.sse").read_bytes()
        chunks = [stream[at : at + 97] for at in range(0, len(stream), 97)]
        async with one(says(*chunks)) as (gateway, _, client):
            body = asking(protocol, stream_options={"include_usage": True})
            async with client.post(gateway.url + PATHS[protocol], json=body, headers=named("a")) as answer:
                assert await answer.read() == stream
            assert gateway.control.gate.num_usages == 1

    asyncio.run(main())
