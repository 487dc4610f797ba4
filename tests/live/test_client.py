"""The client against a server whose truth is known: counts, times, and which failures are tried again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import numpy as np
import pytest

from concur.validate.errors import CallError
from concur.validate.live.client import CompletionClient, RetryPolicy
from concur.validate.live.fake_server import BREAK_OFF, HANG, NO_USAGE, SHORT, FakeEngine, FakeServer, Faults

T = TypeVar("T")
PROMPT = tuple(range(100, 150))


def run_client(
    use: Callable[[CompletionClient, FakeServer], Awaitable[T]],
    *,
    faults: Faults | None = None,
    token_s: float = 0.0,
    stream: bool = True,
    timeout_s: float = 5.0,
    max_attempts: int = 3,
    pauses: list[float] | None = None,
) -> T:
    async def main() -> T:
        async def sleep(pause_s: float) -> None:
            if pauses is not None:
                pauses.append(pause_s)

        async with (
            FakeServer(FakeEngine(token_s=token_s), faults).running() as server,
            aiohttp.ClientSession() as session,
        ):
            client = CompletionClient(
                session,
                server.url,
                "fake",
                clock=asyncio.get_running_loop().time,
                rng=np.random.default_rng(0),
                retry=RetryPolicy(max_attempts=max_attempts, timeout_s=timeout_s),
                stream=stream,
                sleep=sleep,
            )
            return await use(client, server)

    return asyncio.run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_tokens_counts_and_cached_tokens_are_the_servers(stream: bool) -> None:
    async def use(client: CompletionClient, server: FakeServer) -> None:
        for cached in (0, 48):
            done = await client.complete(PROMPT, 5)
            assert done.token_ids == tuple(10 + 50 + i for i in range(5))
            assert (done.prompt_tokens, done.cached_tokens, done.causes) == (50, cached, ())
            assert server.served[-1].prompt == PROMPT
            assert server.served[-1].is_complete

    run_client(use, stream=stream)


def test_the_first_token_is_timed_when_it_was_really_sent() -> None:
    async def use(client: CompletionClient, server: FakeServer) -> None:
        done = await client.complete(PROMPT, 4)
        truth = server.served[0].sent_s
        assert done.first_token_s is not None
        assert done.sent_s < truth[0] <= done.first_token_s < truth[1], "before the second was sent"
        assert truth[-1] <= done.finished_s

    run_client(use, token_s=0.05)


def test_an_answer_in_one_piece_has_no_first_token_time() -> None:
    done = run_client(lambda client, server: client.complete(PROMPT, 4), stream=False)
    assert done.first_token_s is None


def test_a_prompt_of_many_chunks_arrives_whole() -> None:
    prompt = tuple(range(100_000))
    done = run_client(lambda client, server: client.complete(prompt, 2))
    assert done.prompt_tokens == 100_000


@pytest.mark.parametrize("fault", [429, 500, 503, BREAK_OFF, NO_USAGE])
def test_a_passing_failure_is_tried_again(fault: int | str) -> None:
    async def use(client: CompletionClient, server: FakeServer) -> None:
        done = await client.complete(PROMPT, 3)
        assert done.token_ids == (60, 61, 62), "nothing of the broken attempt is left"
        assert len(done.causes) == 1
        assert server.num_calls == 2

    run_client(use, faults=Faults(calls={0: fault}))


def test_a_call_that_gets_no_answer_in_time_is_tried_again() -> None:
    done = run_client(
        lambda client, server: client.complete(PROMPT, 3), faults=Faults(calls={0: HANG}), timeout_s=0.2
    )
    assert done.causes == ("no answer within 0.2 s",)


def test_retries_are_bounded_and_their_pauses_grow_with_jitter() -> None:
    pauses: list[float] = []

    async def use(client: CompletionClient, server: FakeServer) -> int:
        with pytest.raises(CallError, match="4 attempts failed, the last with: status 500"):
            await client.complete(PROMPT, 3)
        return server.num_calls

    faults = Faults(calls=dict.fromkeys(range(9), 500))
    assert run_client(use, faults=faults, max_attempts=4, pauses=pauses) == 4
    rng = np.random.default_rng(0)
    assert pauses == [0.5 * 2.0**n * rng.uniform(0.5, 1.0) for n in range(3)]


@pytest.mark.parametrize("status", [400, 404])
def test_a_refusal_is_final(status: int) -> None:
    async def use(client: CompletionClient, server: FakeServer) -> int:
        with pytest.raises(CallError, match=f"status {status}"):
            await client.complete(PROMPT, 3)
        return server.num_calls

    assert run_client(use, faults=Faults(calls={0: status})) == 1


def test_a_server_that_is_gone_is_an_error_after_the_last_attempt() -> None:
    async def use(client: CompletionClient, server: FakeServer) -> None:
        with pytest.raises(CallError, match="3 attempts failed"):
            await client.complete(PROMPT, 6)
        assert server.num_calls == 1, "the others found nobody"
        assert not server.served[0].is_complete

    run_client(use, faults=Faults(die_at_call=0))


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_of_another_length_is_refused(stream: bool) -> None:
    async def use(client: CompletionClient, server: FakeServer) -> None:
        with pytest.raises(CallError, match=r"\(50, 4, 4\) but \(50, 5, 5\) were asked for"):
            await client.complete(PROMPT, 5)

    run_client(use, faults=Faults(calls={0: SHORT}), stream=stream)
