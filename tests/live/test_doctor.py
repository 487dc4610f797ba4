"""The doctor: what phase an engine is in, from its own counters, and where nothing can be told."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from aiohttp import web

from concur.errors import ParameterError
from concur.live.diagnosis import Phase, Reading, diagnose
from concur.live.doctor import Watch, sentences
from concur.live.errors import ScrapeError
from tests.helpers import concur
from tests.live.pages import VLLM_TEXT, field_page, vllm_text

POOL = 1000


def reading(time_s: float, queries: float | None, hits: float | None, **more: float) -> Reading:
    values = {"num_requests_running": 4.0, "num_requests_waiting": 2.0, "kv_cache_usage_frac": 0.5}
    counted = {"prefix_cache_queries_tokens": queries, "prefix_cache_hits_tokens": hits}
    return Reading(time_s, POOL, **(values | counted | {"generation_tokens": 100.0} | more))  # type: ignore[arg-type]


def phase(*readings: Reading) -> Phase:
    return diagnose(readings).phase


def test_while_less_was_computed_than_the_pool_holds_misses_are_first_calls() -> None:
    assert phase(reading(0, 0, 0), reading(10, 800, 0)) is Phase.WARM_UP
    assert phase(reading(0, 400, 0), reading(10, 2000, 0)) is Phase.LITTLE_REUSE


def test_hits_that_have_gone_are_thrash_and_what_they_cost_is_counted() -> None:
    found = diagnose([reading(0, 10_000, 9_000), reading(10, 20_000, 10_000, generation_tokens=1_100.0)])
    assert found.phase is Phase.THRASHING
    assert (found.hit_rate_before, found.hit_rate) == (0.9, 0.1)
    assert found.lost_tokens_per_s == pytest.approx(0.8 * 10_000 / 10)
    assert found.lost_frac == pytest.approx(8_000 / (9_000 + 1_000))
    assert found.prefill_tokens_per_s == pytest.approx(900)
    assert found.generation_tokens_per_s == pytest.approx(100)
    assert found.context_tokens == pytest.approx(0.5 * POOL / 4)
    assert found.num_fitting == pytest.approx(8)


def test_an_engine_that_has_thrashed_for_a_while_has_a_low_rate_behind_it_too() -> None:
    assert phase(reading(0, 100_000, 27_000), reading(8, 140_000, 30_700)) is Phase.THRASHING
    assert phase(reading(0, 100_000, 9_000), reading(8, 140_000, 9_500)) is Phase.LITTLE_REUSE


def test_hits_that_hold_are_health_and_a_full_pool_is_said() -> None:
    first, last = reading(0, 10_000, 9_000), reading(10, 20_000, 17_500)
    assert phase(first, last) is Phase.HEALTHY
    full = [
        reading(t, q, h, kv_cache_usage_frac=0.95) for t, q, h in ((0, 10_000, 9_000), (10, 20_000, 17_500))
    ]
    assert phase(*full) is Phase.FULL
    assert phase(
        reading(0, 10_000, 9_000, num_preemptions=3.0), reading(9, 20_000, 17_500, num_preemptions=4.0)
    ) is (Phase.FULL)


def test_an_engine_that_does_nothing_is_idle() -> None:
    idle = {"num_requests_running": 0.0, "num_requests_waiting": 0.0, "kv_cache_usage_frac": 0.0}
    found = diagnose([reading(0, 10_000, 9_000, **idle), reading(10, 10_000, 9_000, **idle)])
    assert found.phase is Phase.IDLE
    assert found.hit_rate is None
    assert found.num_fitting is None


def test_an_engine_that_began_anew_in_between_counts_from_there() -> None:
    found = diagnose([reading(0, 10_000, 9_000), reading(10, 800, 100, generation_tokens=10.0)])
    assert found.hit_rate == pytest.approx(1 / 8)
    assert found.phase is Phase.WARM_UP


def test_a_rank_that_does_not_count_for_itself_is_not_called_sick() -> None:
    first, last = (reading(t, None, None, generation_tokens=None) for t in (0, 10))  # type: ignore[arg-type]
    found = diagnose([first, last])
    assert found.phase is Phase.HEALTHY
    assert found.hit_rate is None


@pytest.mark.parametrize("times_s", [(0,), (3, 3)])
def test_one_moment_is_no_window(times_s: tuple[float, ...]) -> None:
    with pytest.raises(ParameterError, match="readings"):
        diagnose([reading(time_s, 100, 0) for time_s in times_s])


def test_one_engine_of_eight_that_thrashes_is_named() -> None:
    well = [reading(0, 10_000, 9_000), reading(10, 20_000, 18_000)]
    ill = [reading(0, 10_000, 9_000), reading(10, 20_000, 9_500)]
    found = {str(rank): diagnose(ill if rank == 5 else well) for rank in range(8)}
    lines = sentences(found)
    assert lines[0].startswith("Engine 5: thrashing. It finds 5 % of prompts in its cache, 90 % before")
    assert lines[1].startswith("1 of 8 engines thrash")
    assert len(lines) == 2


def test_each_phase_has_its_words() -> None:
    idle = {"num_requests_running": 0.0, "num_requests_waiting": 0.0, "kv_cache_usage_frac": 0.0}
    for readings, words in (
        ([reading(0, 9, 0, **idle), reading(1, 9, 0, **idle)], "Nothing runs"),
        ([reading(0, 0, 0), reading(1, 800, 0)], "nothing was evicted yet"),
        ([reading(0, 10_000, 9_000), reading(1, 20_000, 18_000)], "nothing to mend"),
        ([reading(0, 9_000, 0), reading(1, 18_000, 0)], "If every prompt is a new one, no control helps"),
        ([reading(0, 9_000, 0, **idle), reading(1, 18_000, 0, **idle)], "how many fit cannot be told"),
    ):
        assert words in " ".join(sentences({"0": diagnose(readings)}))


@pytest.fixture
def server() -> Iterator[Callable[[Callable[[int], str]], str]]:
    """Serve `page(number of the request)` on /metrics from a thread; return the address."""
    stop: list[Callable[[], object]] = []

    def serve(page: Callable[[int], str]) -> str:
        ready, url = threading.Event(), []

        async def main() -> None:
            numbers = iter(range(10**9))

            async def metrics(request: web.Request) -> web.Response:
                return web.Response(text=page(next(numbers)))

            app = web.Application()
            app.router.add_get("/metrics", metrics)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
            loop, over = asyncio.get_running_loop(), asyncio.Event()
            stop.append(lambda: loop.call_soon_threadsafe(over.set))
            ready.set()
            await over.wait()
            await runner.cleanup()

        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        assert ready.wait(10)
        return url[0]

    yield serve
    for each in stop:
        each()


def ranks(number: int) -> str:
    """Return the page of eight ranks, of which rank 3 finds nothing from the first reading on."""
    values: Mapping[str, Mapping[str, float]] = {
        str(rank): {
            "vllm:prefix_cache_queries_total": 1e6 * (1 + number),
            "vllm:prefix_cache_hits_total": 9e5 * (1 + (0 if rank == 3 else number)),
            "vllm:num_requests_running": 8,
            "vllm:kv_cache_usage_perc": 0.5,
        }
        for rank in range(8)
    }
    return vllm_text(values)


def test_a_page_with_eight_ranks_of_which_one_collapsed(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server(ranks)
    assert concur(monkeypatch, "doctor", url, "--seconds", "1", "--every", "0.1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [name for name, each in found.items() if each["phase"] == "thrashing"] == ["3"]
    assert len(found) == 8
    assert concur(monkeypatch, "doctor", server(ranks), "--seconds", "1", "--every", "0.1") == 0
    out = capsys.readouterr().out
    assert "Engine 3: thrashing" in out
    assert "1 of 8 engines thrash" in out


def test_a_cold_server_is_idle(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server(lambda number: field_page("sglang_cold"))
    assert concur(monkeypatch, "doctor", url, "--seconds", "1", "--every", "0.2") == 0
    assert "Nothing runs" in capsys.readouterr().out


def test_a_reading_that_fails_is_left_out_and_a_server_that_never_answers_again_is_an_error(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = server(lambda number: VLLM_TEXT[:200] if number == 1 else VLLM_TEXT)
    watch = Watch([broken])
    asyncio.run(watch.run(1.0, 0.1))
    assert watch.num_failed == 1
    assert len(watch.found()) == 1
    gone = server(lambda number: VLLM_TEXT if number == 0 else "")
    assert concur(monkeypatch, "doctor", gone, "--seconds", "1", "--every", "0.3") == 2
    assert "no second reading in 1 s" in capsys.readouterr().err


def test_what_is_no_engine_is_refused_at_the_door() -> None:
    with pytest.raises(ScrapeError, match="no answer"):
        asyncio.run(Watch(["http://127.0.0.1:9"]).run(1.0, 0.5))


def test_without_the_extra_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("concur.live.doctor_cli", "concur.live.doctor", "concur.live.scrape"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert concur(monkeypatch, "doctor", "http://127.0.0.1:9") == 2
    assert "concur doctor needs aiohttp, which is not installed here" in capsys.readouterr().err
