"""Several addresses are one fleet: read at the same time, whole or not at all, each engine kept apart."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from concur.errors import ParameterError
from concur.live.errors import MetricNamesError, ReplicasError, ScrapeError
from concur.live.scrape import MetricsScraper
from tests.live.pages import SGLANG_TEXT, VLLM_TEXT, counted_text, field_page, vllm_text, without

USAGE, RUNNING, PROMPTS = "vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:prompt_tokens_total"
HALVES = field_page("sglang_pd").replace('"m"', '"deepseek-r1"')
Body = str | int | asyncio.Barrier
"""What an address answers: a text, a status, or, once all have been asked, a text."""


class Fleet:
    """Servers whose answers are what a test says; `urls` are their addresses, by name."""

    def __init__(self, **bodies: Body) -> None:
        self.bodies = bodies
        self.urls: dict[str, str] = {}

    async def _answer(self, request: web.Request) -> web.Response:
        body = self.bodies[request.match_info["name"]]
        if isinstance(body, asyncio.Barrier):
            await body.wait()
            body = VLLM_TEXT
        return web.Response(status=body) if isinstance(body, int) else web.Response(text=body)

    @asynccontextmanager
    async def scraped(self) -> AsyncIterator[MetricsScraper]:
        """Serve until the end of the block; hand out a scraper of all addresses."""
        app = web.Application()
        app.router.add_get("/{name}/metrics", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        self.urls = {name: f"http://{host}:{port}/{name}" for name in self.bodies}
        try:
            async with aiohttp.ClientSession() as session:
                yield MetricsScraper(session, list(self.urls.values()), clock=lambda: 7.0, timeout_s=5.0)
        finally:
            await runner.cleanup()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_addresses_are_summed_and_their_usage_is_weighted_by_what_their_pools_hold() -> None:
    async def test() -> None:
        big = vllm_text({"0": {USAGE: 0.9, RUNNING: 5, PROMPTS: 300}}, model="m").replace(
            'kv_cache_size_tokens="2048"', 'kv_cache_size_tokens="6144"'
        )
        both = vllm_text({"0": {USAGE: 0.1, RUNNING: 2, PROMPTS: 200}, "1": {RUNNING: 1}}, model="m")
        fleet = Fleet(a=big, b=both)
        async with fleet.scraped() as scraper:
            snapshot = await scraper.start()
            assert (snapshot.time_s, snapshot.num_requests_running, snapshot.prompt_tokens) == (7.0, 8, 700)
            assert (snapshot.num_gpu_blocks, snapshot.block_size) == (320, 32)
            assert snapshot.pool_tokens == 6144 + 2 * 2048
            assert snapshot.kv_cache_usage_frac == pytest.approx((0.9 * 6144 + 0.1 * 2048) / 10_240)
            a, b = fleet.urls["a"], fleet.urls["b"]
            assert [*scraper.reader.engines] == [f"{a} 0", f"{b} 0", f"{b} 1"]
            assert scraper.reader.engines[f"{a} 0"]["kv_cache_usage_frac"] == 0.9
            assert scraper.warnings[0].startswith(f"{a}: the engine says that its pool holds 6144")

    run(test)


def test_one_address_is_read_as_ever() -> None:
    async def test() -> None:
        async with Fleet(a=VLLM_TEXT).scraped() as scraper:
            assert (scraper.warnings, scraper.num_resets) == ((), 0)
            assert (await scraper.start()).prompt_tokens == 200
            assert [*scraper.reader.engines] == ["0"]
            assert (scraper.warnings, scraper.num_resets) == ((), 0)

    run(test)


def test_addresses_are_asked_at_the_same_time() -> None:
    async def test() -> None:
        together = asyncio.Barrier(3)  # an address alone would wait for ever
        async with Fleet(a=together, b=together, c=together).scraped() as scraper:
            assert (await scraper.start()).prompt_tokens == 600

    run(test)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (500, "answered with status 500"),
        ("", "empty"),
        (VLLM_TEXT[:-10], "cut off"),
        (field_page("vllm_two_models"), "models"),
        (without(VLLM_TEXT, "cache_config_info"), "cache_config_info not published"),
    ],
)
def test_if_one_cannot_be_read_there_is_no_number_of_the_others(body: Body, message: str) -> None:
    async def test() -> None:
        fleet = Fleet(a=VLLM_TEXT, b=body)
        async with fleet.scraped() as scraper:
            for read in (scraper.start, scraper.read):
                with pytest.raises(ScrapeError, match=message) as error:
                    await read()
                assert str(error.value).startswith(fleet.urls["b"])
                assert "\n" not in str(error.value)
                fleet.bodies["b"] = VLLM_TEXT
                before = await scraper.start()
                fleet.bodies["b"] = body
            fleet.bodies["b"] = VLLM_TEXT
            assert await scraper.read() == before

    run(test)


def test_an_address_twice_or_none_is_refused() -> None:
    async def test() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(ParameterError, match="distinct; name every server once"):
                MetricsScraper(session, ["http://a:1", "http://a:1/"], clock=lambda: 0.0)
            with pytest.raises(ParameterError, match="at least one address"):
                MetricsScraper(session, [], clock=lambda: 0.0)

    run(test)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (VLLM_TEXT, SGLANG_TEXT, "sglang and vllm"),
        (VLLM_TEXT, counted_text(10), r"block_size = \[16, 32\] differs"),
        (without(HALVES, "prefill"), without(HALVES, '"decode"'), "decode and prefill engines"),
    ],
)
def test_engines_that_cannot_be_pooled_are_refused(a: str, b: str, message: str) -> None:
    async def test() -> None:
        async with Fleet(a=a, b=b).scraped() as scraper:
            with pytest.raises(ScrapeError, match=message):
                await scraper.start()

    run(test)


def test_a_fleet_of_several_models_is_warned_of_and_so_is_one_server_under_two_names() -> None:
    async def test() -> None:
        async with Fleet(a=counted_text(9, model="a"), b=counted_text(9, model="b")).scraped() as scraper:
            await scraper.start()
            assert scraper.warnings == (
                "the addresses serve several models (a, b); they are read as one fleet",
            )
        async with Fleet(a=counted_text(9, born_s=5.0), b=counted_text(9, born_s=5.0)).scraped() as scraper:
            await scraper.start()
            assert "are they one server, read twice?" in scraper.warnings[0]
        async with Fleet(a=counted_text(9, born_s=5.0), b=counted_text(9, born_s=6.0)).scraped() as scraper:
            await scraper.start()
            assert scraper.warnings == ()

    run(test)


def test_restarts_and_replicas_are_those_of_one_address() -> None:
    async def test() -> None:
        fleet = Fleet(a=counted_text(900), b=counted_text(900, born_s=8.0))
        async with fleet.scraped() as scraper:
            await scraper.start()
            fleet.bodies["a"] = counted_text(0)
            assert (await scraper.read()).prompt_tokens == 1800
            assert scraper.num_resets == 1
            fleet.bodies["b"] = counted_text(950, born_s=2.0)
            with pytest.raises(ReplicasError, match="several replicas answer in turn") as error:
                await scraper.read()
            assert str(error.value).startswith(fleet.urls["b"])

    run(test)


def test_what_is_odd_at_the_start_names_the_address() -> None:
    async def test() -> None:
        fleet = Fleet(a="{}")
        async with fleet.scraped() as scraper:
            with pytest.raises(MetricNamesError, match="JSON") as error:
                await scraper.start()
            assert str(error.value).startswith(fleet.urls["a"])

    run(test)
